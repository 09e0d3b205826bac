"""What both Qwen-VL families must do, against stock and against plain loops."""

from __future__ import annotations

import functools
import importlib

import pytest
import torch

import earlytom
from conftest import cache_name
from earlytom.methods import make_method
from earlytom.models import open_model
from earlytom.models.caches import returned_cache
from earlytom.reduction import Reduction
from earlytom.runtime.encode import encode_videos
from earlytom.runtime.plans import Plans
from earlytom.stages import FrameBatch
from earlytom.trace import Stopwatch
from earlytom.types import EncoderPlan, FrameGrid
from families import family_case
from families.qwen2_5_vl import IMAGE, VIDEO, clip
from reference import qwen_vl as slow
from visitors import Watching, project

FAMILIES = ["qwen2_5_vl", "qwen3_vl"]
FULL = "earlytom:retention=1.0,frame_merging=false"
QUARTER = "earlytom:retention=0.25,merge_layers=1/3/5"
INNER = f"{QUARTER},inner_merging=true,inner_layer=3"
PER_FRAME, WIDTH = 15, 48


@functools.cache
def shared_model(family: str, attention: str = "sdpa", dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    return importlib.import_module(f"families.{family}").build(attention, dtype)


def batch(family: str, samples) -> dict[str, torch.Tensor]:
    inputs = family_case(family).batch(samples)
    if "second_per_grid_ts" in inputs:  # whole seconds: releases of transformers differ in the others
        inputs["second_per_grid_ts"] = inputs["second_per_grid_ts"].ceil()
    return inputs


def generate(model, inputs, method, **options):
    options = {"do_sample": False, "max_new_tokens": 6} | options
    with earlytom.compress(model, method) as trace:
        return model.generate(**inputs, **options), trace


def alone(inputs: dict[str, torch.Tensor], number: int, clips: list[int]) -> dict[str, torch.Tensor]:
    """One sample of a batch, without its padding; ``clips`` are the numbers of its clips in the batch."""
    padding = int((inputs["attention_mask"][number] == 0).sum())
    names = ("input_ids", "attention_mask", "mm_token_type_ids")
    single = {name: inputs[name][number : number + 1, padding:] for name in names}
    if clips:
        parts = inputs["pixel_values_videos"].split(inputs["video_grid_thw"].prod(1).tolist())
        single["pixel_values_videos"] = torch.cat([parts[clip] for clip in clips])
        for name in ("video_grid_thw", "second_per_grid_ts"):
            single |= {name: inputs[name][clips]} if name in inputs else {}
    return single


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


def assembled(model, inputs, method):
    """The shortened prompt, its kept tokens and the trace of its clips."""
    host, method = open_model(model), make_method(method)
    call = host.open(inputs)
    with torch.no_grad():
        kept, traces = encode_videos(call, method, Plans.of(method, host).encoder, Stopwatch(torch.device("cpu")))
        return call.assemble(kept), kept, traces


def runs_of(family: str, inputs, clips: list[int]):
    """Frames, rows, columns and step of each run of placeholders of some clips."""
    for number in clips:
        frames, rows, columns = inputs["video_grid_thw"][number].tolist()
        if family == "qwen3_vl":
            yield from [(1, rows // 2, columns // 2, 0)] * frames
        else:
            yield frames, rows // 2, columns // 2, int(inputs["second_per_grid_ts"][number]) * 2


def slow_prompt(family, inputs, number, clips, kept, images=()):
    """Ids and positions [3, S'] of one sample's shortened prompt, and the whole prompt's positions."""
    ids = inputs["input_ids"][number][inputs["attention_mask"][number].bool()].tolist()
    shapes = [inputs["video_grid_thw"][clip].tolist() for clip in clips]
    whole = slow.positions(ids, runs_of(family, inputs, clips), iter(images))
    counts = [(frames, rows * columns // 4) for frames, rows, columns in shapes]
    places = [sorted(kept[clip].places.tolist()) for clip in clips]
    stay = slow.kept_of_prompt(ids, counts, places, timestamps=family == "qwen3_vl")
    return [ids[place] for place in stay], whole[:, stay], whole


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
    _, (kept,), (trace,) = assembled(model, batch(family, [[clip(12, 0)]]), QUARTER)
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


def recomputed(family, model, inputs, method, new_ids, *, behind_text: bool):
    """Logits of every step for one prompt with one clip; decoding goes on behind its text or its highest position."""
    outside = QUARTER if method == INNER else method if method.startswith("earlytom") else "none"
    prepared, kept, _ = assembled(model, inputs, outside)
    _, positions, whole = slow_prompt(family, inputs, 0, [0], kept)
    visual = list(prepared.visual_positions[0])
    features = kept[0].features[kept[0].places.argsort()]
    added = [(visual, part) for part in features.split(WIDTH, dim=1)[1:]]
    after = int(whole[0, -1] if behind_text else whole.max()) + 1
    return [
        slow.logits_without_cache(
            model, make_method(method), prepared.arguments["inputs_embeds"][0], positions, visual, added,
            new_ids[:step], after,
        )
        for step in range(len(new_ids))
    ]  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("attention", "method"),
    [("sdpa", QUARTER), ("eager", QUARTER), ("sdpa", INNER), ("eager", INNER), ("sdpa", "fastv:layer=2,retention=0.6")],
    ids=["sdpa", "eager", "inner sdpa", "inner eager", "fastv"],
)
def test_cached_decoding_equals_recomputation_without_cache(family, attention, method) -> None:
    model, inputs = shared_model(family, attention), batch(family, [[clip(12, 3)]])
    options = {"max_new_tokens": 20, "return_dict_in_generate": True, "output_logits": True}
    output, _ = generate(model, inputs, method, **options)
    new_ids = output.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    with torch.no_grad():
        expected = recomputed(family, model, inputs, method, new_ids, behind_text=True)
    for logits, wanted in zip(output.logits, expected, strict=True):
        torch.testing.assert_close(logits[0], wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_sampling_is_that_of_the_recomputed_logits_and_of_the_seed(family) -> None:
    model, inputs = shared_model(family), batch(family, [[clip(12, 3)]])
    options = {
        "max_new_tokens": 8, "return_dict_in_generate": True, "output_logits": True, "do_sample": True, "top_k": 0,
        "temperature": 3.0,
    }  # fmt: skip
    outputs = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        outputs.append(generate(model, inputs, QUARTER, **options)[0])
    new_ids = [output.sequences[0, inputs["input_ids"].shape[1] :].tolist() for output in outputs]
    assert new_ids[0] == new_ids[1] != new_ids[2]
    with torch.no_grad():
        expected = recomputed(family, model, inputs, QUARTER, new_ids[0], behind_text=True)
    for logits, wanted in zip(outputs[0].logits, expected, strict=True):
        torch.testing.assert_close(logits[0], wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_decoding_by_hand_goes_on_behind_the_shortened_prompt(family) -> None:
    model, inputs = shared_model(family), batch(family, [[clip(12, 3)]])
    found, new_ids, mask = [], [], inputs["attention_mask"]
    with torch.no_grad(), earlytom.compress(model, QUARTER):
        output = model(**inputs, use_cache=True)
        for _ in range(5):
            found.append(output.logits[0, -1])
            new_ids.append(int(found[-1][:280].argmax()))  # text, not a placeholder
            mask = torch.cat([mask, torch.ones(1, 1, dtype=mask.dtype)], dim=1)
            cache = {cache_name(): returned_cache(output)}
            output = model(input_ids=torch.tensor([new_ids[-1:]]), attention_mask=mask, **cache)
    with torch.no_grad():
        expected = recomputed(family, model, inputs, QUARTER, new_ids, behind_text=False)
    for logits, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["none", QUARTER])
def test_decoding_by_hand_goes_on_where_stock_does(family, method) -> None:
    """The position of the first new token is that of the whole prompt, whichever tokens are left."""
    model, inputs = shared_model(family), batch(family, [[clip(12, 0)], [clip(7, 1)]])
    model.model.rope_deltas = None
    with torch.no_grad():
        model(**inputs)
    lengths = inputs["attention_mask"].sum(1, keepdim=True)
    expected = lengths + model.model.rope_deltas
    model.model.rope_deltas = None
    assert torch.equal(assembled(model, inputs, method)[0].next_position, expected)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", [QUARTER, INNER])
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_batch_equals_single(family, method, options) -> None:
    model = shared_model(family)
    inputs = batch(family, [[clip(12, 0)], [clip(12, 1), clip(6, 2)], []])
    together, _ = generate(model, inputs, method, **options)
    for number, clips in enumerate([[0], [1, 2], []]):
        single, _ = generate(model, alone(inputs, number, clips), method, **options)
        assert single[0, -6:].tolist() == together[number, -6:].tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_images_of_the_same_prompt_are_untouched(family) -> None:
    model = shared_model(family)
    inputs = family_case(family).image(batch(family, [[clip(12, 0)], [clip(12, 1)]]), 0)
    prepared, _, _ = assembled(model, inputs, QUARTER)
    with torch.no_grad():
        output = model.model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"])
    padding = int((prepared.arguments["attention_mask"][0] == 0).sum())
    assert torch.equal(
        prepared.arguments["inputs_embeds"][0, padding + 3 : padding + 9], torch.cat(output.pooler_output)
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_without_video_pass_through(family) -> None:
    model, text = shared_model(family), batch(family, [[], []])
    for inputs in (text, family_case(family).image(text, 0)):
        stock = model.generate(**inputs, do_sample=False, max_new_tokens=4)
        ours, trace = generate(model, inputs, QUARTER, max_new_tokens=4)
        assert torch.equal(stock, ours)
        assert trace.videos == []


def without(inputs, *names):
    return {name: value for name, value in inputs.items() if name not in names}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda inputs: without(inputs, "video_grid_thw"), "without video_grid_thw"),
        (lambda inputs: without(inputs, "input_ids"), "without input_ids"),
        (lambda inputs: without(inputs, "pixel_values_videos"), "pixel_values_videos is missing"),
        (lambda inputs: inputs | {"pixel_values_videos": inputs["pixel_values_videos"][:-4]},
         "must hold the 360 patches"),
        (lambda inputs: inputs | {"input_ids": inputs["input_ids"].clone().masked_fill_(torch.arange(
            inputs["input_ids"].shape[1]) == (inputs["input_ids"][0] == VIDEO).nonzero()[0], 7)},
         "89 video placeholder tokens.*need 90"),
        (lambda inputs: inputs | {"attention_mask": inputs["attention_mask"][:, 1:]}, "attention_mask must have"),
        (lambda inputs: inputs | {"labels": inputs["input_ids"]}, "labels cannot be given"),
    ],
    ids=["grid", "ids", "pixels", "patches", "placeholders", "mask", "labels"],
)  # fmt: skip
def test_wrong_inputs_are_refused_and_the_model_is_left_alone(family, change, message) -> None:
    model, inputs = shared_model(family), batch(family, [[clip(6, 0)]])

    def state():
        hooks = [(len(part._forward_pre_hooks), len(part._forward_hooks)) for part in model.modules()]
        return hooks, {name: id(value) for name, value in model.__dict__.items()}

    before = state()
    with pytest.raises(earlytom.CompressionError, match=message), earlytom.compress(model, INNER), torch.no_grad():
        model(**change(inputs))
    assert state() == before


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("tome:retention=0.5", "tokens cannot merge inside the layers"),
        ("fastvid:retention=0.25", "no attention-pooling head.*scores=received"),
        ("earlytom:merge_layers=2/8", "8 layers"),
        ("earlytom:inner_merging=true,inner_layer=5", "5 layers"),
    ],
)
def test_methods_that_do_not_fit_are_refused(family, method, message) -> None:
    with pytest.raises(earlytom.MethodError, match=message), earlytom.compress(shared_model(family), method):
        pass


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["fastvid:scores=received", "visionzip", "holitom", "prunevid", "dycoke", "random"])
def test_other_methods_keep_their_budget(family, name) -> None:
    method = f"{name}{',' if ':' in name else ':'}retention=0.25"
    _, trace = generate(shared_model(family), batch(family, [[clip(12, 0)]]), method, max_new_tokens=2)
    assert trace.videos[0].tokens == trace.videos[0].budget == 45
    assert trace.last.prefill_tokens < trace.last.prompt_tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_is_left_as_it_was(family) -> None:
    model, inputs = family_case(family).build(), batch(family, [[clip(12, 0)]])
    mark = torch.tensor([[-3]])
    model.model.rope_deltas = mark
    names, inner = set(model.__dict__), set(model.model.__dict__)
    generate(model, inputs, INNER)
    with torch.no_grad(), earlytom.compress(model, QUARTER):
        model(**inputs)
    assert model.model.rope_deltas is mark
    assert (set(model.__dict__), set(model.model.__dict__)) == (names, inner)
    assert not any(part._forward_pre_hooks or part._forward_hooks for part in model.modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_one_clip_for_several_prompts_is_encoded_once(family) -> None:
    model, pixels = shared_model(family), clip(12, 0)
    copies = batch(family, [[pixels]] * 3)
    if "second_per_grid_ts" in copies:
        copies["second_per_grid_ts"] = torch.ones(3)
    shared = copies | {"pixel_values_videos": pixels.flatten(0, 2)[None].expand(3, -1, -1)}
    seen: list[int] = []
    handle = model.model.visual.blocks[0].register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    try:
        together, trace = generate(model, shared, QUARTER)
    finally:
        handle.remove()
    assert seen == [12 * PER_FRAME * 4]
    assert len(trace.videos) == 3
    assert torch.equal(together, generate(model, copies, QUARTER)[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_patches_cut_elsewhere_than_between_clips_are_told_apart_by_their_grids(family) -> None:
    model, clips = shared_model(family, "sdpa"), [clip(1, 0, 4, 4), clip(1, 1, 4, 12)]
    inputs = batch(family, [clips])
    packed = inputs["pixel_values_videos"]
    halves = {**inputs, "pixel_values_videos": packed.view(2, -1, packed.shape[-1])}
    for number in range(2):
        whole, cut = (open_model(model).open(given).pixels([number]) for given in (inputs, halves))
        assert torch.equal(whole, cut)
