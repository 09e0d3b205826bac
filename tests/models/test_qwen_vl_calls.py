"""Whole calls of both Qwen-VL families: decoding, batches, images beside videos, and what is refused."""

from __future__ import annotations

import pytest
import torch

import earlytom
from conftest import cache_name
from earlytom.methods import make_method
from earlytom.models import open_model
from earlytom.models.caches import returned_cache
from families import family_case
from families.qwen2_5_vl import VIDEO, clip
from models.qwen_vl_prompts import FAMILIES, INNER, QUARTER, assembled, batch, generate, shared_model, slow_prompt
from reference import qwen_vl as slow

PER_FRAME, WIDTH = 15, 48


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
