"""The values that travel between methods, sessions and model families. Nothing here knows a model or a method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from earlytom.errors import MethodError

if TYPE_CHECKING:
    from torch import Tensor

    from earlytom.reduction import Reduction
    from earlytom.similarity import FrameSimilarity

__all__ = [
    "Decision",
    "EncoderPlan",
    "EncoderShape",
    "FrameGrid",
    "FrameStates",
    "KeptTokens",
    "LanguagePlan",
    "LanguageStates",
    "PrefillInputs",
    "Resource",
    "Stage",
    "TokenStates",
    "VisualTokens",
]

Stage = Literal["encoder", "tokens", "llm"]
"""Where a method acts: inside the vision encoder, on the tokens before the language model, inside that."""

Resource = Literal["frame grid", "frame similarity", "received attention", "keys"]
"""What a method that selects tokens may depend on, and another method's encoder stage may do away with."""


def _check_shape(name: str, tensor: Tensor | FrameSimilarity | None, *wanted: int | None) -> None:
    """Raise `MethodError` unless a tensor, where there is one, has this shape; ``None``: any size."""
    fits = tensor is None or (
        len(tensor.shape) == len(wanted)
        and all(size is None or size == found for size, found in zip(wanted, tensor.shape, strict=True))
    )
    if not fits:
        sizes = ", ".join("any" if size is None else str(size) for size in wanted)
        raise MethodError(f"{name} must be [{sizes}], got {tuple(tensor.shape) if tensor is not None else None}")


