"""Do generated clips behave like video? Measured in the test model's own encoder, beside real recordings.

``python -m earlytom.testbed.realism --output DIR [VIDEO ...]`` prints, for generated clips and for every file given,
how alike neighbouring frames are at several depths of the encoder, what share of the frames merges at several
thresholds (with no bound on how few are left) and by default, and how the received attention spreads over the tokens.
It writes the same as JSON and as a picture.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from earlytom.methods.earlytom import EarlyTom
from earlytom.ops import frame_similarity
from earlytom.runtime import compress
from earlytom.runtime.pipeline import VideoQA
from earlytom.testbed.checkpoint import CHECKPOINT_FOLDER, FRAME_LIMIT, load_checkpoint, question_prompt
from earlytom.testbed.scenes import generate_clip
from earlytom.video import Sampling, read_video

REALISM_SEED = 960_000_000
DEPTHS = (1, 3, 5, 7)
THRESHOLDS: tuple[float | None, ...] = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, None)
_NO_THRESHOLD, _DEFAULT = "no threshold", "the default"
# What tokens are ranked by has no say in merging; by attention, so that there is some to be measured.
_BY_ATTENTION = ("attention",)
METHODS = {
    _NO_THRESHOLD if threshold is None else str(threshold): EarlyTom(
        tau_seg=threshold, least_frames=0.0, ranked_by=_BY_ATTENTION
    )
    for threshold in THRESHOLDS
} | {_DEFAULT: EarlyTom(ranked_by=_BY_ATTENTION)}
_PERCENTILES = (5, 25, 50, 75, 95)
_QUESTION = "How many objects are there?"
# A token that takes this many times the median of its frame, in most frames, is a sink.
_SINK_RATIO = 5.0


@dataclass(frozen=True, eq=False)
class Clip:
    """Sixteen frames.

    Attributes:
        source: ``generated`` or the name of a file.
        frames: uint8 [16, H, W, 3].
        same_scene: bool [15], whether neighbouring frames belong to one scene; None where nobody knows.
    """

    source: str
    frames: NDArray[np.uint8]
    same_scene: NDArray[np.bool_] | None = None


def generated_clips(count: int) -> list[Clip]:
    """Return ``count`` generated clips of seeds that are used for nothing else."""
    clips = []
    for number in range(count):
        frames, truth = generate_clip(REALISM_SEED + number)
        clips.append(Clip("generated", frames, np.diff(truth.scene) == 0))
    return clips


def recorded_clips(path: Path) -> list[Clip]:
    """Return the whole recording and its halves, sixteen uniform frames of each."""
    frames = np.asarray(read_video(path, Sampling(frames=4 * FRAME_LIMIT)).frames)
    parts = (frames, frames[: len(frames) // 2], frames[len(frames) // 2 :])
    chosen = [part[np.linspace(0, len(part) - 1, FRAME_LIMIT).astype(np.int64)] for part in parts]
    return [Clip(path.name, part) for part in chosen]


@torch.no_grad()
def neighbour_similarity(qa: VideoQA, clip: Clip) -> NDArray[np.float32]:
    """Return the similarity of neighbouring frames after each of ``DEPTHS``, float32 [len(DEPTHS), 15]."""
    model: Any = qa.model
    pixels = qa.processor.video_processor(videos=[clip.frames], return_tensors="pt")["pixel_values_videos"][0]
    states = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
    tables = [frame_similarity(states[depth + 1]) for depth in DEPTHS]
    return np.stack([table.diagonal(1).numpy() for table in tables]).astype(np.float32)


@torch.no_grad()
def compression(qa: VideoQA, clip: Clip, method: EarlyTom) -> tuple[float, NDArray[np.float32]]:
    """Return the share of temporal grids that merged away, and the received attention [grids left, 36]."""
    prompt = question_prompt(qa.processor, _QUESTION)
    inputs = qa.processor(text=prompt, videos=[clip.frames], return_tensors="pt")
    with compress(qa.model, method) as trace:
        qa.model(**inputs)
    video = trace.videos[0]
    attention = video.attention
    if attention is None:
        raise ValueError("the method asked for no attention")
    return 1.0 - video.temporal_grids_left / video.grid.temporal_grids, attention.numpy().astype(np.float32)


def sink_share(attention: NDArray[np.float32]) -> float:
    """Return the share of token places that act as sinks in ``attention`` [frames, tokens].

    A sink takes more than five times the median of its frame in at least three frames of four, whatever these show.
    """
    strong = attention > _SINK_RATIO * np.median(attention, axis=1, keepdims=True)
    return float((strong.mean(axis=0) >= 0.75).mean())


def top_share(attention: NDArray[np.float32]) -> float:
    """Return the share of a frame's attention that its strongest tenth of tokens receives, averaged over frames."""
    count = max(1, attention.shape[1] // 10)
    strongest = np.sort(attention, axis=1)[:, -count:].sum(axis=1)
    return float((strongest / attention.sum(axis=1)).mean())


def describe(qa: VideoQA, clips: list[Clip]) -> dict[str, Any]:
    """Measure clips of one source; similarities as percentiles 5, 25, 50, 75 and 95."""
    tables = [neighbour_similarity(qa, clip) for clip in clips]
    similarity = {
        f"after layer {depth}": _split_percentiles([table[row] for table in tables], clips)
        for row, depth in enumerate(DEPTHS)
    }
    found = {name: [compression(qa, clip, method) for clip in clips] for name, method in METHODS.items()}
    merged = {name: round(float(np.mean([share for share, _ in results])), 3) for name, results in found.items()}
    attention = [table for _, table in found[_DEFAULT]]
    return {
        "clips": len(clips),
        "similarity_percentiles": similarity,
        "share_of_frames_merged": merged,
        "sink_share": round(float(np.mean([sink_share(table) for table in attention])), 4),
        "attention_of_top_tenth": round(float(np.mean([top_share(table) for table in attention])), 4),
    }


def _split_percentiles(rows: list[NDArray[np.float32]], clips: list[Clip]) -> dict[str, list[float]]:
    """Return percentiles of all neighbours, and where scenes are known of those within one and across a cut."""
    found = {"all": _percentiles(np.concatenate(rows))}
    if all(clip.same_scene is not None for clip in clips):
        same = np.concatenate([clip.same_scene for clip in clips if clip.same_scene is not None])
        values = np.concatenate(rows)
        found |= {"within a scene": _percentiles(values[same]), "across a cut": _percentiles(values[~same])}
    return found


def _percentiles(values: NDArray[np.float32]) -> list[float]:
    """Return the five percentiles with three decimals."""
    return [round(float(value), 3) for value in np.percentile(values, _PERCENTILES)]


def draw(results: dict[str, dict[str, Any]], maps: dict[str, NDArray[np.float32]], path: Path) -> None:
    """Draw merge shares, similarities and one attention heat map [frames, tokens] for each source."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.4 + 2.2 * len(maps)), layout="constrained")
    grid = figure.add_gridspec(1 + len(maps), 2, height_ratios=[1.5, *[1.0] * len(maps)])
    left, right = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])
    for name, result in results.items():
        rows = [row["all"] for row in result["similarity_percentiles"].values()]
        low, middle, high = (np.array([row[index] for row in rows]) for index in (0, 2, 4))
        line = left.plot(DEPTHS, middle, marker="o", label=name)[0]
        left.fill_between(DEPTHS, low, high, alpha=0.12, color=line.get_color())
        shares = result["share_of_frames_merged"]
        fixed = [threshold for threshold in THRESHOLDS if threshold is not None]
        right.plot(
            fixed, [shares[str(threshold)] for threshold in fixed], marker="o", color=line.get_color(), label=name
        )
        right.axhline(shares[_NO_THRESHOLD], color=line.get_color(), linestyle=":", linewidth=1)
        right.axhline(shares[_DEFAULT], color=line.get_color(), linestyle="--", linewidth=1)
    left.set(xlabel="encoder layer", ylabel="similarity of neighbouring frames", title="median, 5 to 95%")
    left.set_xticks(DEPTHS)
    right.set(
        xlabel="threshold",
        ylabel="share of frames merged",
        title="dotted: no threshold; dashed: the default",
        ylim=(0, 1),
    )
    left.legend(frameon=False)
    for number, (name, table) in enumerate(maps.items(), start=1):
        axes = figure.add_subplot(grid[number, :])
        image = axes.imshow(table / table.mean(), aspect="auto", cmap="magma", interpolation="nearest")
        axes.set(ylabel="frame left", title=f"{name}: received attention over its mean")
        figure.colorbar(image, ax=axes)
        axes.set_xlabel("token of the frame (6 x 6, row by row)")
    figure.savefig(path, dpi=110)


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m earlytom.testbed.realism", description=__doc__)
    parser.add_argument("videos", nargs="*", type=Path, help="recordings to compare with")
    parser.add_argument("--output", type=Path, required=True, help="folder for realism.json and realism.png")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT_FOLDER, help="folder of the checkpoint")
    parser.add_argument("--clips", type=int, default=40, help="generated clips")
    options = parser.parse_args(arguments)
    torch.set_num_threads(2)
    qa = VideoQA(*load_checkpoint(options.checkpoint))
    sources = {"generated": generated_clips(options.clips)}
    sources |= {path.name: recorded_clips(path) for path in options.videos}
    results = {name: describe(qa, clips) for name, clips in sources.items()}
    maps = {name: compression(qa, clips[0], METHODS[_DEFAULT])[1] for name, clips in sources.items()}
    options.output.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1)
    print(text)
    (options.output / "realism.json").write_text(text + "\n", encoding="utf-8")
    draw(results, maps, options.output / "realism.png")


if __name__ == "__main__":
    main()
