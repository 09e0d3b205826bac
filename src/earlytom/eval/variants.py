"""Which methods are compared, each at which retentions."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from earlytom.errors import MethodError
from earlytom.methods import method_names, parse_method
from earlytom.methods.grammar import written_option

if TYPE_CHECKING:
    from earlytom.methods.base import Method

__all__ = ["BASELINE", "Variant", "make_variants", "split_methods"]

BASELINE = "none"
_EVERY = "all"
_RETENTION = "retention"
_OPTION = re.compile(r"[\w.-]+\s*=")


# eq=False: methods of other packages may hold what cannot be hashed.
@dataclass(frozen=True, kw_only=True, eq=False)
class Variant:
    """A method at one retention."""

    method: Method

    @property
    def spec(self) -> str:
        """The method with all its options, as `earlytom.methods.parse_method` reads it."""
        return self.method.describe()

    @property
    def label(self) -> str:
        """The method with its options, retention left out."""
        name, _, rest = self.spec.rpartition(":")
        first, *options = rest.split(",")
        kept = options if first.startswith(f"{_RETENTION}=") else [first, *options]
        return f"{name}:{','.join(kept)}" if any(kept) else name

    @property
    def retention(self) -> float | None:
        """Share of the visual tokens that is kept; ``None`` where other knobs say what is."""
        return self.method.retention if self.method.retention_counts else None

    @property
    def is_baseline(self) -> bool:
        return self.label == BASELINE


def split_methods(texts: Sequence[str]) -> list[str]:
    """Split comma-separated lists of methods; a comma before ``option=`` belongs to the method on its left.

    Example: ``none,earlytom:ema=0.5,max_window=4`` holds two methods.

    Raises:
        MethodError: an option has no method on its left that could take it.
    """
    found: list[str] = []
    for text in texts:
        mine: list[str] = []
        for piece in filter(None, (part.strip() for part in text.split(","))):
            if not _OPTION.match(piece):
                mine.append(piece)
            elif mine and ":" in mine[-1]:
                mine[-1] += f",{piece}"
            else:
                before = f"{mine[-1]}:{piece}" if mine else f"METHOD:{piece}"
                raise MethodError(f"methods {text!r}: {piece!r} is an option without a method; write {before}")
        found += mine
    return found


def make_variants(
    methods: Sequence[str], retentions: Sequence[float], check: Callable[[Method], object] = lambda method: None
) -> tuple[list[Variant], list[str]]:
    """The baseline, and every method at every retention.

    A method that names its own retention keeps it, and one that knows none (``inner-merging``) is run as it is. A
    retention that a method refuses is left out.

    Args:
        methods: in the grammar of `earlytom.methods.parse_method`; ``all`` stands for every known one that can run.
        retentions: in (0, 1].
        check: raises `MethodError` for a method that does not fit the model at hand.

    Returns:
        The variants, each once, and what was left out, in words.

    Raises:
        MethodError: a method or an option is unknown, or a method that was named can run at none of the retentions.
    """
    baseline = Variant(method=parse_method(BASELINE))
    variants, left_out = {baseline.spec: baseline}, []
    for text in methods:
        for name in method_names() if text == _EVERY else [text]:
            made, refusals = _at_retentions(name, retentions, check)
            if not made and text != _EVERY:
                raise refusals[0]
            left_out += [f"left out: {name}: {refusal}" for refusal in refusals]
            for method in made:
                variant = Variant(method=method)
                variants.setdefault(variant.spec, variant)
    return list(variants.values()), list(dict.fromkeys(left_out))


def _at_retentions(
    text: str, retentions: Sequence[float], check: Callable[[Method], object]
) -> tuple[list[Method], list[MethodError]]:
    """One method at all retentions that it takes, and its refusals of the others."""
    plain = parse_method(text)
    own = written_option(text, _RETENTION) is not None or not plain.retention_counts
    made, refusals = [], []
    for options in [{}] if own else [{_RETENTION: retention} for retention in retentions]:
        try:
            method = parse_method(text, options)
            check(method)
            made.append(method)
        except MethodError as refusal:
            refusals.append(refusal)
    if made or own or plain.retention != 1.0:
        return made, refusals
    # Hands every token on unless told otherwise, and may not be told: there is no retention to choose.
    check(plain)
    return [plain], []
