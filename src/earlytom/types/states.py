"""What a method gets to decide on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from earlytom.types.checks import check_shape

if TYPE_CHECKING:
    from torch import Tensor

    from earlytom.reduction import Reduction
    from earlytom.similarity import FrameSimilarity
    from earlytom.types.plans import FrameGrid

__all__ = ["CellStates", "CellWindows", "FrameStates", "LanguageStates", "TokenStates", "VisualTokens"]


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
        token_similarity: how alike the tokens of each grid are among themselves (`earlytom.ops.token_similarity`), [N]
            float32 on the host, likewise.
        frames_per_grid: sampled frames that were taken as one temporal grid.

    Raises:
        MethodError: the shapes do not belong together.
    """

    features: Tensor
    attention: Tensor | None
    origin: Reduction
    similarity: Tensor | FrameSimilarity | None = None
    token_similarity: Tensor | None = None
    frames_per_grid: int = 1

    def __post_init__(self) -> None:
        check_shape("features", self.features, self.origin.outputs, None, None)
        check_shape("attention", self.attention, *self.features.shape[:2])
        check_shape("similarity", self.similarity, *[self.origin.outputs] * 2)
        check_shape("token_similarity", self.token_similarity, self.origin.outputs)


@dataclass(frozen=True, kw_only=True, eq=False)
class CellWindows:
    """The attention windows of a vision encoder, of which each keeps so many of its cells in every temporal grid.

    Attributes:
        of: [P] int64, the window of each cell in raster order, from 0.
        sizes: for each window the number of its cells.
        kept: for each window how many of them are to be kept, 0 to all; they sum to ``CellStates.kept``.
    """

    of: Tensor
    sizes: tuple[int, ...]
    kept: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class CellStates:
    """The cells of one clip inside the vision encoder, before some of them go on alone.

    A cell is what becomes one pooled token: it rests on a few patches.

    Attributes:
        features: [N, P, D] hidden states of the P cells of the N temporal grids that are left, in raster order: means
            of their patches, weighted as pooling weighs them; model dtype.
        attention: [N, P] attention received in ``EncoderPlan.cell_layer``, likewise, float32; ``None`` where
            ``EncoderPlan.cell_attention`` does not ask for it.
        origin: how the N grids came from the B input grids.
        grid: shape of the uncompressed clip.
        kept: K, how many cells of each grid are to be kept (`Method.cells_kept`, and what the budget needs), below P.
        windows: where the attention of some layers stays inside windows: how many of each are to be kept, so that
            lengths of windows are known without looking at what was chosen; ``None`` where all layers see the whole
            grid.
        similarity: of the N grids, like `FrameStates.similarity`; ``None`` where ``EncoderPlan.cell_similarity`` does
            not ask for it.

    Raises:
        MethodError: the shapes do not belong together.
    """

    features: Tensor
    attention: Tensor | None
    origin: Reduction
    grid: FrameGrid
    kept: int
    windows: CellWindows | None = None
    similarity: Tensor | FrameSimilarity | None = None

    def __post_init__(self) -> None:
        grids, cells = self.origin.outputs, self.grid.tokens_per_frame
        check_shape("features", self.features, grids, cells, None)
        check_shape("attention", self.attention, grids, cells)
        check_shape("similarity", self.similarity, grids, grids)
        check_shape("windows.of", None if self.windows is None else self.windows.of, cells)


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
        check_shape("features", self.features, None, None, None)
        check_shape("keys", self.keys, *self.features.shape[:2], None)
        check_shape("sizes", self.sizes, *self.features.shape[:2])


@dataclass(frozen=True, kw_only=True, eq=False)
class VisualTokens:
    """The visual tokens of one clip after projection and pooling, as the language model would get them.

    Where only some cells went through the last layers of the encoder (``EncoderPlan.cell_layer``), P is their number.

    Attributes:
        features: [N, P, D] features, model dtype.
        attention: [N, P] attention received, resized in the same way as the features, float32, or ``None``.
        grid: shape of the *uncompressed* clip (``grid.temporal_grids`` is B, not N).
        origin: how the N grids came from the B input grids.
        frame_similarity: of the N grids, like ``FrameStates.similarity``, or ``None``.
        keys: [N, P, E] keys of the attention layer, mean over its heads, resized alike, float32, or ``None``.
        descriptions: [N, E] output of the attention-pooling head for each grid, model dtype, or ``None``.
        fingerprint: a number that tells this clip from others (`earlytom.ops.fingerprint`), or ``None``.
        cells: [N, P] int64, where in its grid each token lies, in raster order, ascending; ``None`` where there are
            those of all places.

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
    cells: Tensor | None = None

    def __post_init__(self) -> None:
        frames = self.origin.outputs
        tokens = self.grid.tokens_per_frame if self.cells is None else self.cells.shape[-1]
        check_shape("features", self.features, frames, tokens, None)
        check_shape("cells", self.cells, frames, tokens)
        check_shape("attention", self.attention, *self.features.shape[:2])
        check_shape("keys", self.keys, *self.features.shape[:2], None)
        check_shape("frame_similarity", self.frame_similarity, frames, frames)
        check_shape("descriptions", self.descriptions, frames, None)


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
        check_shape("features", self.features, None, None)
        check_shape("attention", self.attention, self.features.shape[0])
