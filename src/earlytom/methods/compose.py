"""Methods made of the stages of others: one merges frames in the encoder, another selects tokens, a third acts inside
the language model.

Who supplies which stage, unless it is said (``@`` in the grammar, or the fields of `Composition`):

- **tokens**: the last part that selects tokens: what is written behind ``earlytom`` replaces its selection.
- **encoder**, **llm**: the one part that acts there. Two are refused: one would be dropped, and what it does there may
  be what makes it. Of ``earlytom+tome`` nothing of ToMe would be left but its second step, the merging of pooled
  tokens. That step is a method of its own kind on any frames, so who wants just it can have it by saying so:
  ``earlytom@encoder+tome@tokens``.

A part that would supply nothing is refused, as is one that is told to supply what another one supplies, and a pair of
which one needs what the other does away with.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from earlytom.errors import MethodError
from earlytom.methods.base import Method
from earlytom.types import Decision, EncoderPlan, EncoderShape, LanguagePlan, Stage

if TYPE_CHECKING:
    from earlytom.reduction import Reduction
    from earlytom.types import CellStates, FrameGrid, FrameStates, LanguageStates, TokenStates, VisualTokens

__all__ = ["Composition", "compose", "compose_stages"]

# What the encoder stage asks of the encoder; everything else in an EncoderPlan is for the token stage.
_ENCODER_STAGE_FIELDS = (
    "merge_layers",
    "merge_similarity",
    "token_similarity",
    "token_layers",
    "proportional_attention",
    "unmerge",
    "cell_layer",
    "cell_attention",
    "cell_similarity",
)
_WHERE: dict[Stage, str] = {"encoder": "inside the vision encoder", "llm": "inside the language model"}

_Supplying = tuple[Method, tuple[Stage, ...]]
_Assigned = tuple[Method, tuple[Stage, ...] | None]


def compose(*parts: Method | str, retention: float | None = None, visual_tokens: int | None = None) -> Composition:
    """Make one method of the stages of several, such as ``compose(EarlyTom(), VisionZip(), retention=0.2)``.

    Args:
        parts: methods or their names, at least two; see the module for which part supplies which stage.
        retention: visual tokens that the language model gets, over those it would have got, in (0, 1]; it replaces
            that of the parts, except of one that acts in the language model alone (its retention is about the tokens
            that it is given). ``None``: that of the part that selects tokens.
        visual_tokens: instead of ``retention``, the number of visual tokens that the language model gets of every clip;
            likewise.

    Raises:
        MethodError: the parts cannot go together; the message names them.
    """
    from earlytom.methods import make_method

    if len(parts) < 2:
        raise MethodError(f"compose takes at least two methods, got {len(parts)}")
    supplied: list[_Assigned] = []
    for part in map(make_method, parts):
        supplied.extend(part.parts() if isinstance(part, Composition) else [(part, None)])
    return compose_stages(supplied, retention, visual_tokens)


def compose_stages(
    parts: Sequence[_Assigned], retention: float | None = None, visual_tokens: int | None = None
) -> Composition:
    """`compose` for parts of which some are told which stages to supply, at most."""
    name = "+".join(part.name for part, _ in parts)
    stages: tuple[Stage, ...] = get_args(Stage)
    acting = {stage: [part for part, assigned in parts if stage in _supplied(part, assigned)] for stage in stages}
    suppliers = {stage: found[-1] if stage == "tokens" else found[0] for stage, found in acting.items() if found}
    _check_alone(name, "llm", acting["llm"])
    for part, assigned in parts:
        if not any(supplier is part for supplier in suppliers.values()):
            raise MethodError(_supplies_nothing(name, part, assigned, suppliers))
    selecting = suppliers.get("tokens", suppliers.get("encoder"))
    if retention is None and visual_tokens is None and selecting is not None:
        retention, visual_tokens = selecting.retention, selecting.visual_tokens
    whole = Composition(
        encoder=suppliers.get("encoder"),
        tokens=suppliers.get("tokens"),
        llm=suppliers.get("llm"),
        retention=retention,
        visual_tokens=visual_tokens,
    )
    # Behind what else is wrong with the pair: where it can go together no way, that is what should be said.
    _check_alone(name, "encoder", acting["encoder"])
    return whole


def _supplied(part: Method, assigned: Sequence[Stage] | None) -> Sequence[Stage]:
    return part.active_stages if assigned is None else assigned


def _check_alone(name: str, stage: Stage, acting: Sequence[Method]) -> None:
    """Raise `MethodError` where two parts act in a stage; it says how to write whose the stage is to be."""
    if len(acting) < 2:
        return
    first, second = acting[:2]
    raise MethodError(
        f"{name}: {first.name} and {second.name} both act {_WHERE[stage]}, and what {second.name} does there would be "
        f"dropped; switch one of them off there{_ways_out(stage, first, second)}"
    )


def _ways_out(stage: Stage, first: Method, second: Method) -> str:
    """How to write whose a stage is to be, where both parts are left with one."""
    others = [other for other in second.active_stages if other != stage] or [stage]
    kept = [other for other in first.active_stages if other not in others]
    written = f"{_head(first, kept)}+{_head(second, others)}"
    return f", or say which stages each is to supply, as in {written}" if kept else ", or leave it out"


def _supplies_nothing(name: str, part: Method, assigned: Sequence[Stage] | None, suppliers: dict[Stage, Method]) -> str:
    taken = [f"{stage} is supplied by {suppliers[stage].name}" for stage in _supplied(part, assigned)]
    none = "as it is set up it acts in no stage" if part.stages else "its class declares no stages"
    return f"{name}: {part.name} would do nothing: {', '.join(taken) or none}"


@dataclass(frozen=True, kw_only=True)
class Composition(Method):
    """Stage I of one method, stage II of another, stage III of another.

    `compose` and ``name+name`` make it; made by hand its fields say who supplies which stage. The budget, and whether
    it is exact, are those of the part that selects tokens, and its floor holds for the frames that another part
    merges.

    Attributes:
        retention: visual tokens that the language model gets, over those it would have got, in (0, 1]; the parts that
            bring the tokens down are set to it, or to ``visual_tokens``.
        encoder: who merges inside the vision encoder, or ``None``.
        tokens: who selects tokens before the language model, or ``None`` where ``encoder`` leaves few enough.
        llm: who acts inside the language model, or ``None``.

    Raises:
        MethodError: a part does not act in its stage, or two cannot go together.
    """

    encoder: Method | None = None
    tokens: Method | None = None
    llm: Method | None = None

    default_retention: ClassVar[float] = 0.25

    def __post_init__(self) -> None:
        parts = self.parts()
        object.__setattr__(self, "name", "+".join(part.name for part, _ in parts))
        super().__post_init__()
        self._check_stages(parts)
        self._check_pairs(parts)
        for part, supplied in parts:
            given = part if supplied == ("llm",) else self._with_amount(part, supplied)
            for stage in supplied:
                object.__setattr__(self, stage, given)

    def _with_amount(self, part: Method, supplied: Sequence[Stage]) -> Method:
        """A part set to what the whole is to keep."""
        if self.visual_tokens is not None and "tokens" not in supplied and part.no_visual_tokens is not None:
            # Whether it could keep to a number of tokens plays no part: another one selects.
            return part
        return replace(part, retention=self.retention, visual_tokens=self.visual_tokens)

    def _check_stages(self, parts: Sequence[_Supplying]) -> None:
        for part, supplied in parts:
            missing = [stage for stage in supplied if stage not in part.active_stages]
            if missing:
                raise MethodError(
                    f"{part.name} cannot supply stage {missing[0]!r}: as it is set up it acts in: "
                    f"{', '.join(part.active_stages) or 'none'}"
                )

    def _check_pairs(self, parts: Sequence[_Supplying]) -> None:
        names = [part.name for part, _ in parts]
        if len(set(names)) != len(names):
            raise MethodError(f"{self.name}: the stages of one method must come from one and the same instance of it")
        if self.tokens is None and (self.encoder is None or "tokens" in self.encoder.stages):
            raise MethodError(
                f"{self.name or 'a composition'}: no part selects tokens before the language model, so "
                f"{' '.join(*self.amount_options().items())} would not be reached; add one, such as visionzip"
            )
        if self.tokens is None or self.encoder is None or self.encoder == self.tokens:
            return
        lost = sorted(self.tokens.needs & self.encoder.breaks)
        if lost:
            raise MethodError(
                f"{self.encoder.name} and {self.tokens.name} cannot go together: {self.tokens.name} needs "
                f"{' and '.join(lost)}, which {self.encoder.name} does away with inside the vision encoder"
            )

    def parts(self) -> list[_Supplying]:
        """The methods this one is made of, each with the stages that it supplies."""
        parts: list[Method] = []
        for part in (self.encoder, self.tokens, self.llm):
            if part is not None and part not in parts:
                parts.append(part)
        return [(part, tuple(stage for stage in get_args(Stage) if getattr(self, stage) == part)) for part in parts]

    @property
    def _selecting(self) -> Method:
        """The part that brings the number of tokens down to the budget."""
        part = self.encoder if self.tokens is None else self.tokens
        if part is None:
            raise MethodError("a composition without a part that selects tokens cannot be used")
        return part

    @property
    def active_stages(self) -> tuple[Stage, ...]:
        return tuple(stage for stage in get_args(Stage) if getattr(self, stage) is not None)

    @property
    def exact_budget(self) -> bool:
        return self._selecting.exact_budget

    @property
    def no_visual_tokens(self) -> str | None:
        # Without any part that selects nothing can be said; that is refused by itself.
        part = self.encoder if self.tokens is None else self.tokens
        return None if part is None else part.no_visual_tokens

    def steps_aside(self, grid: FrameGrid) -> str | None:
        return self._selecting.steps_aside(grid)

    def budget(self, grid: FrameGrid) -> int:
        return self._selecting.budget(grid)

    def encoder_plan(self, encoder: EncoderShape) -> EncoderPlan:
        merging = EncoderPlan() if self.encoder is None else self.encoder.encoder_plan(self._offered(encoder))
        if self.tokens is None:
            return merging
        if merging.token_layers and not merging.unmerge and self.encoder is not self.tokens:
            raise MethodError(f"{self.name}: merged tokens that leave the encoder unpooled cannot be selected from")
        if merging.cell_layer is not None and "whole grid" in self.tokens.needs:
            raise MethodError(
                f"{self.name}: {self.tokens.name} needs whole temporal grids, of each of which only some cells go on"
            )
        selecting = self.tokens.encoder_plan(encoder)
        asked = {name: getattr(merging, name) for name in _ENCODER_STAGE_FIELDS}
        return replace(selecting, similarity_span=_widest_span(merging, selecting), **asked)

    def _offered(self, encoder: EncoderShape) -> EncoderShape:
        """The encoder as the part in it may use it: what can do without cells going on alone then does."""
        whole = self.tokens is not None and self.tokens is not self.encoder and "whole grid" in self.tokens.needs
        return replace(encoder, cells=False) if whole and self._does_without_cells(encoder) else encoder

    def _does_without_cells(self, encoder: EncoderShape) -> bool:
        """Whether the part in the encoder can do without cells going on alone."""
        part = self.encoder
        return part is None or part.encoder_plan(replace(encoder, cells=False)).cell_layer is None

    def substitutes(self) -> dict[str, Method]:
        made: dict[str, Method] = {}
        for part, supplied in self.parts():
            for advice, substitute in part.substitutes().items():
                stages: dict[str, Any] = dict.fromkeys(supplied, substitute)
                with suppress(MethodError):
                    made[advice] = replace(self, **stages)
        return made

    def merge_frames(self, states: FrameStates, layer: int, floor: int) -> Decision:
        if self.encoder is None:
            return Decision()
        decision = self.encoder.merge_frames(states, layer, floor)
        if decision.reduction is not None and decision.reduction.outputs < floor and self.exact_budget:
            # A part whose own budget is loose may ignore the floor; the part that selects could not fill its budget.
            reason = f"{decision.reduction.outputs} frames would be left, {floor} are needed for the budget"
            return Decision(details={**decision.details, "not_merged": reason})
        return decision

    def cells_kept(self, grid: FrameGrid) -> int | None:
        return None if self.encoder is None else self.encoder.cells_kept(grid)

    def select_cells(self, states: CellStates, budget: int) -> Decision:
        return Decision() if self.encoder is None else self.encoder.select_cells(states, budget)

    def merge_tokens(self, states: TokenStates, layer: int) -> Reduction | None:
        return None if self.encoder is None else self.encoder.merge_tokens(states, layer)

    def select_tokens(self, tokens: VisualTokens, budget: int) -> Decision:
        return Decision() if self.tokens is None else self.tokens.select_tokens(tokens, budget)

    def llm_plan(self, depth: int) -> LanguagePlan:
        return LanguagePlan() if self.llm is None else self.llm.llm_plan(depth)

    def reduce_in_llm(self, states: LanguageStates, layer: int) -> Reduction | None:
        return None if self.llm is None else self.llm.reduce_in_llm(states, layer)

    def deciding_methods(self) -> list[Method]:
        return [part for part, _ in self.parts()]

    def describe(self) -> str:
        """The parts with the stages they supply: ``earlytom@encoder+visionzip@tokens:retention=0.2``."""
        *others, (last, supplied) = self.parts()
        written = [_with_options(_head(part, stages), _own_options(part, stages)) for part, stages in others]
        taken = {knob.name for part, _ in others for knob in fields(part)}
        own = {
            f"{last.name}.{knob}" if knob in taken else knob: text
            for knob, text in _own_options(last, supplied).items()
        }
        return "+".join([*written, _with_options(_head(last, supplied), self.amount_options() | own)])


def _widest_span(merging: EncoderPlan, selecting: EncoderPlan) -> int | None:
    """How far apart the temporal grids are whose similarities either stage reads."""
    spans = [merging.similarity_span] if merging.merge_similarity or merging.cell_similarity else []
    spans += [selecting.similarity_span] if selecting.frame_similarity else []
    known = [span for span in spans if span is not None]
    return max(known) if known and len(known) == len(spans) else None


def _head(part: Method, stages: Sequence[Stage]) -> str:
    return f"{part.name}@{'/'.join(stages)}"


def _with_options(head: str, options: dict[str, str]) -> str:
    return head + (":" + ",".join(f"{knob}={text}" for knob, text in options.items()) if options else "")


def _own_options(part: Method, stages: tuple[Stage, ...]) -> dict[str, str]:
    """What is to be written with a part; its retention only where that is not the whole's and says something."""
    changed = part.changed_options()
    retention = changed.pop("retention", str(part.retention))
    changed.pop("visual_tokens", None)
    return {"retention": retention} | changed if stages == ("llm",) and part.retention != 1.0 else changed
