"""What a compression method is: knobs, and decisions on tensors. A method never sees a model.

What merges and what holds tokens are temporal grids: what the vision encoder takes as one, a sampled frame or, in the
Qwen families, a pair of them. Papers, and so the names and options of methods, call a temporal grid a frame.
"""

from __future__ import annotations

import dataclasses
import numbers
import types
import typing
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from earlytom.errors import EarlyTomError, MethodError, shown
from earlytom.types import Decision, EncoderPlan, EncoderShape, LanguagePlan, Resource, Stage

if TYPE_CHECKING:
    from earlytom.reduction import Reduction
    from earlytom.types import CellStates, FrameGrid, FrameStates, LanguageStates, TokenStates, VisualTokens

__all__ = ["Method", "check_choice", "check_count", "check_layer", "check_range", "check_switches"]


# No tensor holds more, and beyond thousands of digits Python does not write a number.
_MOST = 2**63 - 1


def check_range(name: str, value: object, low: float, high: float, *, low_open: bool = False) -> None:
    """Raise `MethodError` unless ``value`` is a number in [low, high] (``low_open``: (low, high])."""
    numeric = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (numeric and low <= value <= high and not (low_open and value == low)):  # type: ignore[operator]
        raise MethodError(f"{name} must be a number in {'(' if low_open else '['}{low}, {high}], got {shown(value)}")


def check_count(name: str, value: object, low: int) -> None:
    """Raise `MethodError` unless ``value`` is an integer of at least ``low``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise MethodError(f"{name} must be an integer of at least {low}, got {shown(value)}")
    if value > _MOST:
        raise MethodError(f"{name} must be an integer of at most {_MOST}, got {shown(value)}")


def check_switches(method: object, *names: str, optional: tuple[str, ...] = ()) -> None:
    """Raise `MethodError` unless each named knob is True or False (or ``None`` where ``optional``)."""
    for name in (*names, *optional):
        value = getattr(method, name)
        if not isinstance(value, bool) and not (value is None and name in optional):
            raise MethodError(
                f"{name} must be True or False{' or None' if name in optional else ''}, got {shown(value)}"
            )


def check_layer(name: str, layer: int, encoder: EncoderShape) -> None:
    """Raise `MethodError` unless the vision encoder has the layer."""
    if layer >= encoder.depth:
        raise MethodError(
            f"{name} {layer} does not fit a vision encoder of {encoder.depth} layers: allowed are 0 to "
            f"{encoder.depth - 1}"
        )


def check_choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    """Raise `MethodError` unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise MethodError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {shown(value)}")


