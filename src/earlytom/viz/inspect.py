"""The picture of one clip: frames with the dropped tokens dimmed, segments, and the attention where it decided.

Top: every temporal grid that is left (what the vision encoder takes as one: a frame, in the Qwen families a pair of
them), by the sampled frames of a representative input grid, side by side. A bar over the tiles shows their segment.
Bottom: the attention each token received, [grids left, tokens]; attention sinks are vertical stripes in it
(supplementary, Figure 6).
"""

from __future__ import annotations

import errno
import importlib.util
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from earlytom.errors import EarlyTomError, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from earlytom.trace import VideoTrace

__all__ = ["check_matplotlib", "check_writable", "dim_dropped", "draw_clip", "kept_masks", "write_png"]

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

_WIDTH = 14.0  # inches
_DPI = 130
_DIM = 0.22  # brightness that is left of a dropped token
_SEGMENT_COLOURS = ("#3b6fb6", "#d9822b", "#3f9b57", "#b5475a", "#7b5ea7", "#8c6d46", "#1f9ea3", "#a8912c")
_OUTLINE = "#ffe066"
_HEADER = 0.2  # inches over a tile for its bar, and as much for its caption
_SEAM = 0.03  # inches between the frames of one tile


def check_matplotlib() -> None:
    """Raise `EarlyTomError` when matplotlib is missing, before anything long is started."""
    if importlib.util.find_spec("matplotlib") is None:
        raise EarlyTomError("pictures need matplotlib, which is not installed: pip install earlytom[eval]")


def check_writable(path: Path) -> None:
    """Raise `EarlyTomError` when no file can be written at ``path``, before anything long is started."""
    if os.path.isdir(path):
        number = errno.EISDIR
    elif not os.path.isdir(path.parent):
        number = errno.ENOTDIR if os.path.exists(path.parent) else errno.ENOENT
    elif len(os.fsencode(path.name)) > os.pathconf(path.parent, "PC_NAME_MAX"):
        number = errno.ENAMETOOLONG
    elif not os.access(path if os.path.exists(path) else path.parent, os.W_OK):
        number = errno.EACCES
    else:
        return
    raise EarlyTomError(f"{shortened(path)}: cannot be written: {os.strerror(number)}")


def kept_masks(clip: VideoTrace) -> Mask:
    """Which tokens of each temporal grid that is left were kept: [N, rows, columns]."""
    grid = clip.grid
    masks = np.zeros((clip.temporal_grids_left, grid.tokens_per_frame), dtype=np.bool_)
    for grid_left, token in clip.kept_tokens():
        masks[grid_left, token] = True
    return masks.reshape(-1, grid.rows, grid.columns)


def dim_dropped(image: Pixels, kept: Mask) -> Pixels:
    """Darken the dropped tokens of a frame.

    Args:
        image: [H, W, 3].
        kept: [rows, columns], the tokens; the grid covers the whole image.

    Returns:
        A copy, [H, W, 3]; pixels of kept tokens are unchanged.
    """
    height, width = image.shape[:2]
    rows = np.arange(height) * kept.shape[0] // height
    columns = np.arange(width) * kept.shape[1] // width
    dropped = ~kept[rows][:, columns, None]
    return np.where(dropped, (image * _DIM).astype(np.uint8), image)


