"""What a method wants from a model, and what it may know of one beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from earlytom.errors import MethodError
from earlytom.types.checks import check_layers

__all__ = ["EncoderPlan", "EncoderShape", "FrameGrid", "LanguagePlan"]


@dataclass(frozen=True, kw_only=True)
class FrameGrid:
    """The visual tokens of one uncompressed clip: ``frames`` temporal grids of ``rows`` x ``columns`` pooled tokens.

    A temporal grid is what the vision encoder takes as one: a sampled frame, in the Qwen families a pair of them. Where
    names here and in methods speak of frames they mean temporal grids.

    Raises:
        MethodError: a size is below 1.
    """

    frames: int
    rows: int
    columns: int

    def __post_init__(self) -> None:
        for name in ("frames", "rows", "columns"):
            if getattr(self, name) < 1:
                raise MethodError(f"{name} of a clip must be at least 1, got {getattr(self, name)}")

    @property
    def temporal_grids(self) -> int:
        """How many temporal grids the clip has: ``frames``, by the name of what is counted."""
        return self.frames

    @property
    def tokens_per_frame(self) -> int:
        return self.rows * self.columns

    @property
    def tokens(self) -> int:
        return self.frames * self.tokens_per_frame


@dataclass(frozen=True, kw_only=True)
class EncoderShape:
    """What a method may know about a vision encoder.

    Attributes:
        depth: layers that run.
        global_layers: the layers whose attention spans the whole temporal grid, ascending; ``None``: all do. In the
            others, attention stays inside small windows, so that the attention received there cannot rank a grid's
            tokens.
        token_merging: whether tokens can merge inside the layers (``EncoderPlan.token_layers``).
        pooling_head: whether there can be an attention-pooling head (``EncoderPlan.pooling_head``).
        frames_per_grid: sampled frames that the encoder takes as one temporal grid.
        cells: whether some cells of a temporal grid can go on alone (``EncoderPlan.cell_layer``).
        feature_sets: how many features of a token stand behind one another on the last dimension of what the projector
            gives: the final ones, which methods see, and those of earlier layers, which are reduced in the same way.
    """

    depth: int
    global_layers: tuple[int, ...] | None = None
    token_merging: bool = True
    pooling_head: bool = True
    frames_per_grid: int = 1
    cells: bool = False
    feature_sets: int = 1

    @property
    def last_global_layer(self) -> int:
        """The last layer whose attention spans the whole temporal grid."""
        return self.depth - 1 if self.global_layers is None else self.global_layers[-1]

    def check(self, plan: EncoderPlan) -> EncoderPlan:
        """Return ``plan``. Raises `MethodError` when it asks for what this encoder cannot give, saying why."""
        for name in ("merge_layers", "token_layers"):
            check_layers(name, getattr(plan, name), stop=self.depth)
        for name in ("attention_layer", "cell_layer", "compared_after"):
            if getattr(plan, name) is not None:
                check_layers(name, (getattr(plan, name),), stop=self.depth)
        self._check_ranking(plan.attention_layer, "tokens")
        self._check_ranking(plan.cell_layer if plan.cell_attention else None, "cells")
        if plan.token_layers and not self.token_merging:
            raise MethodError(
                "tokens cannot merge inside the layers of this vision encoder, whose projector (and attention windows, "
                "where it has them) need the grid of patches"
            )
        if plan.pooling_head and not self.pooling_head:
            raise MethodError("this vision encoder has no attention-pooling head, which the method needs")
        if plan.cell_layer is not None and not self.cells:
            raise MethodError(
                "temporal grids of this vision encoder go through its layers whole: its pooling is no weighted mean of "
                "a few patches, or nobody says of which, so that cells of a grid cannot go on alone"
            )
        return plan

    def _check_ranking(self, layer: int | None, ranked: str) -> None:
        """Raise `MethodError` when attention received in a layer is wanted that does not see the whole grid."""
        layers = self.global_layers
        if layer is not None and layers is not None and layer not in layers:
            raise MethodError(
                f"attention received in layer {layer} of this vision encoder cannot rank the {ranked} of a frame, "
                f"since its attention stays inside windows; layers that see the whole frame: "
                f"{', '.join(map(str, layers))}"
            )


@dataclass(frozen=True, kw_only=True)
class EncoderPlan:
    """What a method wants from the vision encoder.

    Attributes:
        merge_layers: 0-based encoder layers after which ``merge_frames`` is called, ascending.
        attention_layer: the layer whose received attention is wanted, or ``None``.
        merge_similarity: whether ``FrameStates.similarity`` is wanted at the merge layers, at one wait for all clips.
        frame_similarity: whether ``VisualTokens.frame_similarity`` is wanted (taken after the last merge layer).
        compared_after: the 0-based layer after which ``frame_similarity`` is taken, or the last merge layer where
            that is later; ``None``: the last one of which anything is asked.
        token_similarity: whether ``FrameStates.token_similarity`` is wanted beside ``merge_similarity``.
        similarity_span: how far apart grids are whose similarities are read: both of these are then a
            `FrameSimilarity`, at a cost linear in N. ``None``: any; both are [N, N] tensors.
        keys: whether ``VisualTokens.keys`` is wanted, those of ``attention_layer``.
        token_layers: layers inside which, between attention and MLP, ``merge_tokens`` is called.
        proportional_attention: whether a merged token draws as much attention as the tokens that went into it.
        unmerge: whether merged tokens take all their places again before the projector, so that the pooling finds its
            grid; otherwise they go into the language model unpooled, and there is no ``select_tokens``.
        fingerprint: whether ``VisualTokens.fingerprint`` is wanted.
        cell_layer: the 0-based encoder layer after which ``select_cells`` is called, or ``None``: only the cells that
            it keeps go on through the remaining layers. No frames merge behind it; in the same layer they merge first.
            What ``attention_layer`` behind it reports is of the cells that are left.
        cell_attention: whether ``CellStates.attention`` is wanted, the attention received in ``cell_layer``.
        cell_similarity: whether ``CellStates.similarity`` is wanted, at one wait for all clips;
            ``VisualTokens.frame_similarity``, where it is wanted too, is then the same.
        pooling_head: whether ``VisualTokens.attention`` is to be that of the tower's attention-pooling head instead,
            with ``VisualTokens.descriptions`` its output; models without such a head are refused.

    Raises:
        MethodError: merged tokens are asked for where whole grids are to be compared or cut to some of their cells,
            frames are to merge behind ``cell_layer``, keys or what is to be known of cells is wanted without their
            layer, layers do not ascend, or a span is below 1.
    """

    merge_layers: tuple[int, ...] = ()
    attention_layer: int | None = None
    merge_similarity: bool = False
    frame_similarity: bool = False
    similarity_span: int | None = None
    compared_after: int | None = None
    token_similarity: bool = False
    keys: bool = False
    token_layers: tuple[int, ...] = ()
    proportional_attention: bool = False
    unmerge: bool = True
    pooling_head: bool = False
    fingerprint: bool = False
    cell_layer: int | None = None
    cell_attention: bool = False
    cell_similarity: bool = False

    @property
    def similarity_layer(self) -> int | None:
        """The layer after which grids are compared, the last at which they are whole and anything is asked for."""
        if self.cell_similarity:
            return self.cell_layer
        if not self.frame_similarity:
            return None
        asked = self.attention_layer if self.compared_after is None else self.compared_after
        last = max((*self.merge_layers, asked or 0))
        return last if self.cell_layer is None else min(last, self.cell_layer)

    def __post_init__(self) -> None:
        check_layers("merge_layers", self.merge_layers)
        check_layers("token_layers", self.token_layers)
        span = self.similarity_span
        if span is not None and not (isinstance(span, int) and span >= 1):
            raise MethodError(f"similarity_span must be a whole number from 1 on or None, got {span!r}")
        if self.keys and self.attention_layer is None:
            raise MethodError("keys are those of attention_layer, which is None")
        if self.token_layers and (self.merge_layers or self.frame_similarity):
            raise MethodError(
                "frames cannot be compared or merged where each has merged tokens of its own: token merging and frame "
                "merging inside one vision encoder exclude each other"
            )
        self._check_cells()

    def _check_cells(self) -> None:
        layer = self.cell_layer
        if layer is None:
            if self.cell_attention or self.cell_similarity:
                raise MethodError("cell_attention and cell_similarity are those of cell_layer, which is None")
            return
        check_layers("cell_layer", (layer,))
        if self.token_layers:
            raise MethodError("merged tokens lie in no cells: token_layers and cell_layer exclude each other")
        if self.merge_layers and self.merge_layers[-1] > layer:
            raise MethodError(
                f"frames cannot merge where each has cells of its own: cell_layer must be at least the last of "
                f"merge_layers ({self.merge_layers[-1]}), got {layer}"
            )


@dataclass(frozen=True, kw_only=True)
class LanguagePlan:
    """What a method wants from the language model.

    Attributes:
        reduce_before: 0-based layers before which ``reduce_in_llm`` is called, ascending.
        attention_of: whose attention it gets: that of the layer before the boundary, or that which the layer behind
            it would give to everything that arrives there.
        renumber: whether the tokens that are left close ranks and get consecutive positions; otherwise all keep theirs.

    Raises:
        MethodError: the layers do not ascend, or the first one is among them, which has none before it.
    """

    reduce_before: tuple[int, ...] = ()
    attention_of: Literal["layer before", "layer behind"] = "layer before"
    renumber: bool = False

    def __post_init__(self) -> None:
        check_layers("reduce_before", self.reduce_before, lowest=1)
