"""The block as an object: kept, closed, entered twice, forgotten, lost."""

from __future__ import annotations

import gc
import warnings

import pytest
import torch

import earlytom
from conftest import batch, clip, tiny_model

QUARTER = "earlytom:retention=0.25"


def shadowed(model: torch.nn.Module) -> list[str]:
    return [name for name, part in model.named_modules() if {"forward", "generate"} & set(vars(part))]


def test_a_block_that_nobody_holds_goes_on() -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    trace = earlytom.compress(model, QUARTER).__enter__()
    gc.collect()
    model.generate(**inputs, max_new_tokens=1)
    assert trace.videos[0].tokens == 48
    with pytest.raises(earlytom.ModelError, match=r"already inside .* close\(\)"), earlytom.compress(model, "none"):
        pass


def test_a_model_that_nobody_holds_is_freed_with_its_open_block() -> None:
    import weakref

    model = tiny_model()
    earlytom.compress(model, QUARTER).__enter__()
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


def test_a_block_can_be_kept_and_closed() -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    before = set(vars(model))
    block = earlytom.compress(model, "earlytom:retention=0.25,inner_merging=true")
    trace = block.__enter__()
    assert trace is block.trace
    model.generate(**inputs, max_new_tokens=1)
    assert shadowed(model)
    block.close()
    block.close()
    assert set(vars(model)) == before
    assert shadowed(model) == []
    assert len(trace.calls) == 1
    with earlytom.compress(model, "none"):
        block.close()  # of another one's time: nothing of that ends
        assert shadowed(model)


def test_a_block_serves_once() -> None:
    model = tiny_model()
    block = earlytom.compress(model, QUARTER)
    with block:
        with pytest.raises(earlytom.ModelError, match="entered before"), block:
            pass
        assert shadowed(model)
    with pytest.raises(earlytom.ModelError, match="entered before"):
        block.__enter__()
    assert shadowed(model) == []


def test_a_block_that_could_not_be_entered_may_be_entered_later() -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    waiting = earlytom.compress(model, QUARTER)
    with earlytom.compress(model, "none"), pytest.raises(earlytom.ModelError, match="already inside"):
        waiting.__enter__()
    with waiting as trace:
        model.generate(**inputs, max_new_tokens=1)
    assert trace.videos[0].tokens == 48


def test_a_block_that_was_never_entered_says_so() -> None:
    model = tiny_model()
    with pytest.warns(RuntimeWarning, match="never entered"):
        earlytom.compress(model, QUARTER)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(earlytom.MethodError, match="unknown method"):
            earlytom.compress(model, "no-such-method")
        block = earlytom.compress(model, QUARTER)
        with block:
            pass
        del block
        gc.collect()


def test_misfits_are_told_before_entering() -> None:
    with pytest.raises(earlytom.MethodError, match="merge_layers 99"):
        earlytom.compress(tiny_model(), "earlytom:merge_layers=99")
    with pytest.raises(earlytom.ModelError, match="expected a transformers model"):
        earlytom.compress(torch.nn.Linear(1, 1), QUARTER)


def test_an_error_inside_is_the_users_and_closes_the_block() -> None:
    model = tiny_model()
    with pytest.raises(KeyError, match="theirs"), earlytom.compress(model, QUARTER):
        raise KeyError("theirs")
    assert shadowed(model) == []
