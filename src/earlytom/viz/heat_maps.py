"""The attention that tokens receive in several clips, on one sheet, as in the supplementary's Figure 6."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from earlytom.errors import EarlyTomError
from earlytom.viz.inspect import check_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from earlytom.trace import VideoTrace

__all__ = ["HeatMap", "Stripes", "draw_heat_maps", "find_stripes"]

_WIDTH, _PANEL, _HEAD, _FOOT = 7.0, 1.7, 0.3, 0.35  # inches
_COLUMNS = 3
_BRIGHTEST = 0.995  # quantile; the strongest of the sinks would leave everything else one colour
_STRONG, _STEADY = 0.05, 0.9
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, kw_only=True, eq=False)
class HeatMap:
    """The attention received in one clip.

    Attributes:
        name: of the clip.
        attention: [N, P], each temporal grid's tokens in raster order; any scale.
        columns: of tokens in a grid.
    """

    name: str
    attention: npt.NDArray[np.float32]
    columns: int

    @classmethod
    def of(cls, name: str, clip: VideoTrace) -> HeatMap:
        """From the trace of a clip. Raises `EarlyTomError` where its method did not look at attention."""
        if clip.attention is None:
            raise EarlyTomError(
                f"{name}: the method did not look at the attention, so there is nothing to draw; one that does is "
                "earlytom:frame_merging=false,ranked_by=attention"
            )
        return cls(name=name, attention=clip.attention.detach().float().cpu().numpy(), columns=clip.grid.columns)

    @property
    def scaled(self) -> npt.NDArray[np.float32]:
        """The attention in multiples of its mean."""
        mean: float = max(float(self.attention.mean()), _TINY)
        scaled: npt.NDArray[np.float32] = self.attention / mean
        return scaled


@dataclass(frozen=True, kw_only=True, eq=False)
class Stripes:
    """How far places of high attention stay where they are.

    Attributes:
        strong: tokens of a grid that are called its strongest, one in 20.
        steady: places that are among them in nine of ten grids: the vertical stripes.
        share: of all attention that these get.
    """

    strong: int
    steady: int
    share: float


def find_stripes(heat_map: HeatMap) -> Stripes:
    """Count the places that are among the strongest 5% of nearly every temporal grid."""
    attention = heat_map.attention
    strong = max(1, round(_STRONG * attention.shape[1]))
    ranked = np.argsort(-attention, axis=1, kind="stable")[:, :strong]
    often = np.bincount(ranked.flatten(), minlength=attention.shape[1]) / len(attention)
    steady = often >= _STEADY
    share = float(attention[:, steady].sum() / max(float(attention.sum()), _TINY))
    return Stripes(strong=strong, steady=int(steady.sum()), share=share)


def draw_heat_maps(maps: Sequence[HeatMap], *, unit: str = "frame") -> Figure:
    """Draw a panel for each clip, all on one scale: attention over the clip's mean.

    Args:
        maps: at least one.
        unit: what a row stands for.

    Raises:
        EarlyTomError: matplotlib is missing, or there is no map.
    """
    check_matplotlib()
    from matplotlib.figure import Figure

    if not maps:
        raise EarlyTomError("a sheet of heat maps needs at least one clip, got none")
    columns = min(_COLUMNS, len(maps))
    rows = math.ceil(len(maps) / columns)
    figure = Figure(figsize=(_WIDTH, rows * (_PANEL + _HEAD) + _FOOT), facecolor="white", layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    limit = max(float(np.quantile(one.scaled, _BRIGHTEST)) for one in maps)
    for number, axes in enumerate(panels.flat):
        if number >= len(maps):
            axes.set_axis_off()
            continue
        shown = axes.imshow(
            maps[number].scaled, aspect="auto", interpolation="nearest", cmap="magma", vmin=0, vmax=limit
        )
        _label(axes, maps[number])
        if number % columns == 0:
            axes.set_ylabel(unit, fontsize=7)
        if number + columns >= len(maps):
            axes.set_xlabel(f"token of the {unit}, in raster order", fontsize=7)
    bar = figure.colorbar(shown, ax=panels, extend="max", aspect=30, pad=0.015)
    bar.set_label("attention received, times the mean", fontsize=7)
    bar.outline.set_linewidth(0.5)
    bar.ax.tick_params(labelsize=6.5)
    return figure


def _label(axes: Axes, heat_map: HeatMap) -> None:
    """The clip's name, and ticks where a row of tokens or a grid begins, few enough to be read."""
    grids, tokens = heat_map.attention.shape
    axes.set_title(heat_map.name, fontsize=7.5, loc="left", pad=3)
    rows = math.ceil(tokens / heat_map.columns / 4)
    axes.set_xticks(np.arange(0, tokens, rows * heat_map.columns))
    axes.set_yticks(np.arange(0, grids, max(1, math.ceil(grids / 4))))
    axes.tick_params(labelsize=6.5, width=0.5, length=2.5)
    for spine in axes.spines.values():
        spine.set_linewidth(0.5)
