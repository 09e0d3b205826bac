"""What a method decided, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from earlytom.errors import MethodError
from earlytom.types.checks import check_shape

if TYPE_CHECKING:
    from torch import Tensor

    from earlytom.reduction import Reduction

__all__ = ["Decision", "KeptTokens", "PrefillInputs"]


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
        check_shape("features", self.features, None, None)
        check_shape("places", self.places, self.features.shape[0])


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
