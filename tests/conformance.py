"""Run recorded reference cases: ``python tests/conformance.py DIR [DIR ...]``.

DIR is a folder in one of three formats, told apart by its files:

- ``cases.json`` with ``tau_seg``: EarlyTom, stage I twice and stage II. Segments exactly, features and attention within
  1e-5, kept tokens exactly.
- ``cases.json`` with ``inner`` and others: peers. Methods that this package has are compared within 1e-5.
- ``N.json`` + ``N.safetensors`` + ``N_model/``: a whole small checkpoint through encoder and stage II; the tokens that
  go into the language model within 1e-4.

Prints each failure and ends with the line ``N passed, N failed``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from earlytom.methods.earlytom import EarlyTom
from earlytom.methods.holitom import HoliTom
from earlytom.methods.inner_merging import InnerMerging
from earlytom.methods.visionzip import VisionZip
from earlytom.ops import (
    frame_similarity,
    plan_merging,
    published_counts,
    rescaled_retention,
    segment_frames,
    select_by_frame,
)
from earlytom.reduction import Reduction
from earlytom.types import FrameGrid, LanguageStates, VisualTokens

Failures = list[str]


def close(name: str, actual: Tensor, expected: Any, tolerance: float) -> Failures:
    wanted = torch.as_tensor(np.asarray(expected))
    if tuple(actual.shape) != tuple(wanted.shape):
        return [f"{name}: shape {tuple(actual.shape)}, expected {tuple(wanted.shape)}"]
    difference = float((actual.double() - wanted.double()).abs().max()) if actual.numel() else 0.0
    return [] if difference <= tolerance else [f"{name}: differs by {difference:.2e}, allowed {tolerance:.0e}"]


def equal(name: str, actual: object, expected: object) -> Failures:
    return [] if actual == expected else [f"{name}: {actual}, expected {expected}"]


def merge_once(x: Tensor, attention: Tensor, case: dict[str, Any]) -> tuple[list[list[int]], Tensor, Tensor]:
    similarity = frame_similarity(x).tolist()
    segments = segment_frames(similarity, threshold=case["tau_seg"], ema=case["ema"], max_window=case["max_window"])
    reduction = plan_merging(similarity, segments, variant="official")
    return [list(segment) for segment in segments], reduction.apply(x), reduction.apply(attention)


def check_earlytom(case: dict[str, Any], arrays: Any) -> Failures:
    x, attention = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["attn_received"])
    segments, y1, a1 = merge_once(x, attention, case)
    failures = equal("segments of pass 1", segments, [list(pair) for pair in case["segments_pass1"]])
    failures += close("y1", y1, arrays["y1"], 1e-5) + close("a1", a1, arrays["a1"], 1e-5)
    _, y2, a2 = merge_once(y1, a1, case)
    failures += close("y2", y2, arrays["y2"], 1e-5) + close("a2", a2, arrays["a2"], 1e-5)
    if failures:
        return failures
    refined, _, _ = merge_once(y2, a2, case)
    failures += equal("refined segments", refined, [list(pair) for pair in case["segments_pass2_refined"]])
    rescaled = rescaled_retention(case["retention"], case["frames"], y2.shape[0])
    dynamic = [frame in pair for pair in refined for frame in range(pair[0], pair[1] + 1)]
    counts = published_counts(rescaled, dynamic, case["tokens"])
    kept = select_by_frame(a2, counts, [not flag for flag in dynamic])
    pairs = torch.stack([kept // case["tokens"], kept % case["tokens"]], dim=1)
    return failures + equal("kept tokens", pairs.tolist(), np.asarray(arrays["kept"]).tolist())


def check_inner(case: dict[str, Any], arrays: Any) -> Failures:
    """Inner-LLM merging with the authors' sequential averages."""
    settings = case["inner"]
    hidden = torch.from_numpy(arrays["inner_in"])[0]
    attention = torch.from_numpy(arrays["inner_attn_last_query"])
    start, length = settings["image_start"], settings["image_length"]
    visual = slice(start, start + length)
    states = LanguageStates(features=hidden[visual], attention=attention[visual], entered=length, depth=28)
    reduction = InnerMerging(ratio=settings["ratio"], compat="official").reduce_in_llm(states, 18)
    if reduction is None:
        return ["inner merging kept every token"]
    output = torch.cat([hidden[:start], reduction.apply(hidden[visual]), hidden[start + length :]])
    kept = torch.cat(
        [torch.arange(start), reduction.survivors() + start, torch.arange(start + length, hidden.shape[0])]
    )
    failures = equal("kept positions", kept.tolist(), np.asarray(arrays["inner_keep"]).flatten().tolist())
    return failures or close("inner_out", output, np.asarray(arrays["inner_out"]).reshape(tuple(output.shape)), 1e-5)