def _check_layers(name: str, layers: tuple[int, ...], lowest: int = 0, stop: int | None = None) -> None:
    """Raise `MethodError` unless layers are ascending numbers from ``lowest`` on, below ``stop``."""
    whole = isinstance(layers, tuple) and all(isinstance(layer, int) and layer >= lowest for layer in layers)
    if not whole or list(layers) != sorted(set(layers)) or (stop is not None and layers and layers[-1] >= stop):
        end = "" if stop is None else f" to {stop - 1}"
        raise MethodError(f"{name} must be ascending layers from {lowest}{end}, got {layers!r}")


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
        feature_sets: how many features of a token stand behind one another on the last dimension of what the projector
            gives: the final ones, which methods see, and those of earlier layers, which are reduced in the same way.
    """

    depth: int
    global_layers: tuple[int, ...] | None = None
    token_merging: bool = True
    pooling_head: bool = True
    feature_sets: int = 1

    @property
    def last_global_layer(self) -> int:
        """The last layer whose attention spans the whole temporal grid."""
        return self.depth - 1 if self.global_layers is None else self.global_layers[-1]

    def check(self, plan: EncoderPlan) -> EncoderPlan:
        """Return ``plan``. Raises `MethodError` when it asks for what this encoder cannot give, saying why."""
        layers = self.global_layers
        for name in ("merge_layers", "token_layers"):
            _check_layers(name, getattr(plan, name), stop=self.depth)
        if plan.attention_layer is not None:
            _check_layers("attention_layer", (plan.attention_layer,), stop=self.depth)
        if plan.attention_layer is not None and layers is not None and plan.attention_layer not in layers:
            raise MethodError(
                f"attention received in layer {plan.attention_layer} of this vision encoder cannot rank the tokens of "
                f"a frame, since its attention stays inside windows; layers that see the whole frame: "
                f"{', '.join(map(str, layers))}"
            )
        if plan.token_layers and not self.token_merging:
            raise MethodError(
                "tokens cannot merge inside the layers of this vision encoder, whose projector (and attention windows, "
                "where it has them) need the grid of patches"
            )
        if plan.pooling_head and not self.pooling_head:
            raise MethodError("this vision encoder has no attention-pooling head, which the method needs")
        return plan


@dataclass(frozen=True, kw_only=True)
class EncoderPlan:
    """What a method wants from the vision encoder.

    Attributes:
        merge_layers: 0-based encoder layers after which ``merge_frames`` is called, ascending.
        attention_layer: the layer whose received attention is wanted, or ``None``.
        merge_similarity: whether ``FrameStates.similarity`` is wanted at the merge layers, at one wait for all clips.
        frame_similarity: whether ``VisualTokens.frame_similarity`` is wanted (taken after the last merge layer).
        similarity_span: how far apart grids are whose similarities are read: both of these are then a
            `FrameSimilarity`, at a cost linear in N. ``None``: any; both are [N, N] tensors.
        keys: whether ``VisualTokens.keys`` is wanted, those of ``attention_layer``.
        token_layers: layers inside which, between attention and MLP, ``merge_tokens`` is called.
        proportional_attention: whether a merged token draws as much attention as the tokens that went into it.
        unmerge: whether merged tokens take all their places again before the projector, so that the pooling finds its
            grid; otherwise they go into the language model unpooled, and there is no ``select_tokens``.
        fingerprint: whether ``VisualTokens.fingerprint`` is wanted.
        pooling_head: whether ``VisualTokens.attention`` is to be that of the tower's attention-pooling head instead,
            with ``VisualTokens.descriptions`` its output; models without such a head are refused.

    Raises:
        MethodError: merged tokens are asked for where whole grids are to be compared, keys without their layer, layers
            that do not ascend, or a span below 1.
    """

    merge_layers: tuple[int, ...] = ()
    attention_layer: int | None = None
    merge_similarity: bool = False
    frame_similarity: bool = False
    similarity_span: int | None = None
    keys: bool = False
    token_layers: tuple[int, ...] = ()
    proportional_attention: bool = False
    unmerge: bool = True
    pooling_head: bool = False
    fingerprint: bool = False

    @property
    def similarity_layer(self) -> int | None:
        """The layer after which ``frame_similarity`` is taken, the last at which anything is asked for."""
        if not self.frame_similarity:
            return None
        return max((*self.merge_layers, 0 if self.attention_layer is None else self.attention_layer))

    def __post_init__(self) -> None:
        _check_layers("merge_layers", self.merge_layers)
        _check_layers("token_layers", self.token_layers)
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
        _check_layers("reduce_before", self.reduce_before, lowest=1)


# What carries tensors is compared by identity (eq=False): a generated __eq__ would ask tensors for one truth value.
@dataclass(frozen=True, kw_only=True, eq=False)
class FrameStates:
    """The temporal grids of one clip inside the vision encoder.

    Attributes:
        features: [N, L, D] hidden states of the N grids that are left, model dtype.
        attention: [N, L] attention received by each token, float32, or ``None``.
        origin: how the N grids came from the B input grids.
        similarity: of the N grids (`earlytom.ops.frame_similarity`), [N, N] float32 on the host, or a `FrameSimilarity`
            where the plan names a span; ``None`` where ``EncoderPlan.merge_similarity`` does not ask for it.

    Raises:
        MethodError: the shapes do not belong together.
    """

    features: Tensor
    attention: Tensor | None
    origin: Reduction
    similarity: Tensor | FrameSimilarity | None = None

    def __post_init__(self) -> None:
        _check_shape("features", self.features, self.origin.outputs, None, None)
        _check_shape("attention", self.attention, *self.features.shape[:2])
        _check_shape("similarity", self.similarity, *[self.origin.outputs] * 2)


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenStates:
    """The tokens of a call's F temporal grids between attention and MLP of an encoder layer; L shrinks as they merge.

    Attributes:
        features: [F, L, D] hidden states, model dtype.
        keys: [F, L, E] keys of this layer's attention, mean over its heads, float32.
        sizes: [F, L] float32, the number of patches that each token stands for.
        grid: shape of a clip of the call; all have the same tokens per temporal grid.
        patches: tokens of a temporal grid before any merged.
        depth: encoder layers that run.

    Raises:
        MethodError: the shapes do not belong together.
    """

    features: Tensor
    keys: Tensor
    sizes: Tensor
    grid: FrameGrid
    patches: int
    depth: int

    def __post_init__(self) -> None:
        _check_shape("features", self.features, None, None, None)
        _check_shape("keys", self.keys, *self.features.shape[:2], None)
        _check_shape("sizes", self.sizes, *self.features.shape[:2])


@dataclass(frozen=True, kw_only=True, eq=False)
class VisualTokens:
    """The visual tokens of one clip after projection and pooling, as the language model would get them.

    Attributes:
        features: [N, P, D] features, model dtype.
        attention: [N, P] attention received, resized in the same way as the features, float32, or ``None``.
        grid: shape of the *uncompressed* clip (``grid.temporal_grids`` is B, not N).
        origin: how the N grids came from the B input grids.
        frame_similarity: of the N grids, like ``FrameStates.similarity``, or ``None``.
        keys: [N, P, E] keys of the attention layer, mean over its heads, resized alike, float32, or ``None``.
        descriptions: [N, E] output of the attention-pooling head for each grid, model dtype, or ``None``.
        fingerprint: a number that tells this clip from others (`earlytom.ops.fingerprint`), or ``None``.

    Raises:
        MethodError: the shapes do not belong together.
    """

    features: Tensor
    attention: Tensor | None
    grid: FrameGrid
    origin: Reduction
    frame_similarity: Tensor | FrameSimilarity | None = None
    keys: Tensor | None = None
    descriptions: Tensor | None = None
    fingerprint: int | None = None

    def __post_init__(self) -> None:
        frames = self.origin.outputs
        _check_shape("features", self.features, frames, self.grid.tokens_per_frame, None)
        _check_shape("attention", self.attention, *self.features.shape[:2])
        _check_shape("keys", self.keys, *self.features.shape[:2], None)
        _check_shape("frame_similarity", self.frame_similarity, frames, frames)
        _check_shape("descriptions", self.descriptions, frames, None)


@dataclass(frozen=True, kw_only=True, eq=False)
class KeptTokens:
    """The tokens of one clip that go into the language model.

    Attributes:
        features: [K, C] features, model dtype; ``EncoderShape.feature_sets`` times as wide where there are several.
        places: [K] int64, the token of the uncompressed clip (in temporal and raster order) whose place each takes; of
            merged grids the earliest. On the device of ``features`` or on the host.

    Raises:
        MethodError: the shapes do not belong together.
    """

    features: Tensor
    places: Tensor

    def __post_init__(self) -> None:
        _check_shape("features", self.features, None, None)
        _check_shape("places", self.places, self.features.shape[0])


@dataclass(frozen=True, kw_only=True, eq=False)
class LanguageStates:
    """The visual tokens of one sample at a boundary inside the language model.

    Attributes:
        features: [V, D] hidden states of the V tokens that are left, in order, model dtype.
        attention: [V] attention that the last prompt token pays them (see `LanguagePlan.attention_of`), mean over the
            heads, float32.
        entered: visual tokens of the sample that entered the language model.
        depth: layers of the language model.

    Raises:
        MethodError: the shapes do not belong together.
    """

    features: Tensor
    attention: Tensor
    entered: int
    depth: int

    def __post_init__(self) -> None:
        _check_shape("features", self.features, None, None)
        _check_shape("attention", self.attention, self.features.shape[0])


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a method decided at one place: a reduction (``None``: leave everything) and what the trace should show."""

    reduction: Reduction | None = None
    details: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.details, Mapping):
            raise MethodError(f"details must be a mapping of names to what the trace should show, got {self.details!r}")


