"""What a call must do once is done once: its prompt is read, and its method asked what it wants from the model."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import Any, ClassVar

import pytest
from torch import Tensor

import earlytom
from earlytom.layouts.pictures import read_pictures
from earlytom.layouts.prompt import HostPrompt
from earlytom.models import open_model
from families import FAMILY_NAMES, family_case

CALLS = 3


class Asked(earlytom.EarlyTom):
    """The default method, which notes when it is asked for a plan."""

    plans: ClassVar[Counter[str]] = Counter()

    def encoder_plan(self, encoder):
        self.plans["encoder"] += 1
        return super().encoder_plan(encoder)

    def llm_plan(self, depth):
        self.plans["language model"] += 1
        return super().llm_plan(depth)


@pytest.fixture(autouse=True)
def no_plans_yet() -> None:
    Asked.plans.clear()


@contextmanager
def counted(functions: dict[str, Callable[..., Any]]) -> Iterator[Counter[str]]:
    """How often functions run inside the block, by name, whichever module has imported them under whichever name."""
    names = {getattr(function, "__func__", function).__code__: name for name, function in functions.items()}
    found: Counter[str] = Counter()

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code in names:
            found[names[frame.f_code]] += 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(before)


def readers(family: str, model: Any, inputs: dict[str, Tensor]) -> dict[str, Callable[..., Any]]:
    """What reads a prompt of a family, and what makes the rotary tables and windows of its frames."""
    host = open_model(model)
    call = host.open(inputs)
    found = {"host prompt": HostPrompt.of, "grids": type(call).read_grids}
    tower = type(host.tower(call.grids[0]))
    return (
        found
        | ({"pictures": read_pictures} if family == "internvl" else {})
        | ({"layouts": tower.make_layout} if hasattr(tower, "make_layout") else {})
    )


def generate(model, inputs) -> None:
    model.generate(**inputs, do_sample=False, max_new_tokens=2)


def forward(model, inputs) -> None:
    model(**inputs, use_cache=False)


@pytest.mark.parametrize("serve", [generate, forward])
@pytest.mark.parametrize("method", [Asked(), Asked(inner_merging=True, inner_layer=3)], ids=["before", "inside"])
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_the_prompt_is_parsed_once_a_call_and_each_plan_made_once_a_block(family, method, serve) -> None:
    case = family_case(family)
    model, clips = case.build(), [case.clip(6, 0), case.clip(6, 1)]
    inputs = case.batch([clips])
    reading = readers(family, model, inputs)
    with counted(reading) as read, earlytom.compress(model, method) as trace:
        for _ in range(CALLS):
            serve(model, inputs)
    assert [len(call.videos) for call in trace.calls] == [2] * CALLS
    assert read == dict.fromkeys(reading, CALLS)
    assert Asked.plans == {"encoder": 1, "language model": 1}


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_preparing_parses_the_prompt_once_and_makes_each_plan_once(family) -> None:
    case = family_case(family)
    model, inputs = case.build(), case.batch([[case.clip(6, 0)], [case.clip(6, 1)]])
    reading = readers(family, model, inputs)
    # What Qwen3-VL's language model gets besides is found out behind the assembly.
    refused = pytest.raises(earlytom.ModelError, match=r"which prepare\(\) cannot hand over")
    with counted(reading) as read, refused if family == "qwen3_vl" else nullcontext():
        earlytom.prepare(model, inputs, Asked())
    assert read == dict.fromkeys(reading, 1)
    assert Asked.plans == {"encoder": 1, "language model": 1}
