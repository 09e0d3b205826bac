"""Inner-LLM merging: the stage that HoliTom (arXiv 2505.21334) introduced and EarlyTom's Table 8 has switched on.

Before one layer of the language model the visual tokens that the last prompt token attended to least are merged into
their most similar neighbours. `EarlyTom` has this stage built in; as a method of its own it can be put behind any other
one: ``visionzip+inner-merging:retention=0.2``.

What differs from the authors' code (``compat="official"`` restores it): the plain mean of everything that meets in one
token, where theirs halves again and again, so that the order of the tokens decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from earlytom.errors import MethodError, shown
from earlytom.methods.base import Method, check_choice, check_count, check_range
from earlytom.types import LanguagePlan, Stage

if TYPE_CHECKING:
    from earlytom.reduction import Reduction
    from earlytom.types import LanguageStates

__all__ = ["InnerMerging", "check_inner_ratio", "inner_plan"]

_PUBLISHED_LAYER, _PUBLISHED_DEPTH = 18, 28


@dataclass(frozen=True, kw_only=True)
class InnerMerging(Method):
    """Merge visual tokens inside the language model, and nowhere else.

    Attributes:
        retention: 1, because every visual token enters the language model; ``ratio`` says what happens inside it.
        layer: 0-based layer before which tokens merge; ``None``: 18, or the same share of a language model too shallow
            for it.
        ratio: share of the visual tokens that is merged away, in [0, 1).
        compat: ``"default"``: plain means; ``"official"``: the authors' order-dependent averages.

    Raises:
        MethodError: a knob is out of range.
    """

    layer: int | None = None
    ratio: float = 0.5
    compat: Literal["default", "official"] = "default"

    name: ClassVar[str] = "inner-merging"
    summary: ClassVar[str] = "merging of the least attended visual tokens inside the language model"
    paper: ClassVar[str] = "arXiv 2505.21334"
    stages: ClassVar[tuple[Stage, ...]] = ("llm",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.retention != 1.0:
            raise MethodError(
                f"method {self.name!r} hands every visual token to the language model, so retention must be 1, got "
                f"{self.retention!r}; what is merged inside it is ratio, and another method can go first: "
                f"earlytom+{self.name}:retention={self.retention!r}"
            )
        check_inner_ratio("ratio", self.ratio)
        check_choice("compat", self.compat, ("default", "official"))
        if self.layer is not None:
            check_count("layer", self.layer, 1)

    def llm_plan(self, depth: int) -> LanguagePlan:
        return inner_plan("layer", self.layer, self.ratio, depth)

    def reduce_in_llm(self, states: LanguageStates, layer: int) -> Reduction | None:
        from earlytom.ops import merge_dropped_tokens

        return merge_dropped_tokens(
            states.features, states.attention, ratio=self.ratio, sequential=self.compat == "official"
        )


def check_inner_ratio(name: str, value: float) -> None:
    """Raise `MethodError` unless ``value`` is a number in [0, 1)."""
    check_range(name, value, 0.0, 1.0)
    if value == 1.0:
        raise MethodError(f"{name} must be less than 1, got {shown(value)}")


def inner_plan(name: str, layer: int | None, ratio: float, depth: int) -> LanguagePlan:
    """Where inner merging acts in a language model of ``depth`` layers.

    Args:
        name: the knob that ``layer`` comes from, for the error.
        layer: 0-based layer before which tokens merge; ``None``: 18, or the same share of a shallower model.
        ratio: share of the tokens to merge away; nothing is planned for 0.
        depth: layers of the language model.

    Raises:
        MethodError: the language model lacks the layer.
    """
    if ratio == 0.0:
        return LanguagePlan()
    if layer is None:
        shallow = depth <= _PUBLISHED_LAYER
        layer = max(1, round(_PUBLISHED_LAYER * depth / _PUBLISHED_DEPTH)) if shallow else _PUBLISHED_LAYER
    if layer >= depth:
        raise MethodError(
            f"{name} {layer} does not fit a language model of {depth} layers: allowed are 1 to {depth - 1}"
        )
    return LanguagePlan(reduce_before=(layer,))
