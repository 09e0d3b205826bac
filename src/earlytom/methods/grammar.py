"""Methods as text, the one grammar of Python, the command line and results.

::

    method  = part *("+" part)
    part    = name ["@" stage *("/" stage)] [":" option *("," option)]
    option  = knob "=" value | name "." knob "=" value

One part is a method; several are a composition (`earlytom.methods.compose`). Options behind a part that others follow
are its own. Options at the end are those of the whole: ``retention``, or ``visual_tokens`` instead, is everybody's, any
other knob goes to the part that has it, and where several have it the part is named: ``visionzip.compat=official``.
``@`` says which stages a part is to supply, where the rules of `earlytom.methods.compose` would decide otherwise; a
part that does not get them is refused.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast, get_args

from earlytom.errors import MethodError, shown
from earlytom.methods import find_method
from earlytom.types import Stage

if TYPE_CHECKING:
    from earlytom.methods.base import Method
    from earlytom.methods.compose import Composition

__all__ = ["read_method", "written_option"]

# A plus sign in front of a number, as in 1e+3, joins nothing.
_JOINT = re.compile(r"\+(?=\s*[A-Za-z_])")
_AMOUNTS = ("retention", "visual_tokens")
"""How much is kept, which is of the whole."""


@dataclass
class _Part:
    """One part as written, and the options found to be its own."""

    name: str
    found: type[Method]
    stages: tuple[Stage, ...] | None
    options: dict[str, object] = field(default_factory=dict)

    @property
    def knobs(self) -> list[str]:
        return [knob.name for knob in dataclasses.fields(self.found)]

    @property
    def budget_is_its_own(self) -> bool:
        """What acts in the language model alone gets tokens that others have selected."""
        return (self.stages or self.found.stages) == ("llm",)


@dataclass
class _Text:
    """A whole text: its parts, and how much the whole keeps as far as that is given."""

    text: str
    parts: list[_Part]
    whole: dict[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return "+".join(part.name for part in self.parts)

    def put(self, options: dict[str, object], knob: str, value: object) -> None:
        """Note an option. Raises `MethodError` when it is there already."""
        if knob in options:
            raise MethodError(f"method {shown(self.text)}: option {shown(knob)} is given twice")
        options[knob] = value

    def put_own(self, part: _Part, knob: str, value: object) -> None:
        """Note an option that is written with its part; how much is kept is of the whole even there."""
        shared = knob in _AMOUNTS and not part.budget_is_its_own
        self.put(self.whole if shared else part.options, knob, value)

    def put_last(self, key: str, value: object) -> None:
        """Note an option that is written at the end, for whichever part it belongs to."""
        name, dot, knob = key.rpartition(".")
        if not dot and knob in _AMOUNTS:
            self.put(self.whole, knob, value)
            return
        owners = [part for part in self.parts if knob in part.knobs and (not dot or part.name == name)]
        if len(owners) != 1:
            raise MethodError(self._not_one_owner(key, owners))
        self.put_own(owners[0], knob, value)

    def _not_one_owner(self, key: str, owners: list[_Part]) -> str:
        accepted = "; ".join(f"{part.name} has: {', '.join(part.knobs)}" for part in self.parts)
        if not owners:
            return f"method {self.name!r} has no option {shown(key)}; {accepted}"
        written = " or ".join(f"{part.name}.{key}=..." for part in owners)
        return (
            f"option {shown(key)} of method {self.name!r} could be meant for several parts; write {written}; {accepted}"
        )


def read_method(text: str, options: Mapping[str, object]) -> Method:
    """See `earlytom.methods.parse_method`."""
    read = _read(text, options)
    if len(read.parts) == 1 and read.parts[0].stages is None:
        return read.parts[0].found.from_options(read.parts[0].options)
    from earlytom.methods.base import Method
    from earlytom.methods.compose import compose_stages

    # A number of tokens is for the part that selects, which is not known yet.
    share = {knob: value for knob, value in read.whole.items() if knob == "retention"}
    built: list[tuple[Method, tuple[Stage, ...] | None]] = []
    for part in read.parts:
        options = part.options if part.budget_is_its_own else part.options | share
        built.append((part.found.from_options(options), part.stages))
    made = compose_stages(built, **Method.read_options(read.whole))
    for part in read.parts:
        _check_suppliers(read, part, made)
    return made


def _check_suppliers(read: _Text, part: _Part, made: Composition) -> None:
    """Raise `MethodError` unless a part supplies every stage that ``@`` says it is to supply."""
    for stage in part.stages or ():
        supplier = getattr(made, stage)
        if supplier.name != part.name:
            raise MethodError(
                f"method {shown(read.text)}: {part.name} is to supply {stage!r}, and so is {supplier.name}; write "
                "behind @ what each is to supply, every stage once"
            )


def written_option(text: str, knob: str) -> object | None:
    """The value that a text gives to an option of the whole, ``None`` where it gives none."""
    read = _read(text, {})
    return next((options[knob] for options in (read.whole, *_own(read)) if knob in options), None)


def _own(read: _Text) -> Iterable[dict[str, object]]:
    return (part.options for part in read.parts if len(read.parts) == 1 or not part.budget_is_its_own)


def _read(text: str, extra: Mapping[str, object]) -> _Text:
    heads, lists = [], []
    for written in _JOINT.split(text.strip()):
        head, _, rest = written.partition(":")
        heads.append(_head(text, head))
        lists.append(_options(text, rest))
    read = _Text(text, heads)
    names = [part.name for part in heads]
    if len(set(names)) != len(names):
        raise MethodError(f"method {shown(text)}: each part can be named once")
    if len(heads) == 1 and heads[0].stages is None:
        for knob, value in (*lists[0], *extra.items()):
            read.put(heads[0].options, knob, value)
        return read
    for part, listed in zip(heads[:-1], lists[:-1], strict=True):
        for knob, value in listed:
            read.put_own(part, knob, value)
    for knob, value in (*lists[-1], *extra.items()):
        read.put_last(knob, value)
    return read


def _head(text: str, head: str) -> _Part:
    name, at, stages = head.partition("@")
    found = find_method(name.strip())
    if not at:
        return _Part(name.strip(), found, None)
    chosen = tuple(stage.strip() for stage in stages.split("/"))
    wrong = [stage for stage in chosen if stage not in found.stages]
    if wrong:
        acts = ", ".join(found.stages) or "none"
        raise MethodError(
            f"method {shown(text)}: {found.name} does not act in stage {shown(wrong[0])}, it acts in: {acts} "
            f"(stages are {', '.join(get_args(Stage))})"
        )
    return _Part(name.strip(), found, cast(Any, chosen))


def _options(text: str, rest: str) -> list[tuple[str, object]]:
    options: list[tuple[str, object]] = []
    for piece in filter(None, (piece.strip() for piece in rest.split(","))):
        key, separator, value = piece.partition("=")
        if not separator:
            raise MethodError(f"method {shown(text)}: expected option=value, got {shown(piece)}")
        options.append((key.strip(), value))
    return options