def write_png(figure: Figure, path: Path) -> None:
    """Write a figure. Raises `EarlyTomError` when the file cannot be written."""
    try:
        figure.savefig(path, format="png", dpi=_DPI)
    except OSError as error:
        raise EarlyTomError(f"{shortened(path)}: cannot be written: {error.strerror or error}") from error


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Tiles, one a temporal grid, in inches; the origin is the top left corner.

    ``frame_width``: that of each of the ``frames`` sampled frames that a tile shows side by side.
    """

    count: int
    columns: int
    frames: int
    frame_width: float
    tile_height: float
    gap: float = 0.12

    @classmethod
    def choose(cls, count: int, frames: int, aspect: float, width: float) -> _Layout:
        """As many columns as make the block about half as high as wide; never a few giant tiles.

        Args:
            count: tiles.
            frames: frames of each tile.
            aspect: height of a frame over its width.
            width: of the block.
        """
        columns = math.ceil(math.sqrt(count * aspect / frames * 2.4))
        columns = min(max(columns, 5), 14, max(count, 5))
        columns = math.ceil(count / math.ceil(count / columns)) if count > 5 else columns
        frame = (width / columns - cls.gap - (frames - 1) * _SEAM) / frames
        return cls(count=count, columns=columns, frames=frames, frame_width=frame, tile_height=frame * aspect)

    @property
    def tile_width(self) -> float:
        return self.frames * self.frame_width + (self.frames - 1) * _SEAM

    @property
    def rows(self) -> int:
        return math.ceil(self.count / self.columns)

    @property
    def pitch(self) -> float:
        return self.tile_height + 2 * _HEADER + self.gap

    @property
    def height(self) -> float:
        return self.rows * self.pitch

    def place(self, tile: int, frame: int = 0) -> tuple[float, float]:
        """Left and top edge of a frame of a tile."""
        row, column = divmod(tile, self.columns)
        left = column * (self.tile_width + self.gap) + frame * (self.frame_width + _SEAM)
        return left, row * self.pitch + 2 * _HEADER


def draw_clip(frames: Pixels, clip: VideoTrace, *, title: str = "") -> Figure:
    """Draw what happened to a clip.

    Args:
        frames: [F, H, W, 3] uint8, the sampled frames: as many as the clip has temporal grids, or so many of them to
            each grid, with fewer to the last one where they do not come out even.
        clip: the trace of their compression.
        title: first line of the picture.

    Raises:
        EarlyTomError: matplotlib is missing, or the frames are not those of the trace.
    """
    check_matplotlib()
    from matplotlib.figure import Figure

    shown, margin, head = clip.frames_of_grids(len(frames)), 0.35, 0.9
    count, aspect = clip.temporal_grids_left, frames.shape[1] / frames.shape[2]
    layout = _Layout.choose(count, len(shown[0]), aspect, _WIDTH - 2 * margin)
    heat = 0.0 if clip.attention is None else 1.0 + min(max(0.13 * count, 1.6), 6.0)
    total = head + layout.height + heat + 0.15
    figure = Figure(figsize=(_WIDTH, total), facecolor="white")
    figure.text(margin / _WIDTH, 1 - 0.3 / total, title, fontsize=12, fontweight="bold", va="center")
    caption = f"{_counts(clip, len(frames))}\n{_legend(len(frames), layout.frames)}"
    figure.text(margin / _WIDTH, 1 - 0.45 / total, caption, fontsize=9, color="0.3", va="top", linespacing=1.3)
    bottom = 1 - (head + layout.height) / total
    axes = figure.add_axes((margin / _WIDTH, bottom, 1 - 2 * margin / _WIDTH, layout.height / total))
    _draw_tiles(axes, frames, clip, layout)
    if clip.attention is not None:
        low, high = 0.55 / total, (heat - 0.9) / total
        axes = figure.add_axes((0.95 / _WIDTH, low, 1 - 1.95 / _WIDTH, high))
        bar_axes = figure.add_axes((1 - 0.9 / _WIDTH, low, 0.15 / _WIDTH, high))
        _draw_attention(axes, bar_axes, clip, "frame" if layout.frames == 1 else "temporal grid")
    return figure


def _counts(clip: VideoTrace, frames: int) -> str:
    """What went in and what is left, in the unit that the encoder works with."""
    kept, whole, grids = clip.tokens, clip.grid.tokens, clip.grid.temporal_grids
    unit = f"{frames} frames" if frames == grids else f"{frames} frames, {grids} temporal grids"
    text = f"{unit} -> {clip.temporal_grids_left}, {kept} of {whole} visual tokens kept ({kept / whole:.1%})."
    return text if clip.stepped_aside is None else f"{text} Left uncompressed: {clip.stepped_aside}."


def _legend(frames: int, frames_per_grid: int) -> str:
    text = "Dark: dropped. Numbers: the sampled frames, from 0, that a picture stands for."
    if frames_per_grid == 1:
        return text
    text = f"Each picture: the {frames_per_grid} frames of one temporal grid, which share their tokens. {text}"
    odd = frames % frames_per_grid
    return f"{text} The last grid was filled up with the last frame." if odd else text


def _draw_tiles(axes: Axes, frames: Pixels, clip: VideoTrace, layout: _Layout) -> None:
    axes.set_axis_off()
    masks, sources = kept_masks(clip), clip.sampled_sources(len(frames))
    shown, pictures = clip.frames_of_grids(len(frames)), clip.origin.survivors().tolist()
    segment_of = _segment_of(clip.details, clip.temporal_grids_left)
    size = min(7.5, max(5.3, 5.2 * layout.tile_width))
    for tile, mask in enumerate(masks):
        for place, frame in enumerate(shown[pictures[tile]]):
            _draw_frame(axes, frames[frame], mask, layout.place(tile, place), layout)
        _draw_bar(axes, tile, segment_of, clip.details, layout, size)
        left, top = layout.place(tile)
        text = f"{_ranges(sources[tile])}  ({int(mask.sum())} tokens)"
        axes.text(left, top - 0.05, text, fontsize=size, va="bottom", ha="left", clip_on=False)
    axes.set_xlim(0, layout.columns * (layout.tile_width + layout.gap))
    axes.set_ylim(layout.height, 0)
    axes.set_aspect("auto")


def _draw_frame(axes: Axes, image: Pixels, kept: Mask, corner: tuple[float, float], layout: _Layout) -> None:
    """A frame with its dropped tokens dimmed; ``corner``: its left and top edge."""
    left, top = corner
    extent = (left, left + layout.frame_width, top + layout.tile_height, top)
    shown = dim_dropped(_shrink(image, layout.frame_width), kept)
    axes.imshow(shown, extent=extent, interpolation="antialiased", zorder=1)
    _outline(axes, kept, left, top, layout)


def _draw_bar(
    axes: Axes,
    tile: int,
    segment_of: Sequence[int | None],
    details: Mapping[str, object],
    layout: _Layout,
    size: float,
) -> None:
    """The coloured bar over a tile; it runs on into the next tile of the same segment."""
    from matplotlib.patches import Rectangle

    segment = segment_of[tile]
    if segment is None:
        return
    left, top = layout.place(tile)
    goes_on = (tile + 1) % layout.columns != 0 and tile + 1 < layout.count and segment_of[tile + 1] == segment
    colour = _SEGMENT_COLOURS[segment % len(_SEGMENT_COLOURS)]
    width = layout.tile_width + (layout.gap + 0.01 if goes_on else 0.0)
    axes.add_patch(Rectangle((left, top - 2 * _HEADER), width, _HEADER, facecolor=colour, linewidth=0))
    tile_edge = Rectangle((left, top), layout.tile_width, layout.tile_height, fill=False, edgecolor=colour)
    tile_edge.set_linewidth(1.6)
    tile_edge.set_zorder(4)
    axes.add_patch(tile_edge)
    dynamic = details.get("dynamic")
    kind = ("dynamic" if dynamic[tile] else "static") if isinstance(dynamic, list | tuple) else ""
    label = f"segment {segment} {kind}" if layout.tile_width > 1.15 else f"s{segment} {kind}"
    axes.text(
        left + 0.05, top - 1.5 * _HEADER, label.strip(), fontsize=size, color="white", va="center_baseline", ha="left"
    )


def _outline(axes: Axes, kept: Mask, left: float, top: float, layout: _Layout) -> None:
    """Thin lines between kept and dropped tokens."""
    from matplotlib.collections import LineCollection

    if kept.all():
        return
    rows, columns = kept.shape
    height, width = layout.tile_height / rows, layout.frame_width / columns
    thickness = min(0.7, 5 * min(height, width))  # points; thin enough for small tokens to show through
    edges = []
    for row, column in np.argwhere(kept).tolist():
        above, under = top + row * height, top + (row + 1) * height
        near, far = left + column * width, left + (column + 1) * width
        neighbours = (
            (row - 1, column, (near, above), (far, above)),
            (row + 1, column, (near, under), (far, under)),
            (row, column - 1, (near, above), (near, under)),
            (row, column + 1, (far, above), (far, under)),
        )
        edges += [
            (start, end)
            for other_row, other_column, start, end in neighbours
            if not (0 <= other_row < rows and 0 <= other_column < columns and kept[other_row, other_column])
        ]
    axes.add_collection(LineCollection(edges, colors=_OUTLINE, linewidths=thickness, zorder=3))


def _draw_attention(axes: Axes, bar_axes: Axes, clip: VideoTrace, unit: str) -> None:
    received: Any = clip.attention
    values = received.detach().float().cpu().numpy()
    values = values / max(float(values.mean()), np.finfo(np.float32).tiny)
    grids, tokens = values.shape
    # The strongest of the sinks would leave everything else one colour.
    shown = axes.imshow(values, aspect="auto", interpolation="nearest", cmap="magma", vmax=np.quantile(values, 0.995))
    bar = bar_axes.figure.colorbar(shown, cax=bar_axes, extend="max")
    bar.set_label("times the mean", fontsize=8)
    bar_axes.tick_params(labelsize=7)
    axes.set_title(
        f"Attention received by each token. Columns that are bright in every {unit} are attention sinks.",
        fontsize=9,
        loc="left",
    )
    axes.set_xlabel(f"token of the {unit}, in raster order ({clip.grid.rows} x {clip.grid.columns})", fontsize=8)
    axes.set_ylabel(f"{unit} that is left", fontsize=8)
    row_starts = np.arange(0, tokens, clip.grid.columns)
    axes.set_xticks(row_starts)
    axes.set_yticks(np.arange(0, grids, max(1, math.ceil(grids / 24))))
    axes.tick_params(labelsize=7)
    axes.tick_params(axis="y", length=0, pad=12)
    for number, (first, last) in enumerate(_segments(clip.details)):
        if last < grids - 1:
            axes.axhline(last + 0.5, color="white", linewidth=1.4)
        axes.plot(
            [-0.006, -0.006],
            [first - 0.5, last + 0.5],
            transform=axes.get_yaxis_transform(),  # x: share of the width, y: temporal grids
            color=_SEGMENT_COLOURS[number % len(_SEGMENT_COLOURS)],
            linewidth=6,
            solid_capstyle="butt",
            clip_on=False,
        )
    axes.set_xlim(-0.5, tokens - 0.5)
    axes.set_ylim(grids - 0.5, -0.5)


def _shrink(image: Pixels, inches: float) -> Pixels:
    """Few pixels more than are shown, so that 64 frames of high definition do not take minutes."""
    from PIL import Image

    width = min(image.shape[1], math.ceil(2 * inches * _DPI))
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))


def _segments(details: Mapping[str, object]) -> list[tuple[int, int]]:
    found = details.get("segments")
    return [(int(first), int(last)) for first, last in found] if isinstance(found, list | tuple) else []


def _segment_of(details: Mapping[str, object], grids: int) -> list[int | None]:
    """The segment of each temporal grid that is left, ``None`` where the method knows none."""
    numbers: list[int | None] = [None] * grids
    for number, (first, last) in enumerate(_segments(details)):
        numbers[first : last + 1] = [number] * (last + 1 - first)
    return numbers


def _ranges(numbers: Sequence[int]) -> str:
    """Numbers as ranges, ``3-5, 9``."""
    ordered = sorted(set(numbers))
    runs: list[list[int]] = []
    for number in ordered:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in runs)
