"""What every family's host, call and tower give, whichever family it is."""

from __future__ import annotations

import functools
import inspect

import pytest
import torch

from earlytom.models import open_model
from earlytom.models.base import Tower, VideoCall
from earlytom.types import EncoderPlan
from families import FAMILY_NAMES, family_case
from visitors import Watching

LENGTHS = [4, 4, 4]
WITH_IMAGES = [name for name in FAMILY_NAMES if family_case(name).image is not None]


@functools.cache
def shared_model(family: str) -> torch.nn.Module:
    return family_case(family).build()


def call_of(family: str, image: bool = False) -> VideoCall:
    """Two samples with three clips of one size, and an image before the third where that is asked for."""
    case = family_case(family)
    clips = [case.clip(frames, seed) for seed, frames in enumerate(LENGTHS)]
    inputs = case.batch([clips[:2], clips[2:]])
    return open_model(shared_model(family)).open(case.image(inputs, 1) if image else inputs)


def tower_of(call: VideoCall) -> Tower:
    return call.host.tower(call.grids[0])


@pytest.mark.parametrize(
    ("family", "image"), [*((name, False) for name in FAMILY_NAMES), *((name, True) for name in WITH_IMAGES)]
)
@pytest.mark.parametrize("clips", [[0, 1, 2], [0], [1], [2], [0, 2], [1, 2]], ids=str)
def test_the_frames_of_any_clips_are_those_that_were_given(family, image, clips) -> None:
    found = call_of(family, image).pixels(clips)
    given = [family_case(family).clip(LENGTHS[clip], clip) for clip in clips]
    assert found.shape[0] == sum(LENGTHS[clip] for clip in clips)
    assert torch.equal(found.flatten(), torch.cat(given).flatten())


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_tower_needs_no_prompt_and_can_be_run_some_layers_at_a_time(family) -> None:
    call = call_of(family)
    tower, plan = tower_of(call), EncoderPlan(attention_layer=call.host.shape.last_global_layer, keys=True)
    whole, split = Watching(plan), Watching(plan)
    with torch.no_grad():
        entering = tower.embed(call.pixels([0, 1, 2]), tuple(LENGTHS))
        last = tower.run(entering, range(tower.depth), whole)
        batch = entering
        for layers in (range(3), range(3, 4), range(4, tower.depth)):
            batch = tower.run(batch, layers, split)
        assert torch.equal(tower.project(batch), tower.project(last))
    assert [layer for layer, _ in whole.layers] == list(range(tower.depth))
    assert whole.layers == split.layers
    assert torch.equal(whole.attention, split.attention)
    assert torch.equal(whole.keys, split.keys)
    assert batch.grids_per_clip == tuple(LENGTHS)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_features_of_all_clips_are_those_of_stock(family) -> None:
    """In the order in which stock puts them into the prompt, where newlines may stand between them."""
    case, call = family_case(family), call_of(family)
    tower = tower_of(call)
    with torch.no_grad():
        batch = tower.run(tower.embed(call.pixels([0, 1, 2]), tuple(LENGTHS)), range(tower.depth), Watching())
        features = tower.project(batch)
        stock = iter(case.stock_features(call.model, call.inputs))
    grid, width = call.grids[0], call.model.get_input_embeddings().weight.shape[1]
    assert features.shape == (12, grid.tokens_per_frame, width * call.host.shape.feature_sets)
    for row in features[..., :width].flatten(0, 1):
        assert any(torch.equal(found, row) for found in stock)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_scores_are_pooled_to_the_grid_of_features(family) -> None:
    call = call_of(family)
    tower, visitor = tower_of(call), Watching()
    with torch.no_grad():
        tower.run(tower.embed(call.pixels([0]), (4,)), range(1), visitor)
    ((_, (frames, patches, _)),) = visitor.layers
    ones = tower.pool_attention(torch.ones(frames, patches))
    torch.testing.assert_close(ones, torch.ones(frames, call.grids[0].tokens_per_frame))


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_what_a_family_gives_is_whole(family) -> None:
    call = call_of(family)
    assert not any(inspect.isabstract(type(part)) for part in (call.host, call, tower_of(call)))
    assert call.grids is call.grids
    assert call.host.shape.depth == tower_of(call).depth
    assert len(call.host.language.layers) == len(call.model.model.language_model.layers)
    assert not call.repeats_one_clip
