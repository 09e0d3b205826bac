"""One call before a module's own: put in, taken out, copied and pickled."""

from __future__ import annotations

import copy
import functools
import pickle

import pytest
import torch
from torch import nn

import earlytom
from earlytom.runtime.shadow import Shadow


def doubled(stock, *args, **kwargs):
    return 2 * stock(*args, **kwargs)


@pytest.fixture
def linear() -> nn.Linear:
    return nn.Linear(3, 3)


ROWS = torch.ones(2, 3)


def test_it_is_met_while_it_is_in(linear) -> None:
    expected, before = linear(ROWS), dict(vars(linear))
    shadow = Shadow(linear, "forward", doubled)
    assert torch.equal(linear(ROWS), expected)
    shadow.put_in()
    assert torch.equal(linear(ROWS), 2 * expected)
    assert torch.equal(linear.forward(input=ROWS), 2 * expected)
    shadow.take_out()
    shadow.take_out()
    assert torch.equal(linear(ROWS), expected)
    assert vars(linear) == before


def test_while_it_is_in_the_module_can_be_neither_copied_nor_pickled(linear) -> None:
    shadow = Shadow(linear, "forward", doubled)
    shadow.put_in()
    for attempt, word in ((lambda: copy.deepcopy(linear), "copied"), (lambda: pickle.dumps(linear), "pickled")):
        with pytest.raises(earlytom.ModelError, match=word):
            attempt()
    shadow.take_out()
    pickle.loads(pickle.dumps(copy.deepcopy(linear)))


def test_what_others_hold_of_it_passes_on_and_can_be_copied_and_pickled(linear) -> None:
    """Each copy passes on to its own module's call."""
    expected = linear(ROWS)
    shadow = Shadow(linear, "forward", doubled)
    shadow.put_in()
    held = linear.forward
    linear.forward = functools.partial(held)
    assert torch.equal(linear(ROWS), 2 * expected)
    shadow.take_out()
    assert torch.equal(linear(ROWS), expected)
    assert torch.equal(held(ROWS), expected)
    for again in (copy.deepcopy(linear), pickle.loads(pickle.dumps(linear)), copy.deepcopy(copy.deepcopy(linear))):
        assert torch.equal(again(ROWS), expected)
        with torch.no_grad():
            again.weight.zero_()
            again.bias.zero_()
        assert not again(ROWS).any()
    assert torch.equal(linear(ROWS), expected)