@dataclass(frozen=True, kw_only=True, eq=False)
class PrefillInputs:
    """What stock ``generate()`` receives instead of the processor's output.

    ``arguments`` holds the *original* ``input_ids`` (so that returned ids, lengths, penalties and streamers see the
    prompt that the user wrote) beside the shortened ``inputs_embeds`` and ``attention_mask``, and everything else the
    caller passed, without the pixels.

    Attributes:
        arguments: keyword arguments for ``model.generate``.
        visual_positions: for each sample the positions of its video tokens in the shortened sequence, ascending.
        dropped: for each sample the number of prompt tokens that were removed.
        next_position: [B, 1] int64, the position of the first new token, where it is not the number of tokens before
            it; ``None`` otherwise.
        language_arguments: what the language model gets besides while it prefills, by name: each a function of the
            number of beams, which stand behind one another in the place of every sample.
        prompt_positions: [B, S'] int64 on the host, the position in the original prompt of what stands at each place of
            the shortened one, -1 where it is only padded; ``None`` where a family does not say, whose prompts then
            cannot go on behind a cache.
    """

    arguments: dict[str, Any]
    visual_positions: tuple[tuple[int, ...], ...]
    dropped: tuple[int, ...]
    next_position: Tensor | None = None
    language_arguments: Mapping[str, Callable[[int], Any]] = field(default_factory=dict)
    prompt_positions: Tensor | None = None