@dataclass(frozen=True, kw_only=True)
class Method:
    """Base of all methods; every hook is optional, and a method with none of them leaves the model as it is.

    A class declares where it acts (``stages``), so that `earlytom.methods.compose` can take its stages apart: what its
    token stage depends on (``needs``), and what its encoder stage leaves no longer there (``breaks``).

    Attributes:
        retention: visual tokens that the language model gets, over those it would have got, in (0, 1]; ``None``: the
            class's ``default_retention``, or what ``visual_tokens`` are of a clip.
        visual_tokens: instead of ``retention``, the number of visual tokens that the language model gets of every clip,
            at least 1, newline embeddings not counted (at most so many where a method's budget is a ceiling); a clip
            that has fewer keeps all.

    Raises:
        MethodError: ``retention`` or ``visual_tokens`` is out of range, both are given, or the method cannot keep to a
            number of tokens.
    """

    retention: float | None = None
    visual_tokens: int | None = None

    default_retention: ClassVar[float] = 1.0
    """What ``retention`` is where nothing is given; a class that gives the field a default has that one."""
    name: ClassVar[str] = "method"
    summary: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    stages: ClassVar[tuple[Stage, ...]] = ()
    needs: ClassVar[frozenset[Resource]] = frozenset()
    breaks: ClassVar[frozenset[Resource]] = frozenset()
    stand_ins: ClassVar[tuple[str, ...]] = ()
    """Options under which it can run where its defaults cannot, for those who compare all methods."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        declared = cls.__dict__.get("retention")
        if isinstance(declared, numbers.Real):
            cls.default_retention = float(declared)

    def __post_init__(self) -> None:
        if self.visual_tokens is not None:
            self._check_visual_tokens(self.visual_tokens)
            object.__setattr__(self, "retention", None)
            return
        if self.retention is None:
            object.__setattr__(self, "retention", self.default_retention)
        check_range("retention", self.retention, 0.0, 1.0, low_open=True)
        object.__setattr__(self, "retention", float(self.retention))  # type: ignore[arg-type]

    def _check_visual_tokens(self, wanted: int) -> None:
        (field,) = (field for field in dataclasses.fields(self) if field.name == "retention")
        # The default that a class gives the field cannot be told from the same value given by hand.
        if self.retention not in (None, field.default):
            raise MethodError(
                f"retention ({shown(self.retention)}) and visual_tokens ({shown(wanted)}) both say how much "
                f"{self.name} keeps; give one"
            )
        check_count("visual_tokens", wanted, 1)
        if self.no_visual_tokens is not None:
            raise MethodError(f"method {self.name!r} takes no visual_tokens (got {wanted}): {self.no_visual_tokens}")

    @property
    def active_stages(self) -> tuple[Stage, ...]:
        """The ``stages`` that these very knobs leave switched on."""
        return self.stages

    @property
    def retention_counts(self) -> bool:
        """Whether ``retention`` has a say; not where other knobs say what is kept."""
        return True

    @property
    def exact_budget(self) -> bool:
        """Whether `select_tokens` always keeps exactly `budget` tokens."""
        return True

    @property
    def no_visual_tokens(self) -> str | None:
        """Why ``visual_tokens`` cannot say how much is kept, or ``None`` where it can."""
        if type(self).select_tokens is Method.select_tokens:
            return "it selects no tokens before the language model"
        return None if self.exact_budget else "as it is set up it keeps no exact number of tokens"

    def steps_aside(self, grid: FrameGrid) -> str | None:
        """Why a clip of this shape is left alone, or ``None`` when it is compressed."""
        if self.visual_tokens is None or self.visual_tokens < grid.tokens:
            return None
        return f"a clip of {grid.tokens} visual tokens has no more than the {self.visual_tokens} asked for"

    def budget(self, grid: FrameGrid) -> int:
        """Visual tokens that the language model gets for a clip; from shapes alone, before the encoder runs."""
        from earlytom.ops.budget import token_budget

        if self.steps_aside(grid):
            return grid.tokens
        if self.retention is None:
            return min(grid.tokens, self.visual_tokens or grid.tokens)
        return token_budget(self.retention, grid.tokens)

    def share(self, grid: FrameGrid) -> float:
        """The share of a clip's visual tokens that is asked for: ``retention``, or what ``visual_tokens`` are of it."""
        if self.retention is None:
            return min(1.0, (self.visual_tokens or grid.tokens) / grid.tokens)
        return self.retention

    def encoder_plan(self, encoder: EncoderShape) -> EncoderPlan:
        """What is wanted from a vision encoder. Raises `MethodError` for layers it lacks."""
        return EncoderPlan()

    def check_encoder(self, encoder: EncoderShape) -> EncoderPlan:
        """`encoder_plan`, checked against the vision encoder.

        Raises:
            MethodError: the encoder cannot give what is wanted; the message names those of ``stand_ins`` that it can.
        """
        try:
            return encoder.check(self.encoder_plan(encoder))
        except MethodError as refusal:
            advice = self.advice(lambda method: encoder.check(method.encoder_plan(encoder)))
            if not advice:
                raise
            raise MethodError(f"{refusal}; {advice}") from None

    def advice(self, check: Callable[[Method], object]) -> str:
        """Which of the ``stand_ins`` to choose where ``check`` refuses the method itself; empty where none passes."""
        fitting = [text for text, method in self.substitutes().items() if _passes(check, method)]
        return f"choose the method's substitute (for {', or '.join(fitting)})" if fitting else ""

    def substitutes(self) -> dict[str, Method]:
        """What this method becomes under each of its ``stand_ins``, by what to advise: ``fastvid: scores=received``."""
        made: dict[str, Method] = {}
        for text in self.stand_ins:
            options = {name: value for name, _, value in (option.partition("=") for option in text.split(","))}
            with suppress(MethodError):
                made[f"{self.name}: {text}"] = dataclasses.replace(self, **self.read_options(options))
        return made

    def merge_frames(self, states: FrameStates, layer: int, floor: int) -> Decision:
        """Merge temporal grids after encoder layer ``layer``; at least ``floor`` must be left to fill the budget."""
        return Decision()

    def cells_kept(self, grid: FrameGrid) -> int | None:
        """K, how many cells of each temporal grid go on behind ``EncoderPlan.cell_layer``; ``None``: all of them.

        From shapes alone, before the encoder runs. Where even all grids of the clip could not fill the budget with so
        many, as many are kept as are needed for that.
        """
        return None

    def select_cells(self, states: CellStates, budget: int) -> Decision:
        """Choose which cells of each temporal grid go on through the remaining layers of the vision encoder.

        The reduction selects rows of the N * P cells, flattened in temporal and raster order: ascending, without
        weights, ``states.kept`` of each grid, and of these as many of each window as ``states.windows`` says
        (`earlytom.ops.best_cells` makes such rows of scores). Of the cells that are left `select_tokens` will keep
        ``budget`` tokens.
        """
        return Decision()

    def merge_tokens(self, states: TokenStates, layer: int) -> Reduction | None:
        """Merge tokens inside each temporal grid, amid encoder layer ``layer``: all F * L rows of the call at once.

        Every row goes into one output row of its own grid, and all grids are left with the same number of tokens.
        """
        return None

    def select_tokens(self, tokens: VisualTokens, budget: int) -> Decision:
        """Reduce the N * P pooled tokens of a clip, flattened in temporal and raster order."""
        return Decision()

    def llm_plan(self, depth: int) -> LanguagePlan:
        """What is wanted from a language model of ``depth`` layers. Raises `MethodError` for layers it lacks."""
        return LanguagePlan()

    def reduce_in_llm(self, states: LanguageStates, layer: int) -> Reduction | None:
        """Reduce the V visual tokens of one sample before ``layer`` of the language model."""
        return None

    def deciding_methods(self) -> list[Method]:
        """The methods whose hooks decide: itself, or those that it is made of."""
        return [self]

    def describe(self) -> str:
        """The method in the grammar of `earlytom.methods.parse_method`, knobs that differ from the default only."""
        options = self.amount_options() | self.changed_options()
        return f"{self.name}:{','.join(f'{name}={value}' for name, value in options.items())}"

    def amount_options(self) -> dict[str, str]:
        """``retention`` or ``visual_tokens``, whichever says how much is kept, as text that `from_options` reads."""
        if self.visual_tokens is not None:
            return {"visual_tokens": _to_text(self.visual_tokens)}
        return {"retention": _to_text(self.retention)} if self.retention_counts else {}

    def changed_options(self) -> dict[str, str]:
        """The knobs that differ from the default, as text that `from_options` reads."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        defaults["retention"] = self.default_retention if self.visual_tokens is None else None
        values = {name: getattr(self, name) for name in defaults}
        return {name: _to_text(value) for name, value in values.items() if value != defaults[name]}

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> Self:
        """Build from plain options; text values are read according to the knob's type.

        Raises:
            MethodError: a knob is unknown (the known ones are listed), or its value cannot be read or is not allowed.
        """
        return cls(**cls.read_options(options))

    @classmethod
    def read_options(cls, options: Mapping[str, object]) -> dict[str, Any]:
        """Plain options as values of the knobs. Raises `MethodError` for unknown ones and text that cannot be read."""
        hints = typing.get_type_hints(cls)
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = [key for key in options if key not in known]
        if unknown:
            raise MethodError(f"method {cls.name!r} has no option {shown(unknown[0])}; it has: {', '.join(known)}")
        return {key: _read(key, value, hints[key]) for key, value in options.items()}


def _passes(check: Callable[[Method], object], method: Method) -> bool:
    try:
        check(method)
    except EarlyTomError:
        return False
    return True


_LISTS = {int: "integers like 6/14/20", float: "numbers like 0.5/0.25"}


def _to_text(value: object) -> str:
    if isinstance(value, tuple):
        return "/".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def _read(name: str, value: object, hint: Any) -> Any:
    """Read ``value`` as ``hint``; only text needs reading."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if text.lower() in ("none", "auto") and type(None) in arguments:
            return None
        return _read(name, value, next(kind for kind in arguments if kind is not type(None)))
    if origin is Literal or hint is str:
        return text
    try:
        if origin is tuple:
            return tuple(arguments[0](part) for part in text.replace("-", "/").split("/"))
        if hint is bool:
            return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]
        return hint(text)
    except (ValueError, KeyError):
        kind = hint.__name__ if origin is not tuple else _LISTS.get(arguments[0], "values like a/b/c")
        raise MethodError(f"option {name} cannot be read as {kind}: {shown(value)}") from None
