"""Which methods are compared, each at which retentions."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from earlytom.errors import MethodError, shown
from earlytom.methods import find_method, method_names, parse_method
from earlytom.methods.grammar import written_option

if TYPE_CHECKING:
    from earlytom.methods.base import Method

__all__ = ["BASELINE", "CONTROLS", "RANDOM", "Variant", "make_variants", "split_methods"]

BASELINE = "none"
RANDOM = "random"
CONTROLS = (RANDOM, "uniform", "average-pooling")
"""What a method has to beat; random tokens are harder to beat than they look."""
_EVERY = "all"
_RETENTION, _VISUAL_TOKENS = "retention", "visual_tokens"
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
        """Share of the visual tokens that is kept; ``None`` where other knobs say what is kept."""
        return self.method.retention if self.method.retention_counts else None

    @property
    def amount(self) -> tuple[float | None, int | None]:
        """How much is kept, as far as it is said: the retention, or the number of tokens."""
        return self.retention, self.method.visual_tokens

    @property
    def is_random(self) -> bool:
        """Whether it is the random tokens that methods of the same ``amount`` are compared with."""
        return self.method.name == RANDOM and not {*self.method.changed_options()} - {_RETENTION, _VISUAL_TOKENS}

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
                raise MethodError(
                    f"methods {shown(text)}: {shown(piece)} is an option without a method; write {before}"
                )
        found += mine
    return found


def make_variants(
    methods: Sequence[str],
    retentions: Sequence[float],
    check: Callable[[Method], object] = lambda method: None,
    *,
    controls: Sequence[str] = (),
    visual_tokens: Sequence[int] = (),
) -> tuple[list[Variant], list[str]]:
    """The baseline, every method at every retention and number of tokens, and the controls.

    A method that names its own keeps it, and one that knows none (``inner-merging``) is run as it is. What a method
    refuses is left out.

    Args:
        methods: in the grammar of `earlytom.methods.parse_method`; ``all`` stands for every known one that can run,
            with its stand-in options (`earlytom.Method.stand_ins`) where it cannot run with its defaults.
        retentions: in (0, 1].
        check: raises `MethodError` for a method that does not fit the model at hand.
        controls: further methods, left out where they cannot run.
        visual_tokens: numbers of visual tokens to keep of each clip, at least 1.

    Returns:
        The variants, each once, and what was left out, in words.

    Raises:
        MethodError: a method or an option is unknown, or a method that was named can run at none of what is asked for.
    """
    baseline = Variant(method=parse_method(BASELINE))
    variants, left_out = {baseline.spec: baseline}, []
    # Fitting one to the model is a whole call: none that is listed already is tried again.
    amounts: list[dict[str, object]] = [{_RETENTION: share} for share in retentions]
    amounts += [{_VISUAL_TOKENS: number} for number in visual_tokens]
    further = [] if _EVERY in methods else [name for name in controls if name not in methods]
    for text in (*methods, *further):
        named = text in methods and text != _EVERY
        for name in method_names() if text == _EVERY else [text]:
            made, refusals = _at_amounts(name, amounts, check, () if named else find_method(name).stand_ins)
            if not made and named:
                raise refusals[0]
            left_out += [f"left out: {name}: {refusal}" for refusal in refusals]
            for method in made:
                variant = Variant(method=method)
                variants.setdefault(variant.spec, variant)
    return list(variants.values()), list(dict.fromkeys(left_out))


def _at_amounts(
    text: str, amounts: Sequence[dict[str, object]], check: Callable[[Method], object], stand_ins: Sequence[str]
) -> tuple[list[Method], list[MethodError]]:
    """One method at all that it takes of what is to be kept, and its refusals of the others."""
    plain = parse_method(text)
    written = any(written_option(text, knob) is not None for knob in (_RETENTION, _VISUAL_TOKENS))
    own = written or not plain.retention_counts
    made, refusals = [], []
    for options in [{}] if own else amounts:
        refused: list[MethodError] = []
        for form in (text, *(f"{text}:{knobs}" for knobs in stand_ins)):
            try:
                method = parse_method(form, options)
                check(method)
            except MethodError as refusal:
                refused.append(refusal)
            else:
                made.append(method)
                break
        else:
            refusals += refused
    if made or own or plain.retention != 1.0:
        return made, refusals
    # Hands every token on unless told otherwise, and may not be told: there is no retention to choose.
    check(plain)
    return [plain], []
