"""What both Qwen-VL families must do, against stock and against plain loops."""

from __future__ import annotations

import pytest
import torch

import earlytom
from earlytom.models import open_model
from earlytom.reduction import Reduction
from earlytom.stages import FrameBatch
from earlytom.types import EncoderPlan, FrameGrid
from families import family_case
from families.qwen2_5_vl import IMAGE, VIDEO, clip
from models.qwen_vl_prompts import FAMILIES, QUARTER, assembled, batch, generate, shared_model, slow_prompt
from reference import qwen_vl as slow
from visitors import Watching, project

FULL = "earlytom:retention=1.0,frame_merging=false"
PER_FRAME, WIDTH = 15, 48


def grids_of(*clips: torch.Tensor) -> list[FrameGrid]:
    return [FrameGrid(frames=c.shape[0], rows=c.shape[1] // 2, columns=c.shape[2] // 2) for c in clips]


def encode(model, visitor, *clips: torch.Tensor) -> FrameBatch:
    """What leaves the last layer; all clips have one size."""
    grids = grids_of(*clips)
    tower = open_model(model).tower(grids[0])
    batch = tower.embed(torch.cat([one.flatten(1, 2) for one in clips]), tuple(grid.frames for grid in grids))
    return tower.run(batch, range(tower.depth), visitor)


class Merging(Watching):
    """Merges frames as told, after some layers."""

    def __init__(self, merges: dict[int, slow.Merge]) -> None:
        super().__init__(EncoderPlan(merge_layers=tuple(sorted(merges))))
        self._merges = merges

    def after_layer(self, layer, batch):
        super().after_layer(layer, batch)
        if layer not in self._merges:
            return batch
        reduction = Reduction.from_rows([list(row.items()) for row in self._merges[layer]], batch.hidden.shape[0])
        return batch.changed(reduction.apply, (reduction.outputs,))


def deepstack_of(model) -> list[int]:
    return sorted(getattr(model.config.vision_config, "deepstack_visual_indexes", []))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_own_loop_is_bit_identical_to_stock(family, attention) -> None:
    model = shared_model(family, attention)
    clips, visitor = [clip(6, 0), clip(4, 1)], Watching()
    inputs = batch(family, [clips])
    with torch.no_grad():
        tokens = project(model, encode(model, visitor, *clips), grids_of(*clips)[0])
        stock = model.model.get_video_features(inputs["pixel_values_videos"], inputs["video_grid_thw"])
    assert torch.equal(tokens[..., :WIDTH].flatten(0, 1), torch.cat(list(stock.pooler_output)))
    assert visitor.layers == [(layer, (10, PER_FRAME * 4, 32)) for layer in range(8)]
    further = [part if torch.is_tensor(part) else torch.cat(part) for part in getattr(stock, "deepstack_features", [])]
    assert tokens.shape[-1] == WIDTH * (1 + len(deepstack_of(model))) == WIDTH * (1 + len(further))
    for number, features in enumerate(further, 1):
        assert torch.equal(tokens[..., number * WIDTH : (number + 1) * WIDTH].flatten(0, 1), features)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_clips_of_different_sizes_equal_stock(family, attention) -> None:
    model = shared_model(family, attention)
    inputs = batch(family, [[clip(3, 0), clip(4, 1, 8, 6)], [clip(2, 2)]])
    with torch.no_grad():
        plain = model(**inputs).logits
        with earlytom.compress(model, "none"):
            torch.testing.assert_close(model(**inputs).logits, plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_received_attention_and_keys_equal_those_of_plain_loops(family) -> None:
    model, pixels, layer = shared_model(family), clip(4, 0), 5
    visitor = Watching(EncoderPlan(attention_layer=layer, keys=True))
    with torch.no_grad():
        encode(model, visitor, pixels)
        for number, frame in enumerate(pixels):
            maps, keys = slow.attention_maps(model, frame, layer)
            torch.testing.assert_close(visitor.attention[number], maps.mean(dim=(0, 1)), atol=1e-6, rtol=1e-4)
            torch.testing.assert_close(visitor.keys[number], keys, atol=1e-5, rtol=1e-4)
    assert visitor.attention.dtype == visitor.keys.dtype == torch.float32
    torch.testing.assert_close(visitor.attention.sum(1), torch.ones(4))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "merges",
    [
        {3: [{0: 1.0}, {2: 1.0}, {5: 1.0}]},
        {1: [{0: 0.25, 1: 0.75}, {2: 1.0}, {3: 0.5, 4: 0.5}, {5: 1.0}], 5: [{0: 1.0}, {1: 0.5, 3: 0.5}]},
        {7: [{0: 0.5, 5: 0.5}]},
    ],
    ids=["frames leave", "frames merge", "behind the last layer"],
)
def test_frames_that_leave_or_merge_equal_encoding_frame_by_frame(family, merges) -> None:
    model, pixels, aside = shared_model(family), clip(6, 0), deepstack_of(shared_model(family))
    with torch.no_grad():
        batch = encode(model, Merging(merges), pixels)
        hidden = torch.cat([batch.hidden, *batch.others], dim=-1)
        expected = [torch.cat(states, dim=-1) for states in slow.encode(model, pixels, merges, aside)]
    torch.testing.assert_close(hidden, torch.stack(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("method", ["none", FULL])
def test_full_retention_is_bit_identical(family, attention, method) -> None:
    model = shared_model(family, attention)
    inputs = batch(family, [[clip(6, 0), clip(4, 1)], [clip(5, 2)]])
    inputs = family_case(family).image(inputs, 1)
    options = {"return_dict_in_generate": True, "output_logits": True, "do_sample": False, "max_new_tokens": 4}
    with torch.no_grad():
        plain = model(**inputs).logits
        with earlytom.compress(model, method):
            assert torch.equal(model(**inputs).logits, plain)
    stock = model.generate(**inputs, **options)
    ours, _ = generate(model, inputs, method, **options)
    assert torch.equal(stock.sequences, ours.sequences)
    assert all(torch.equal(first, second) for first, second in zip(stock.logits, ours.logits, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_is_bit_identical_at_full_retention_and_runs_below(family) -> None:
    model = shared_model(family, dtype=torch.bfloat16)
    inputs = batch(family, [[clip(6, 0)]])
    inputs["pixel_values_videos"] = inputs["pixel_values_videos"].bfloat16()
    with torch.no_grad():
        plain = model(**inputs).logits
        with earlytom.compress(model, FULL):
            assert torch.equal(model(**inputs).logits, plain)
    output, trace = generate(model, inputs, QUARTER)
    assert output.shape[1] == inputs["input_ids"].shape[1] + 6
    assert trace.videos[0].tokens == round(6 * PER_FRAME * 0.25)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "method", [QUARTER, "uniform:retention=0.1", "visionzip:retention=0.2", "holitom:retention=0.1"]
)
def test_kept_tokens_keep_their_positions(family, method) -> None:
    """Two samples of unequal length, several clips of different sizes and an image; nothing is left of some frames."""
    model = shared_model(family)
    inputs = batch(family, [[clip(12, 0), clip(5, 1, 8, 6)], [clip(12, 2)]])
    inputs = family_case(family).image(inputs, 1)
    prepared, kept, _ = assembled(model, inputs, method)
    mask, found = prepared.arguments["attention_mask"].bool(), prepared.arguments["position_ids"]
    embeddings = model.get_input_embeddings()
    for number, (clips, images) in enumerate([([0, 1], []), ([2], [(2, 3)])]):
        ids, positions, whole = slow_prompt(family, inputs, number, clips, kept, images)
        assert torch.equal(found[1:, number, mask[number]], positions)
        assert found[0, number, mask[number]].tolist() == list(range(len(ids)))
        assert prepared.next_position[number].item() == int(whole.max()) + 1
        assert prepared.dropped[number] == whole.shape[1] - len(ids)
        padding = int((~mask[number]).sum())
        assert not mask[number, :padding].any()
        videos = [place for place, token in enumerate(ids) if token == VIDEO]
        assert prepared.visual_positions[number] == tuple(place + padding for place in videos)
        embeds = prepared.arguments["inputs_embeds"][number, padding:]
        features = torch.cat([kept[clip].features[kept[clip].places.cpu().argsort()] for clip in clips])
        assert torch.equal(embeds[videos], features[:, :WIDTH])
        text = [place for place, token in enumerate(ids) if token not in (VIDEO, IMAGE)]
        assert torch.equal(embeds[text], embeddings(torch.tensor([ids[place] for place in text])))


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_frames_take_the_place_of_their_earliest(family) -> None:
    model = shared_model(family)
    merging = f"{QUARTER},least_frames=0.3,tau_seg=0.3"  # by default pairs of frames merge with none but equal ones
    _, (kept,), (trace,) = assembled(model, batch(family, [[clip(12, 0)]]), merging)
    assert trace.frames_left < 12
    first = [min(sources) for sources in trace.sources()]
    expected = [first[frame] * PER_FRAME + token for frame, token in trace.kept_tokens()]
    assert kept.places.tolist() == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_positions_of_the_caller_are_kept_too(family) -> None:
    model, inputs = shared_model(family), batch(family, [[clip(12, 0)]])
    given = torch.arange(inputs["input_ids"].shape[1]).expand(3, 1, -1) * torch.tensor([2, 3, 5])[:, None, None]
    prepared, kept, _ = assembled(model, inputs | {"position_ids": given}, QUARTER)
    ids = inputs["input_ids"][0].tolist()
    stay = slow.kept_of_prompt(ids, [(12, PER_FRAME)], [kept[0].places.tolist()], timestamps=family == "qwen3_vl")
    assert torch.equal(prepared.arguments["position_ids"][1:], given[:, :, stay])
    with pytest.raises(earlytom.CompressionError, match="position_ids must be"):
        assembled(model, inputs | {"position_ids": given[0]}, QUARTER)
