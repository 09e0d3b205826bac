"""Long clips: similarities in blocks against the table of all pairs, the host's planning, and the encoder in parts.

``python benchmarks/long_clips.py --output benchmarks/results/long_clips_cpu.json``; see README.md for what is measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from _harness import Outcome, Variant, environment, interleave, summarise, write_json
from _models import build_inputs, build_model
from _synthetic import Sizes, SyntheticClip, scenes
from earlytom import EarlyTom, Reduction
from earlytom.bench.tables import plain_table
from earlytom.models import open_model
from earlytom.ops import frame_similarity, similarity_within
from earlytom.runtime.encode import encode_videos
from earlytom.runtime.plans import Plans
from earlytom.similarity import FrameSimilarity
from earlytom.trace import Stopwatch
from earlytom.types import EncoderPlan, EncoderShape, FrameStates

NARROW, TRUE = "narrow", "true"
# Patches a side, width of the encoder and of the language model, dtype.
WIDTHS: dict[str, tuple[int, int, int, torch.dtype]] = {
    NARROW: (27, 48, 64, torch.float32),
    TRUE: (27, 1152, 896, torch.bfloat16),
}


@dataclass(frozen=True, kw_only=True)
class AllPairs(EarlyTom):
    """EarlyTom as it was before it said how far apart it reads: the table of all pairs, brought to the host."""

    def encoder_plan(self, encoder: EncoderShape) -> EncoderPlan:
        return dataclasses.replace(super().encoder_plan(encoder), similarity_span=None)


METHODS = {"blocks": EarlyTom(), "all pairs": AllPairs()}


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; 1 when blocks and all pairs keep other tokens."""
    options = _parse(arguments)
    device = torch.device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    content: dict[str, Any] = {"benchmark": "long clips", "environment": environment(device)}
    content["options"] = {key: value for key, value in vars(options).items() if key != "output"}
    processed = {
        f"{frames} frames, {width} width": _token_processing(frames, width, options.repeats, device)
        for width, counts in ((NARROW, options.narrow), (TRUE, options.true))
        for frames in counts
    }
    content["token_processing"] = processed
    content["planning"] = {str(frames): _planning(frames, options.repeats) for frames in options.planned}
    content["encoder_in_parts"] = {
        str(frames): _in_parts(frames, options.grids_at_once, options.repeats, device) for frames in options.encoded
    }
    _show(content)
    if options.output:
        write_json(options.output, content)
    return 0 if all(case["same_tokens"] for case in processed.values()) else 1


def _token_processing(frames: int, width: str, repeats: int, device: torch.device) -> dict[str, Any]:
    """Merging and selection of a clip in an encoder that computes nothing, with both ways to compare frames."""
    side, encoder_width, language_width, dtype = WIDTHS[width]
    sizes = Sizes(
        frames=frames, rows=14, columns=14, width=language_width, side=side, encoder_width=encoder_width
    )  # fmt: skip
    places: dict[str, Tensor] = {}
    with torch.no_grad():
        clip = SyntheticClip(sizes, device, dtype)
        variants = {name: _processing(clip, name, places) for name in METHODS}
        runs = interleave(variants, {}, 0, repeats, device)
        apart = _largest_difference(clip.states)
    return {
        "sizes": dataclasses.asdict(sizes) | {"dtype": str(dtype)},
        "same_tokens": torch.equal(*places.values()),
        "largest_difference_of_similarity": apart,
        "results": {name: summarise(found) for name, found in runs.items()},
    }


def _processing(clip: SyntheticClip, name: str, places: dict[str, Tensor]) -> Variant:
    """Leaves the places of the kept tokens in ``places``, untimed."""

    def call() -> tuple[Stopwatch, Tensor]:
        clock = Stopwatch(clip.states.device)
        kept, _ = clip.keep(METHODS[name], clock)
        return clock, kept.places

    def read(result: tuple[Stopwatch, Tensor]) -> Outcome:
        clock, places[name] = result
        spent = clock.milliseconds()
        return {stage: spent[stage] for stage in ("merging", "selection")}, {"visual_tokens": len(places[name])}

    return Variant(call, read)


