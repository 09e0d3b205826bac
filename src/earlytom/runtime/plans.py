"""What a method wants from a model, asked once for both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from earlytom.errors import MethodError, ModelError

if TYPE_CHECKING:
    from earlytom.methods.base import Method
    from earlytom.models.base import Host
    from earlytom.types import EncoderPlan, LanguagePlan

__all__ = ["Plans"]


@dataclass(frozen=True)
class Plans:
    """What a method wants from the vision encoder and from the language model of a host."""

    encoder: EncoderPlan
    language: LanguagePlan

    @classmethod
    def of(cls, method: Method, host: Host) -> Plans:
        """Ask the method. Raises `MethodError` or `ModelError` when what it wants cannot be had."""
        return cls(_plan_encoder(method, host), _plan_language_model(method, host))

    @property
    def acts_in_llm(self) -> bool:
        """Whether the method acts inside the language model."""
        return bool(self.language.reduce_before)


def _plan_encoder(method: Method, host: Host) -> EncoderPlan:
    plan = method.check_encoder(host.shape)
    try:
        host.check_plan(plan)
    except ModelError as refusal:
        advice = method.advice(lambda other: host.check_plan(other.check_encoder(host.shape)))
        if not advice:
            raise
        raise ModelError(f"{refusal}, or {advice}") from None
    return plan


def _plan_language_model(method: Method, host: Host) -> LanguagePlan:
    layers, earliest = host.language.layers, host.language.earliest_reduction
    plan = method.llm_plan(len(layers))
    if plan.reduce_before and plan.reduce_before[0] < earliest:
        raise MethodError(
            f"method {method.name!r} acts before layer {plan.reduce_before[0]} of the language model, but this one "
            f"still adds visual features to its first layers: tokens can be reduced before layer {earliest} at the "
            "earliest"
        )
    # Where a position is no number in the sequence, the tokens that are left have none to close ranks to.
    return plan if host.language.sequential_positions else replace(plan, renumber=False)
