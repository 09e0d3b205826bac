"""Who is compared: the plain model as reference, and methods, each at so many frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from earlytom.methods.none import Uncompressed

if TYPE_CHECKING:
    from earlytom.methods.base import Method

__all__ = ["Subject", "make_subjects"]

REFERENCES = ("sdpa", "eager")
"""Attention implementations that the plain model is measured with, whatever the methods use."""


# eq=False: methods of other packages may hold what cannot be hashed.
@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """Something that is measured.

    Attributes:
        method: the method.
        label: the method without how much it keeps.
        amount: how much it keeps, in words; ``""`` where it does not say.
        retention: the share of visual tokens that it keeps; ``None`` where other knobs say what is kept.
        attention: transformers' attention implementation.
        frames: sampled frames.
    """

    method: Method
    label: str
    amount: str = ""
    retention: float | None = None
    attention: str
    frames: int

    @property
    def name(self) -> str:
        """One among those of as many frames."""
        return " ".join(filter(None, (self.label, self.amount if self.label != "none" else self.attention)))

    @property
    def is_reference(self) -> bool:
        """Whether it is the plain model."""
        return self.label == "none"


def make_subjects(
    methods: Iterable[tuple[str, Method]], frames: Sequence[int], attention: str = "sdpa"
) -> list[Subject]:
    """The plain model with sdpa, eager and ``attention``, and every method, for each number of frames.

    Args:
        methods: with the label of each; the plain model among them is left out.
        frames: numbers of sampled frames.
        attention: what methods run with.
    """
    references = dict.fromkeys((*REFERENCES, attention))
    listed = list(methods)
    return [
        subject
        for count in frames
        for subject in (
            *(Subject(method=Uncompressed(), label="none", attention=name, frames=count) for name in references),
            *(
                Subject(
                    method=method,
                    label=label,
                    amount=_amount(method),
                    retention=method.retention if method.retention_counts else None,
                    attention=attention,
                    frames=count,
                )
                for label, method in listed
                if method.name != Uncompressed.name
            ),
        )
    ]


def _amount(method: Method) -> str:
    if method.visual_tokens is not None:
        return f"{method.visual_tokens} tokens"
    return f"{100 * method.retention:g}%" if method.retention_counts and method.retention is not None else ""