def _largest_difference(states: Tensor) -> float:
    """Between the similarities that are read, by blocks and by the table of all pairs."""
    span = EarlyTom().max_window - 1
    rows, whole = similarity_within(states, span).rows(), frame_similarity(states).cpu()
    frames = len(states)
    near = ((one, other) for one in range(frames) for other in range(one, min(frames, one + span + 1)))
    return max(abs(rows[one][other] - float(whole[one, other])) for one, other in near)


def _planning(frames: int, repeats: int) -> dict[str, Any]:
    """What the host makes of similarities that have arrived: segments, threshold, which frames merge."""
    features = scenes(frames, 9, 16, torch.device("cpu"), torch.float32)
    span = EarlyTom().max_window - 1
    known = {"blocks": similarity_within(features, span), "all pairs": frame_similarity(features)}

    def variant(similarity: Tensor | FrameSimilarity) -> Variant:
        states = FrameStates(
            features=features, attention=None, origin=Reduction.identity(frames), similarity=similarity
        )  # fmt: skip
        return Variant(lambda: EarlyTom().merge_frames(states, 0, 1), _nothing)

    runs = interleave(
        {name: variant(similarity) for name, similarity in known.items()}, {}, 0, repeats, torch.device("cpu")
    )
    return {name: summarise(found) for name, found in runs.items()}


def _in_parts(frames: int, grids_at_once: list[int], repeats: int, device: torch.device) -> dict[str, Any]:
    """The whole encoder of a tiny model with EarlyTom, all frames in a layer together and some at a time."""
    model = build_model("tiny", device, torch.float32)
    host = open_model(model)
    call, method = host.open(build_inputs(model, frames, "static")), EarlyTom()
    if call is None:
        raise ValueError("the inputs hold no video")
    plan = Plans.of(method, host).encoder

    def variant(grids: int | None) -> Variant:
        return Variant(lambda: encode_videos(call, method, plan, Stopwatch(device), grids), _nothing)

    variants = {"all at once": variant(None)} | {f"{grids} at once": variant(grids) for grids in grids_at_once}
    with torch.no_grad():
        runs = interleave(variants, {}, 0, repeats, device)
    return {name: summarise(found) for name, found in runs.items()}


def _nothing(_: object) -> Outcome:
    return {}, {}


def _show(content: dict[str, Any]) -> None:
    rows = []
    for title, case in content["token_processing"].items():
        for name, found in case["results"].items():
            stages = [f"{found['stages_ms'][stage]['median']:.0f}" for stage in ("merging", "selection")]
            rows.append([f"{title}: {name}", *stages, _mebibytes(found)])
    print(plain_table(["token processing", "merging ms", "selection ms", "peak MiB"], rows))
    for title, cases in (("planning", content["planning"]), ("encoder", content["encoder_in_parts"])):
        rows = [
            [f"{frames} frames: {name}", f"{found['total_ms']['median']:.1f}", _mebibytes(found)]
            for frames, case in cases.items()
            for name, found in case.items()
        ]
        print(plain_table([title, "ms", "peak MiB"], rows))


def _mebibytes(found: dict[str, Any]) -> str:
    return "-" if found["peak_bytes"] is None else f"{found['peak_bytes'] / 2**20:.0f}"


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--narrow", type=int, nargs="*", default=[64, 256, 768, 4000], help="frames at a narrow width")
    parser.add_argument("--true", type=int, nargs="*", default=[64, 768], help="frames at the true width, bfloat16")
    parser.add_argument("--planned", type=int, nargs="*", default=[64, 500, 1000, 2000, 4000])
    parser.add_argument("--encoded", type=int, nargs="*", default=[4000], help="frames through a tiny encoder")
    parser.add_argument("--grids-at-once", type=int, nargs="*", default=[64])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
