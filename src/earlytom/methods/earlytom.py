"""EarlyTom: Early Token Compression Completes Fast Video Understanding (CVPR 2026, arXiv 2605.30010).

Stage I merges whole frames inside the vision encoder, after a few of its layers, so that the remaining layers run on
fewer frames; on request only the cells that can still be kept go on from there. Stage II keeps a share of the pooled
tokens: the first and last frame of a segment ("dynamic") by a global top-k over the frame, the frames between
("static") by the best token of each local window, so that attention sinks cannot take the whole budget. Inner-LLM
merging (optional) halves the visual tokens again inside the language model.

What differs from the authors' code (``compat="official"`` restores it): no frame is dropped without being merged,
static clips shrink, the number of tokens is exact, and inner merging averages without regard to order; frames merge
earlier, and a share of them is left (``least_frames``); clips are cut into segments by which neighbours are least
alike, without a threshold; and tokens are ranked by what is new about them, in time and beside others, not by the
attention that they receive (``ranked_by``). What the supplementary leaves open is told where it matters: the last
pair of Algorithm 1 in `earlytom.ops.merging`, the ratio that Algorithm 2 prints in `earlytom.ops.budget`, what its
top-k is taken over under ``dynamic_selection``. No number that was tuned on one encoder's similarities decides
anything in the default.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from earlytom.errors import MethodError, shown
from earlytom.methods.base import Method, check_choice, check_count, check_layer, check_range, check_switches
from earlytom.methods.inner_merging import check_inner_ratio, inner_plan
from earlytom.methods.presets import SIGNALS, WITHOUT_PRESET, Preset, find_preset, scale_layers, scale_score_layer
from earlytom.types import Decision, EncoderPlan, EncoderShape, LanguagePlan, Resource, Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from earlytom.ops import Segment
    from earlytom.reduction import Reduction
    from earlytom.similarity import SimilarityTable
    from earlytom.types import CellStates, FrameGrid, FrameStates, LanguageStates, VisualTokens

__all__ = ["EarlyTom"]

# A prompt of this few visual tokens costs less to prefill than any of it is worth dropping.
_FEWEST_TOKENS = 64
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class EarlyTom(Method):
    """The method of the paper, with its ablations.

    Attributes:
        retention: visual tokens that the language model gets, over those it would have got, in (0, 1].
        tau_seg: similarity below which a new segment of the clip starts, in [-1, 1]; ``None``: the preset's, or else
            none, and the clip is cut where neighbours are least alike (`earlytom.ops.cut_at_weakest`); unless
            ``compat="default"`` one chosen from the clip's own similarities at each merge layer
            (`earlytom.ops.adaptive_threshold`).
        merge_layers: 0-based encoder layers after which temporal grids merge; ``None``: the preset's, or else the
            shares 3/26, 10/26 and 16/26 of the depth at hand (6/26, 14/26 and 20/26 unless ``compat="default"``; in an
            encoder with attention windows the nearest layers that see the whole grid).
        score_layer: 0-based encoder layer whose received attention ranks tokens; ``None``: the share 23/26 of the depth
            (with attention windows the nearest layer that sees the whole grid), with ``compat`` and the paper's presets
            the last of ``merge_layers``.
        ranked_by: what tokens are ranked by, one or several of ``"attention"`` (received in ``score_layer``),
            ``"change"`` (from the token before it at its place), ``"contrast"`` (to the means of its grid and clip);
            several are added, each over its mean (`earlytom.ops.novelty`). ``None``: the preset's, or else the last
            two, with ``compat`` and the paper's presets attention alone.
        cell_share: share of each temporal grid's cells that go on behind the last merge layer, in (0, 1], by the same
            ranking there; ``None``: the preset's, or else 1.
        ema: weight of the newest similarity in the segmentation, in (0, 1].
        max_window: a segment has at most ``max_window - 1`` temporal grids.
        least_frames: share of the clip's temporal grids that are left at least, in [0, 1]; where it holds merging back,
            the most similar ones merge, and duplicates merge all the same. At 0 the budget alone holds it back (in the
            authors' code nothing does). ``None``: the preset's, or else 0.55, and 1 where the encoder takes several
            frames as one grid (0 unless ``compat="default"``).
        duplicate_similarity: temporal grids of at least this similarity repeat each other: ``least_frames`` does not
            hold them back, the budget does; in [-1, 1], at 1 equal grids only.
        compat: ``"default"``; ``"official"``: the authors' code, edges and rounding included; ``"paper"``: Algorithm 1
            read literally (see `earlytom.ops.merging`).
        preset: ``"fast"``, ``"quality"``, ``"paper"`` or a row of Table 8 by name (`earlytom.methods.presets`); it sets
            ``tau_seg``, ``merge_layers``, ``least_frames``, ``score_layer``, ``ranked_by``, ``cell_share`` and
            ``inner_merging`` where these are ``None``.
        frame_merging: ``False`` leaves out stage I.
        weighted_merging: ``False`` merges pairs by the plain mean.
        decoupled_selection: ``False`` selects by the top-k in every temporal grid.
        dynamic_selection: ``"frame"``: every dynamic grid keeps its own best tokens, as in the authors' code;
            ``"clip"``: all dynamic grids together keep as many, the other reading of the "global" top-k of Algorithm 2
            (docs/evaluation.md has what it changes).
        inner_merging: merge visual tokens inside the language model; ``None``: on with the paper's presets, else off.
        inner_layer: 0-based layer before which inner merging acts; ``None``: 18, or the same share of a language
            model too shallow for it.
        inner_ratio: share of the visual tokens that inner merging drops, in [0, 1).

    Raises:
        MethodError: a knob is out of range, or the preset is unknown or has nothing for what is to be kept.
    """

    tau_seg: float | None = None
    merge_layers: tuple[int, ...] | None = None
    ema: float = 0.9
    max_window: int = 6
    least_frames: float | None = None
    score_layer: int | None = None
    ranked_by: tuple[str, ...] | None = None
    cell_share: float | None = None
    duplicate_similarity: float = 1.0
    compat: Literal["default", "official", "paper"] = "default"
    preset: str | None = None
    frame_merging: bool = True
    weighted_merging: bool = True
    decoupled_selection: bool = True
    dynamic_selection: Literal["frame", "clip"] = "frame"
    inner_merging: bool | None = None
    inner_layer: int | None = None
    inner_ratio: float = 0.5

    default_retention: ClassVar[float] = 0.25
    name: ClassVar[str] = "earlytom"
    summary: ClassVar[str] = "frame merging inside the vision encoder, then decoupled spatial token selection"
    paper: ClassVar[str] = "arXiv 2605.30010"
    stages: ClassVar[tuple[Stage, ...]] = ("encoder", "tokens", "llm")
    needs: ClassVar[frozenset[Resource]] = frozenset({"frame grid", "frame similarity", "received attention"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_switches(self, "frame_merging", "weighted_merging", "decoupled_selection", optional=("inner_merging",))
        check_range("ema", self.ema, 0.0, 1.0, low_open=True)
        check_inner_ratio("inner_ratio", self.inner_ratio)
        check_choice("compat", self.compat, ("default", "official", "paper"))
        check_choice("dynamic_selection", self.dynamic_selection, ("frame", "clip"))
        if self.tau_seg is not None:
            check_range("tau_seg", self.tau_seg, -1.0, 1.0)
        check_count("max_window", self.max_window, 2)
        if self.least_frames is not None:
            check_range("least_frames", self.least_frames, 0.0, 1.0)
        if self.score_layer is not None:
            check_count("score_layer", self.score_layer, 0)
        if self.ranked_by is not None:
            object.__setattr__(self, "ranked_by", _checked_signals(self.ranked_by))
        if self.cell_share is not None:
            check_range("cell_share", self.cell_share, 0.0, 1.0, low_open=True)
        check_range("duplicate_similarity", self.duplicate_similarity, -1.0, 1.0)
        if self.preset is not None:
            find_preset(self.preset, self.retention)
        if self.compat == "official" and self.cell_share not in (None, 1.0):
            raise MethodError(
                f"cell_share ({self.cell_share}) does not go with compat='official', whose counts are of whole frames"
            )
        if self.compat == "official" and self._least_frames > 0.0:
            source = "" if self.least_frames is not None else f" (here set by preset {self.preset!r})"
            raise MethodError(
                f"least_frames{source} does not go with compat='official', which knows no such bound; least_frames=0 "
                "takes it away"
            )
        if self.merge_layers is not None:
            object.__setattr__(self, "merge_layers", _checked_layers(self.merge_layers))
        if self.inner_layer is not None:
            check_count("inner_layer", self.inner_layer, 1)

    @property
    def active_stages(self) -> tuple[Stage, ...]:
        off = {"encoder": not self.frame_merging and self._cell_share == 1.0, "llm": not self._merges_in_llm}
        return tuple(stage for stage in self.stages if not off.get(stage))

    @property
    def exact_budget(self) -> bool:
        return self.compat != "official"

    @property
    def no_visual_tokens(self) -> str | None:
        return None if self.exact_budget else "compat='official' rounds frame by frame"

    def steps_aside(self, grid: FrameGrid) -> str | None:
        if self.visual_tokens is not None:
            # It holds for small clips too, so that none exceeds it.
            return super().steps_aside(grid)
        if self.compat == "official":
            return None
        if grid.frames == 1:
            return "a clip of one frame (or one temporal grid) has no redundant frames"
        if grid.tokens < _FEWEST_TOKENS:
            return f"{grid.tokens} visual tokens are too few to be worth compressing"
        return None

    def encoder_plan(self, encoder: EncoderShape) -> EncoderPlan:
        layers = self.merge_layers
        if layers is None:
            layers = scale_layers(self._preset.merge_layers, encoder)
        check_layer("merge_layers", layers[-1], encoder)
        merging = layers if self.frame_merging else ()
        # What a preset alone asks for is left out where an encoder cannot do it.
        selects_cells = self._cell_share < 1.0 and (encoder.cells or self.cell_share is not None) and self.exact_budget
        attends = "attention" in self._signals
        return EncoderPlan(
            merge_layers=merging,
            attention_layer=self._scoring_layer(layers, encoder) if attends else None,
            cell_layer=layers[-1] if selects_cells else None,
            cell_attention=selects_cells and attends,
            merge_similarity=self.frame_merging,
            frame_similarity=self.decoupled_selection,
            compared_after=None if attends else layers[-1],
            token_similarity=self.frame_merging and self._cuts_at_weakest,
            similarity_span=self._span,
        )

    def _scoring_layer(self, merge_layers: tuple[int, ...], encoder: EncoderShape) -> int:
        if self.score_layer is not None:
            check_layer("score_layer", self.score_layer, encoder)
            return self.score_layer
        layer = self._preset.score_layer
        return merge_layers[-1] if layer is None else max(merge_layers[-1], scale_score_layer(layer, encoder))

    def merge_frames(self, states: FrameStates, layer: int, floor: int) -> Decision:
        from earlytom.ops import plan_merging, similarity_rows, similarity_within, token_similarity

        known, among = states.similarity, states.token_similarity
        similarity = similarity_rows(
            similarity_within(states.features, self.max_window - 1) if known is None else known
        )
        if among is None and self._cuts_at_weakest:
            among = token_similarity(states.features)
        segments, threshold = self._segments(similarity, None if among is None else among.tolist())
        reduction = plan_merging(
            similarity,
            segments,
            variant=self.compat,
            weighted=self.weighted_merging,
            floor=floor,
            soft_floor=math.ceil(self._least_share(states.frames_per_grid) * states.origin.inputs - _ROUNDING),
            duplicate_similarity=self.duplicate_similarity,
            counts=states.origin.counts(),
        )
        details = {"segments": segments, "tau_seg": threshold}
        return Decision(reduction=reduction if reduction.outputs < reduction.inputs else None, details=details)

    def cells_kept(self, grid: FrameGrid) -> int | None:
        if self._cell_share == 1.0:
            return None
        return max(1, math.ceil(self._cell_share * grid.tokens_per_frame - _ROUNDING))

    def select_cells(self, states: CellStates, budget: int) -> Decision:
        from earlytom.ops import best_cells
        from earlytom.reduction import Reduction

        scores = self._scores(states.features, states.attention)
        kept = best_cells(scores, states.kept, states.windows)
        return Decision(reduction=Reduction.keep(kept, scores.numel()))

    def select_tokens(self, tokens: VisualTokens, budget: int) -> Decision:
        from earlytom.ops import exact_counts, published_counts, rescaled_retention, select_by_frame, similarity_rows
        from earlytom.reduction import Reduction

        frames, tokens_per_frame = tokens.features.shape[:2]
        scores = self._scores(tokens.features, tokens.attention, tokens.cells, tokens.grid.tokens_per_frame)
        segments: list[Segment] = []
        dynamic = [True] * frames
        if self.decoupled_selection and tokens.frame_similarity is not None:
            segments, _ = self._segments(similarity_rows(tokens.frame_similarity))
            dynamic = _dynamic_frames(segments)
        if self.exact_budget:
            counts = exact_counts(budget, dynamic, tokens_per_frame)
        else:
            rescaled = rescaled_retention(self.share(tokens.grid), tokens.grid.frames, frames)
            counts = published_counts(rescaled, dynamic, tokens_per_frame)
        together = self.dynamic_selection == "clip"
        kept = select_by_frame(scores, counts, [not flag for flag in dynamic], together=together)
        # How many each dynamic grid has given of what they share is not known without waiting for the device.
        known = {} if together else {"tokens_per_frame": counts}
        details = {"segments": segments, "dynamic": dynamic, **known}
        return Decision(reduction=Reduction.keep(kept, frames * tokens_per_frame), details=details)

    def llm_plan(self, depth: int) -> LanguagePlan:
        if not self._merges_in_llm:
            return LanguagePlan()
        return inner_plan("inner_layer", self.inner_layer, self.inner_ratio, depth)

    def reduce_in_llm(self, states: LanguageStates, layer: int) -> Reduction | None:
        from earlytom.ops import merge_dropped_tokens

        return merge_dropped_tokens(
            states.features, states.attention, ratio=self.inner_ratio, sequential=self.compat == "official"
        )

    @property
    def _preset(self) -> Preset:
        return WITHOUT_PRESET[self.compat] if self.preset is None else find_preset(self.preset, self.retention)

    @property
    def _span(self) -> int:
        """How far apart temporal grids are whose similarities segmentation and pairing read, at most."""
        return self.max_window - 1

    @property
    def _merges_in_llm(self) -> bool:
        return self._preset.inner_merging if self.inner_merging is None else self.inner_merging

    @property
    def _least_frames(self) -> float:
        return self._preset.least_frames if self.least_frames is None else self.least_frames

    @property
    def _threshold(self) -> float | None:
        return self._preset.tau_seg if self.tau_seg is None else self.tau_seg

    @property
    def _cuts_at_weakest(self) -> bool:
        return self._threshold is None and self.compat == "default"

    @property
    def _signals(self) -> tuple[str, ...]:
        return self._preset.ranked_by if self.ranked_by is None else self.ranked_by

    @property
    def _cell_share(self) -> float:
        return self._preset.cell_share if self.cell_share is None else self.cell_share

    def _least_share(self, frames_per_grid: int) -> float:
        """The share of temporal grids that are left at least."""
        if self.least_frames is None and frames_per_grid > 1:
            return self._preset.least_pairs
        return self._least_frames

    def _scores(
        self, features: Tensor, attention: Tensor | None, cells: Tensor | None = None, places: int | None = None
    ) -> Tensor:
        """[N, K] float32, what the tokens or cells of N grids are ranked by."""
        import torch

        from earlytom.ops import over_mean, relative_change, relative_contrast

        if "attention" in self._signals and attention is None:
            raise MethodError("EarlyTom ranks tokens by received attention, but the encoder gave none")
        if attention is not None and self._signals == ("attention",):
            return attention
        parts: dict[str, Callable[[], Tensor]] = {
            "change": lambda: relative_change(features, cells, places),
            "contrast": lambda: relative_contrast(features),
        }
        if attention is not None:
            parts["attention"] = lambda: over_mean(attention)
        return torch.stack([parts[signal]() for signal in self._signals]).sum(dim=0)

    def _segments(
        self, similarity: SimilarityTable, among: list[float] | None = None
    ) -> tuple[list[Segment], float | None]:
        """Segments of the temporal grids, and the threshold that made them, where one did."""
        from earlytom.ops import adaptive_threshold, cut_at_weakest, segment_frames

        threshold = self._threshold
        if self._cuts_at_weakest:
            return cut_at_weakest(similarity, longest=self.max_window - 1, among=among), None
        if threshold is None:
            threshold = adaptive_threshold(similarity, max_window=self.max_window)
        segments = segment_frames(similarity, threshold=threshold, ema=self.ema, max_window=self.max_window)
        return segments, threshold


def _checked_layers(layers: object) -> tuple[int, ...]:
    """``layers`` as a tuple of ascending layer indices, or `MethodError`."""
    values = tuple(layers) if isinstance(layers, tuple | list) else ()
    integers = all(isinstance(layer, int) and not isinstance(layer, bool) and layer >= 0 for layer in values)
    if not values or not integers or list(values) != sorted(set(values)):
        raise MethodError(
            f"merge_layers must be ascending layer indices (0-based), such as (6, 14, 20), got {shown(layers)}"
        )
    return values


def _checked_signals(signals: object) -> tuple[str, ...]:
    """``signals`` as a tuple, or `MethodError`."""
    given = tuple(signals) if isinstance(signals, tuple | list) else ()
    if not given or any(signal not in SIGNALS or given.count(signal) > 1 for signal in given):
        raise MethodError(f"ranked_by must be one or several of {'/'.join(SIGNALS)}, each once, got {shown(signals)}")
    return given


def _dynamic_frames(segments: list[Segment]) -> list[bool]:
    """First and last grid of each segment are dynamic, the grids between are static (stage II, step 2)."""
    return [frame in (first, last) for first, last in segments for frame in range(first, last + 1)]
