"""PyramidDrop: Accelerating Your Large Vision-Language Models via Pyramid Visual Redundancy Reduction (CVPR 2025,
arXiv 2410.17247).

All visual tokens enter the language model and are dropped in stages. Before each boundary layer they are ranked by the
attention that the last prompt token would pay them in that layer (its own norm and projections, mean over the heads);
``int(n * ratio)`` of the n tokens that entered stay, in their order. What is left is renumbered from 0, text included,
and newer tokens go on from there in every layer at that layer's own length.

Published are boundaries at 8, 16 and 24 of 32 layers with ratios 1/2, 1/4 and 1/8; they are carried over to other
depths as quarters. The published FLOPs of video models (10.5 of 40.8 T) need a steeper schedule that no source states;
``schedule="tables"`` with retention 0.272 gives them (5, 13 and 21 of 28 layers with 1/4, 1/16 and 1/64).

``retention`` is what the language model works on, as everywhere; here that is the mean over its layers of the visual
tokens that they get. The ratios are lam, lam^2, lam^3 with the lam that has this mean: 1/2 for 0.469, the default. The
layers before the first boundary get every token, which is the least that can be asked for.

What differs from the authors' code: any padding, any number of clips, no length limit, every attention implementation.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from earlytom.errors import MethodError, shown
from earlytom.methods.base import Method, check_choice, check_range
from earlytom.types import LanguagePlan, Stage

if TYPE_CHECKING:
    from earlytom.reduction import Reduction
    from earlytom.types import FrameGrid, LanguageStates

__all__ = ["PyramidDrop"]

_SCHEDULES = {"paper": (8, 16, 24, 32), "tables": (5, 13, 21, 28)}
"""Boundaries of each schedule, and the depth they were made for."""
_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class PyramidDrop(Method):
    """Drop visual tokens at several depths of the language model, more at each.

    Attributes:
        retention: visual tokens that a layer of the language model gets, over those it would have got, mean over the
            layers, in (0, 1]. Without effect where ``ratios`` are given.
        schedule: where tokens are dropped: ``"paper"``: at the quarters of the depth; ``"tables"``: earlier, for the
            cost that is published for video models.
        layers: 0-based layers before which tokens are dropped, ascending; ``None``: those of the schedule.
        ratios: the share of the visual tokens that each boundary leaves, of those that entered, falling, in (0, 1];
            ``None``: what ``retention`` takes.

    Raises:
        MethodError: a knob is out of range, or ``ratios`` and ``retention`` are both given.
    """

    retention: float = 0.46875
    schedule: Literal["paper", "tables"] = "paper"
    layers: tuple[int, ...] | None = None
    ratios: tuple[float, ...] | None = None

    name: ClassVar[str] = "pyramiddrop"
    summary: ClassVar[str] = "pruning by the last query's attention in stages, deeper in the language model more"
    paper: ClassVar[str] = "arXiv 2410.17247"
    stages: ClassVar[tuple[Stage, ...]] = ("llm",)
    stand_ins: ClassVar[tuple[str, ...]] = ("schedule=tables",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("schedule", self.schedule, tuple(_SCHEDULES))
        if self.layers is not None:
            object.__setattr__(self, "layers", _checked_layers(self.layers))
        if self.ratios is None:
            return
        object.__setattr__(self, "ratios", _checked_ratios(self.ratios))
        if self.layers is not None and len(self.ratios) != len(self.layers):
            raise MethodError(f"ratios {self.ratios} must be as many as layers {self.layers}")
        if self.retention != self.default_retention:
            raise MethodError(
                f"ratios ({shown(self.ratios)}) and retention ({self.retention!r}) both say how much "
                "PyramidDrop keeps; give one"
            )

    @property
    def retention_counts(self) -> bool:
        return self.ratios is None

    def budget(self, grid: FrameGrid) -> int:
        return grid.tokens

    def llm_plan(self, depth: int) -> LanguagePlan:
        if self.ratios is None and self.retention == 1.0:
            return LanguagePlan()
        layers = self._boundaries(depth)
        self._shares(layers, depth)
        return LanguagePlan(reduce_before=layers, attention_of="layer behind", renumber=True)

    def reduce_in_llm(self, states: LanguageStates, layer: int) -> Reduction | None:
        from earlytom.ops import highest_scores
        from earlytom.reduction import Reduction

        layers = self._boundaries(states.depth)
        share = self._shares(layers, states.depth)[layers.index(layer)]
        tokens = states.attention.shape[0]
        kept = min(tokens, max(1, int(states.entered * share)))
        return Reduction.keep(highest_scores(states.attention, kept), tokens)

    def _boundaries(self, depth: int) -> tuple[int, ...]:
        """The boundary layers in a language model of ``depth`` layers."""
        if self.layers is None:
            *published, published_depth = _SCHEDULES[self.schedule]
            scaled = {round(layer * depth / published_depth) for layer in published}
            layers = tuple(sorted(layer for layer in scaled if 1 <= layer < depth))
        else:
            layers = self.layers
        if not layers or layers[-1] >= depth:
            raise MethodError(
                f"layers {layers} do not fit a language model of {depth} layers: allowed are 1 to {depth - 1}"
            )
        return layers

    def _shares(self, layers: tuple[int, ...], depth: int) -> tuple[float, ...]:
        """The share of the visual tokens that each boundary leaves."""
        if self.ratios is None:
            factor = _solved_factor(self.retention, layers, depth)
            # As it would be written out: 0.49, not the 0.48999999999999994 that is 0.7 squared.
            return tuple(round(factor**stage, _DIGITS) for stage in range(1, len(layers) + 1))
        if len(self.ratios) != len(layers):
            raise MethodError(f"ratios {self.ratios} must be as many as the boundaries, which are at layers {layers}")
        return self.ratios


def _solved_factor(retention: float, layers: Sequence[int], depth: int) -> float:
    """The lam for which stages of 1, lam, lam^2, ... of the tokens have the mean ``retention`` over the layers."""
    lengths = [end - start for start, end in itertools.pairwise((0, *layers, depth))]
    if retention * depth <= lengths[0]:
        raise MethodError(
            f"retention {retention!r} cannot be reached by dropping tokens before layers "
            f"{'/'.join(map(str, layers))} of {depth}: the layers before the first get every token, so retention must "
            f"be above {lengths[0] / depth:.3f}; ask for more, or for earlier layers"
        )
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        mean = sum(length * middle**stage for stage, length in enumerate(lengths)) / depth
        low, high = (middle, high) if mean < retention else (low, middle)
    # Rounded, so that 0.5 is not 0.4999999999999999 and int(n * 0.5) not one less than half.
    return round(high, _DIGITS)


def _checked_layers(layers: object) -> tuple[int, ...]:
    """``layers`` as a tuple of ascending boundaries, or `MethodError`."""
    values = tuple(layers) if isinstance(layers, tuple | list) else ()
    integers = all(isinstance(layer, int) and not isinstance(layer, bool) and layer >= 1 for layer in values)
    if not values or not integers or list(values) != sorted(set(values)):
        raise MethodError(f"layers must be ascending layer indices from 1, such as (7, 14, 21), got {shown(layers)}")
    return values


def _checked_ratios(ratios: object) -> tuple[float, ...]:
    """``ratios`` as a tuple of falling shares, or `MethodError`."""
    values = tuple(ratios) if isinstance(ratios, tuple | list) else ()
    for value in values:
        check_range("each of ratios", value, 0.0, 1.0, low_open=True)
    if not values or list(values) != sorted(values, reverse=True):
        raise MethodError(
            f"ratios must be falling shares of the visual tokens, such as (0.5, 0.25), got {shown(ratios)}"
        )
    return values
