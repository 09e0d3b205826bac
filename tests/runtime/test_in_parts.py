"""Frames that pass the vision encoder some at a time decide and answer as all together do, but for rounding."""

from __future__ import annotations

import pytest
import torch

import earlytom
from conftest import batch, clip, model_with_head, tiny_model
from earlytom import CompressionError
from families import FAMILY_NAMES, family_case

METHODS = ["none", "earlytom:retention=0.25", "earlytom:retention=0.25,preset=paper", "visionzip", "holitom", "random"]


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("method", METHODS)
def test_parts_give_what_the_whole_gives(family, method) -> None:
    case = family_case(family)
    model, inputs = case.build(), case.batch([[case.clip(12, 0), case.clip(12, 2)], [case.clip(12, 1)]])
    found = {}
    for grids in (None, 1, 5, 36, 100):
        with earlytom.compress(model, method, grids_at_once=grids) as trace:
            logits = model(**inputs, use_cache=False).logits
        decided = [(video.sources(), video.kept_tokens()) for video in trace.videos]
        found[grids] = logits, decided
        torch.testing.assert_close(logits, found[None][0], atol=1e-4, rtol=1e-4)
        assert decided == found[None][1]
    assert torch.equal(found[36][0], found[None][0])


@pytest.mark.parametrize("family", FAMILY_NAMES)
@torch.no_grad()
def test_without_gradients_what_is_set_aside_behind_a_merge_layer_stays_as_it_was(family) -> None:
    """Parts are then written over the batch that they were cut from, DeepStack features of its last layer included."""
    case = family_case(family)
    model, inputs, found = case.build(), case.batch([[case.clip(12, 0)]]), []
    for grids in (None, 5):
        with earlytom.compress(model, "earlytom:retention=0.25,merge_layers=1/3/5", grids_at_once=grids):
            found.append(model(**inputs).logits)
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)


def test_the_pooling_head_sees_all_parts() -> None:
    model, inputs = model_with_head(), batch([[clip(12, 0)]])
    logits = []
    for grids in (None, 5):
        with earlytom.compress(model, "fastvid:retention=0.25", grids_at_once=grids):
            logits.append(model(**inputs).logits)
    torch.testing.assert_close(*logits, atol=1e-4, rtol=1e-4)


def test_the_pooling_head_sees_what_is_left_behind_a_merge_after_the_last_layer() -> None:
    model, inputs = model_with_head(), batch([[clip(12, 0)]])
    merging = earlytom.EarlyTom(merge_layers=(7,), compat="official", tau_seg=0.0)
    method = earlytom.compose(merging, "fastvid", retention=0.25)
    found = []
    for grids in (None, 5):
        with earlytom.compress(model, method, grids_at_once=grids) as trace:
            found.append(model(**inputs).logits)
        assert trace.videos[0].temporal_grids_left < 12
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)


def test_no_layer_gets_more_than_was_asked_for() -> None:
    model, seen = tiny_model(), []
    layers = model.model.vision_tower.encoder.layers
    handles = [layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[0])) for layer in layers]
    with earlytom.compress(model, "earlytom", grids_at_once=4):
        model(**batch([[clip(12, 0)], [clip(12, 1)]]))
    assert max(seen) == 4
    for handle in handles:
        handle.remove()


def test_prepare_takes_parts_too() -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    whole, parts = (earlytom.prepare(model, inputs, "earlytom", grids_at_once=grids) for grids in (None, 5))
    torch.testing.assert_close(whole.arguments["inputs_embeds"], parts.arguments["inputs_embeds"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("grids", [0, -1, 2.0, True, "4"])
def test_only_numbers_of_grids_are_taken(grids) -> None:
    model = tiny_model()
    with pytest.raises(CompressionError, match="grids_at_once must be an integer of at least 1, or None for all, got"):
        earlytom.compress(model, "earlytom", grids_at_once=grids)
    with pytest.raises(CompressionError, match="grids_at_once must be an integer"):
        earlytom.prepare(model, batch([[clip(12, 0)]]), "earlytom", grids_at_once=grids)


def test_merged_tokens_refuse_parts() -> None:
    with pytest.raises(CompressionError, match=r"grids_at_once \(4\) does not go with a method that merges tokens"):
        earlytom.compress(tiny_model(), "tome:retention=0.5", grids_at_once=4)