def check_visionzip(case: dict[str, Any], arrays: Any) -> Failures:
    """In each frame the dominant tokens, then the contextual ones."""
    settings, features = case["visionzip"], torch.from_numpy(arrays["x"])
    tokens = VisualTokens(
        features=features,
        attention=torch.from_numpy(arrays["attn"]),
        keys=torch.from_numpy(arrays["metric"]),
        grid=FrameGrid(frames=case["frames"], rows=1, columns=case["tokens"]),
        origin=Reduction.identity(case["frames"]),
    )
    method = VisionZip(retention=case["retention"], compat="official")
    decision = method.select_tokens(tokens, method.budget(tokens.grid))
    failures = equal("dominant tokens", decision.details["dominant_tokens"], [settings["dominant"]] * case["frames"])
    failures += equal(
        "contextual tokens", decision.details["contextual_tokens"], [settings["contextual"]] * case["frames"]
    )
    if failures or decision.reduction is None:
        return failures or ["visionzip kept every token"]
    output = decision.reduction.apply(features.flatten(0, 1)).unflatten(0, (case["frames"], -1))
    several, few = output.tensor_split([settings["dominant"]], dim=1)
    failures = close("visionzip_dominant", several, arrays["visionzip_dominant"], 1e-5)
    return failures + close("visionzip_contextual", few, arrays["visionzip_contextual"], 1e-5)


def check_holitom(case: dict[str, Any], arrays: Any) -> Failures:
    """Recorded with clusters as plain means."""
    settings, features = case["holitom"], torch.from_numpy(arrays["x"])
    tokens = VisualTokens(
        features=features,
        attention=torch.from_numpy(arrays["attn"]),
        grid=FrameGrid(frames=case["frames"], rows=1, columns=case["tokens"]),
        origin=Reduction.identity(case["frames"]),
    )
    method = HoliTom(retention=case["retention"], tau=settings["tau"], centre_weight=None, compat="official")
    decision = method.select_tokens(tokens, method.budget(tokens.grid))
    details: Any = decision.details
    failures = equal("windows", [list(window) for window in details["segments"]], settings["segments"])
    saved = sum(
        count * (last - first)
        for (first, last), count in zip(details["segments"], details["static_tokens"], strict=True)
    )
    failures += equal("tokens merged along time", saved, settings["reduced_tokens"])
    if failures or decision.reduction is None:
        return failures or ["holitom kept every token"]
    return close("holitom", decision.reduction.apply(features.flatten(0, 1)), arrays["holitom"], 1e-5)


def check_end_to_end(folder: Path, name: str) -> Failures:
    from safetensors.torch import load_file
    from transformers import LlavaOnevisionForConditionalGeneration

    from earlytom.trace import Stopwatch
    from reference.one_clip import encode_clip

    settings = json.loads((folder / f"{name}.json").read_text())
    tensors = load_file(folder / f"{name}.safetensors")
    model = LlavaOnevisionForConditionalGeneration.from_pretrained(folder / f"{name}_model", dtype=torch.float32).eval()
    method = EarlyTom(
        retention=settings["retention"],
        tau_seg=settings["tau_seg"],
        merge_layers=tuple(settings["merge_layers"]),
        ema=settings["ema"],
        max_window=settings["max_window"],
        compat="official",
    )
    failures = equal("frames", tensors["pixels"].shape[0], settings["frames"])
    with torch.no_grad():
        kept, trace = encode_clip(model, tensors["pixels"], method, Stopwatch(torch.device("cpu")))
        tokens = torch.cat([kept.features, model.model.image_newline[None]])
    failures += equal("frames left", trace.frames_left, settings["frames_left"])
    failures += equal("segments", [list(pair) for pair in trace.details["segments"]], settings["segments"])  # type: ignore[attr-defined]
    failures += equal("kept tokens", trace.tokens, settings["kept"])
    return failures + close("visual tokens", tokens, tensors["visual_tokens"].numpy(), 1e-4)


def run_folder(folder: Path) -> Iterator[tuple[str, Failures]]:
    """Yield the name and the failures of every case in a folder; arrays of methods that do not exist are left out."""
    if (folder / "cases.json").is_file():
        for case in json.loads((folder / "cases.json").read_text()):
            arrays = np.load(folder / f"{case['case']}.npz")
            if "tau_seg" in case:
                yield f"earlytom {case['case']}", check_earlytom(case, arrays)
            if "visionzip" in case:
                yield f"visionzip {case['case']}", check_visionzip(case, arrays)
            if "holitom" in case:
                yield f"holitom {case['case']}", check_holitom(case, arrays)
            if "inner" in case:
                yield f"inner merging {case['case']}", check_inner(case, arrays)
    for path in sorted(folder.glob("*.safetensors")):
        yield f"end to end {path.stem}", check_end_to_end(folder, path.stem)


def main(folders: list[str]) -> int:
    if not folders:
        print("usage: python tests/conformance.py DIR [DIR ...]", file=sys.stderr)
        return 2
    passed = failed = 0
    for folder in map(Path, folders):
        if not folder.is_dir():
            print(f"no such folder: {folder}", file=sys.stderr)
            return 2
        for name, failures in run_folder(folder):
            passed, failed = (passed, failed + 1) if failures else (passed + 1, failed)
            for failure in failures:
                print(f"FAILED {folder.name}: {name}: {failure}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
