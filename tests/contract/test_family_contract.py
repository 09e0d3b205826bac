"""What every model family must do: one suite over all of them, on tiny models built from configurations."""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from functools import cache

import pytest
import torch

import earlytom
from conftest import cache_name
from earlytom.models.caches import returned_cache
from families import FAMILY_NAMES, family_case

NEW = 20
FULL = "earlytom:retention=1.0,frame_merging=false"
QUARTER = "earlytom:retention=0.25"
IN_LANGUAGE_MODEL = "earlytom:retention=0.5,inner_merging=true,inner_layer=3"

pytestmark = pytest.mark.parametrize("family", FAMILY_NAMES)


@cache
def built(family: str, attention: str = "sdpa") -> torch.nn.Module:
    return family_case(family).build(attention)


def prompts(family: str, *samples: int, frames: int = 6) -> dict[str, torch.Tensor]:
    """One sample for each number, with as many clips."""
    case, seed, made = family_case(family), 0, []
    for clips in samples:
        made.append([case.clip(frames, seed + number) for number in range(clips)])
        seed += clips
    return case.batch(made)


def cast(inputs: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return {name: value.to(dtype) if value.dtype == torch.float32 and "pixel" in name else value
            for name, value in inputs.items()}  # fmt: skip


def plain_logits(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs).logits


@contextmanager
def prefill_of(model: torch.nn.Module):
    """Collect what the language model gets in its first call."""
    seen: list[dict[str, object]] = []

    def keep(module: torch.nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        if not seen:
            seen.append(dict(kwargs))

    # Behind the hooks of the call itself, which hand over further arguments.
    original = model.model.language_model.forward

    def forward(*args: object, **kwargs: object) -> object:
        keep(model, args, kwargs)
        return original(*args, **kwargs)

    model.model.language_model.forward = forward
    try:
        yield seen
    finally:
        del model.model.language_model.forward


def recompute(model: torch.nn.Module, prefill: dict[str, object], new: torch.Tensor) -> torch.Tensor:
    """Logits behind a prefill and some new tokens, computed at once and without a cache."""
    embeds, extra = prefill["inputs_embeds"], new.shape[1]
    # Stock leaves a mask out that hides nothing.
    mask = embeds.new_ones(embeds.shape[:2]) if prefill["attention_mask"] is None else prefill["attention_mask"]
    more: dict[str, object] = {}
    positions = prefill.get("position_ids")
    if positions is not None:
        steps = torch.arange(1, extra + 1).expand(*positions.shape[:-1], -1)
        more["position_ids"] = torch.cat([positions, positions[..., -1:] + steps], dim=-1)
    if prefill.get("visual_pos_masks") is not None:
        visual = prefill["visual_pos_masks"]
        more["visual_pos_masks"] = torch.cat([visual, visual.new_zeros(len(visual), extra)], dim=1)
        more["deepstack_visual_embeds"] = prefill["deepstack_visual_embeds"]
    with torch.no_grad():
        states = model.model.language_model(
            inputs_embeds=torch.cat([embeds, model.get_input_embeddings()(new)], dim=1),
            attention_mask=torch.cat([mask, mask.new_ones(len(mask), extra)], dim=1),
            use_cache=False,
            **more,
        ).last_hidden_state
        return model.lm_head(states[:, -1])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("method", ["none", FULL], ids=["none", "full"])
def test_nothing_dropped_is_bit_identical(family, method, attention) -> None:
    model, inputs = built(family, attention), prompts(family, 2, 1)
    stock = plain_logits(model, inputs)
    with earlytom.compress(model, method) as trace:
        assert torch.equal(plain_logits(model, inputs), stock)
    assert [clip.tokens for clip in trace.videos] == [clip.grid.tokens for clip in trace.videos]
    expected = model.generate(**inputs, do_sample=False, max_new_tokens=6)
    with earlytom.compress(model, method):
        assert torch.equal(model.generate(**inputs, do_sample=False, max_new_tokens=6), expected)


def test_features_are_those_of_stock(family) -> None:
    model, inputs, case = built(family), prompts(family, 1), family_case(family)
    with torch.no_grad(), prefill_of(model) as seen, earlytom.compress(model, "none"):
        model(**inputs)
        stock = case.stock_features(model, inputs)
    embeds = seen[0]["inputs_embeds"][0]
    found = [bool((embeds == row).all(dim=1).any()) for row in stock]
    assert all(found)


@pytest.mark.parametrize(
    "method", [QUARTER, "holitom:retention=0.3", "visionzip:retention=0.2", "random:retention=0.3"]
)
@pytest.mark.parametrize("samples", [(1,), (1, 2)], ids=["one", "batch"])
def test_decoding_equals_recomputation_on_the_same_kept_tokens(family, method, samples) -> None:
    model, inputs = built(family), prompts(family, *samples)
    options = {"do_sample": False, "max_new_tokens": NEW, "return_dict_in_generate": True, "output_logits": True}
    with prefill_of(model) as seen, earlytom.compress(model, method) as trace:
        output = model.generate(**inputs, **options)
    new = output.sequences[:, inputs["input_ids"].shape[1] :]
    assert new.shape[1] == NEW
    for step, logits in enumerate(output.logits):
        expected = recompute(model, seen[0], new[:, :step])
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    assert trace.last.prefill_tokens == seen[0]["inputs_embeds"].shape[1] < trace.last.prompt_tokens
    assert all(clip.tokens == clip.budget < clip.grid.tokens for clip in trace.videos)


@pytest.mark.parametrize("method", [QUARTER, IN_LANGUAGE_MODEL], ids=["tokens", "llm"])
@pytest.mark.parametrize(
    "options",
    [{}, {"num_beams": 3}, {"do_sample": True, "top_k": 5}, {"num_beams": 2, "num_return_sequences": 2}],
    ids=["greedy", "beams", "sampling", "returned"],
)
def test_every_way_of_generating(family, method, options) -> None:
    model, inputs = built(family), prompts(family, 1, 1)
    repeats = options.get("num_return_sequences", 1)
    outputs = []
    for _ in range(2):
        torch.manual_seed(3)
        with earlytom.compress(model, method):
            outputs.append(model.generate(**inputs, **({"do_sample": False} | options), max_new_tokens=5))
    length = inputs["input_ids"].shape[1]
    assert torch.equal(*outputs)
    assert outputs[0].shape == (2 * repeats, length + 5)
    assert torch.equal(outputs[0][:, :length], inputs["input_ids"].repeat_interleave(repeats, dim=0))


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3},
        {"num_beams": 3, "num_return_sequences": 2},
        {"do_sample": True, "top_k": 5, "num_return_sequences": 2},
        {"do_sample": True, "top_k": 5, "num_beams": 2},
    ],
    ids=["beams", "returned", "sampling", "sampled beams"],
)
def test_every_way_of_generating_is_that_of_stock_where_nothing_is_dropped(family, options) -> None:
    model, inputs = built(family), prompts(family, 1, 1)
    if family == "internvl" and "mm_encoder_outputs" not in inspect.signature(model.forward).parameters:
        pytest.skip("before transformers 5.18 stock InternVL mixes up the frames of several sequences")
    wanted = {"do_sample": False} | options | {"max_new_tokens": 5}
    torch.manual_seed(3)
    expected = model.generate(**inputs, **wanted)
    torch.manual_seed(3)
    with earlytom.compress(model, "none"):
        assert torch.equal(model.generate(**inputs, **wanted), expected)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
@pytest.mark.parametrize("method", [QUARTER, IN_LANGUAGE_MODEL], ids=["tokens", "llm"])
def test_a_padded_batch_equals_its_samples(family, method, options) -> None:
    model, case = built(family), family_case(family)
    clips = [[case.clip(6, 0)], [case.clip(6, 1), case.clip(6, 2)]]
    both = case.batch(clips)
    with earlytom.compress(model, method) as together:
        answers = model.generate(**both, do_sample=False, max_new_tokens=6, **options)
    # The second sample stands behind a first one without clips, so that its text stays the same.
    for number, inputs in enumerate((case.batch(clips[:1]), case.batch([[], clips[1]]))):
        with earlytom.compress(model, method) as alone:
            answer = model.generate(**inputs, do_sample=False, max_new_tokens=6, **options)
        assert answer[-1, -6:].tolist() == answers[number, -6:].tolist()
        kept = [clip.kept_tokens() for clip in alone.videos]
        assert kept == [clip.kept_tokens() for clip in together.videos][number : number + len(kept)]


def test_streamer_gets_every_token(family) -> None:
    class Streamer:
        def __init__(self) -> None:
            self.ids: list[int] = []

        def put(self, value: torch.Tensor) -> None:
            self.ids += value.flatten().tolist()

        def end(self) -> None:
            self.ids.append(-1)

    model, inputs, streamer = built(family), prompts(family, 1), Streamer()
    with earlytom.compress(model, QUARTER):
        output = model.generate(**inputs, do_sample=False, max_new_tokens=4, streamer=streamer)
    assert streamer.ids == [*output[0].tolist(), -1]


def test_images_beside_videos_are_those_of_stock(family) -> None:
    case, model = family_case(family), built(family)
    if case.image is None:
        pytest.skip("the family has its own test of images beside videos, or has none")
    inputs = case.image(prompts(family, 1, 1), 0)
    stock = plain_logits(model, inputs)
    with earlytom.compress(model, FULL):
        assert torch.equal(plain_logits(model, inputs), stock)
    with earlytom.compress(model, QUARTER) as trace:
        output = model.generate(**inputs, do_sample=False, max_new_tokens=4)
    assert output.shape[1] == inputs["input_ids"].shape[1] + 4
    assert all(clip.tokens == clip.budget for clip in trace.videos)


def test_text_alone_passes_through(family) -> None:
    model, inputs = built(family), prompts(family, 0, 0)
    stock = model.generate(**inputs, do_sample=False, max_new_tokens=4)
    with earlytom.compress(model, QUARTER) as trace:
        assert torch.equal(model.generate(**inputs, do_sample=False, max_new_tokens=4), stock)
    assert trace.videos == []


def test_eager_and_sdpa_keep_the_same_tokens(family) -> None:
    inputs, kept, logits = prompts(family, 1), [], []
    for attention in ("sdpa", "eager"):
        model = built(family, attention)
        with torch.no_grad(), earlytom.compress(model, QUARTER) as trace:
            logits.append(model(**inputs).logits)
        kept.append([clip.kept_tokens() for clip in trace.videos])
    assert kept[0] == kept[1]
    torch.testing.assert_close(*logits, atol=1e-3, rtol=1e-3)


def test_bfloat16_runs_and_counts_alike(family) -> None:
    model = family_case(family).build(dtype=torch.bfloat16)
    inputs = cast(prompts(family, 1, 1), torch.bfloat16)
    stock = plain_logits(model, inputs)
    with earlytom.compress(model, FULL):
        assert torch.equal(plain_logits(model, inputs), stock)
    with earlytom.compress(model, IN_LANGUAGE_MODEL) as trace:
        model.generate(**inputs, do_sample=False, max_new_tokens=4)
    assert all(clip.tokens == clip.budget for clip in trace.videos)


@pytest.mark.parametrize("masked", [True, False], ids=["mask", "no mask"])
@pytest.mark.parametrize("method", [QUARTER, "holitom:retention=0.3", "prunevid:retention=0.3"])
def test_hand_decoding_goes_on_behind_a_shortened_prompt(family, method, masked) -> None:
    """forward() with a cache, step by step; prompts of equal length need no mask, but may not stay equally long."""
    model, case = built(family), family_case(family)
    both = case.batch([[case.clip(6, 0)], [case.clip(6, 1)]])
    # The second prompt's text in front is one token longer: without it both are equally long.
    inputs = {name: value for name, value in both.items() if name != "attention_mask"}
    inputs["input_ids"] = torch.stack([both["input_ids"][0].roll(-1), both["input_ids"][1]])
    inputs["input_ids"][0, -1] = 7
    if "mm_token_type_ids" in both:
        inputs["mm_token_type_ids"] = torch.stack([both["mm_token_type_ids"][0].roll(-1), both["mm_token_type_ids"][1]])
    mask = torch.ones_like(inputs["input_ids"])
    with prefill_of(model) as seen, torch.no_grad(), earlytom.compress(model, method):
        output = model(**inputs, **({"attention_mask": mask} if masked else {}), use_cache=True)
        new = inputs["input_ids"][:, :0]
        for _ in range(4):
            token = output.logits[:, -1:].argmax(dim=-1).clamp_max(200)
            new, mask = torch.cat([new, token], dim=1), torch.cat([mask, mask.new_ones(2, 1)], dim=1)
            given = {cache_name(): returned_cache(output)} | ({"attention_mask": mask} if masked else {})
            output = model(input_ids=token, **given, use_cache=True)
            expected = recompute(model, seen[0], new)
            torch.testing.assert_close(output.logits[:, -1], expected, atol=1e-4, rtol=1e-4)


def test_an_error_leaves_the_model_as_it_was(family) -> None:
    model, inputs = built(family), prompts(family, 1)
    before = (plain_logits(model, inputs), hooks(model), set(model.__dict__))
    wrong = inputs | {"input_ids": inputs["input_ids"][:, :-20], "attention_mask": inputs["attention_mask"][:, :-20]}
    wrong["input_ids"] = torch.where(wrong["input_ids"] > 280, torch.tensor(5), wrong["input_ids"])
    # Where pictures and frames come in one tensor, it is stock that misses the placeholders.
    with pytest.raises((earlytom.EarlyTomError, ValueError)), earlytom.compress(model, QUARTER):
        model.generate(**wrong, max_new_tokens=2)
    assert torch.equal(plain_logits(model, inputs), before[0])
    assert (hooks(model), set(model.__dict__)) == before[1:]


def hooks(model: torch.nn.Module) -> list[tuple[int, int]]:
    return [(len(part._forward_pre_hooks), len(part._forward_hooks)) for part in model.modules()]


def test_a_compiled_model_is_compressed(family) -> None:
    torch._dynamo.reset()
    model, inputs = built(family), prompts(family, 1)
    with torch.no_grad(), earlytom.compress(model, QUARTER):
        expected = model.generate(**inputs, do_sample=False, max_new_tokens=3), model(**inputs).logits
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad(), earlytom.compress(compiled, QUARTER) as trace:
        found = compiled.generate(**inputs, do_sample=False, max_new_tokens=3), compiled(**inputs).logits
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert all(clip.tokens < clip.grid.tokens for clip in trace.videos)


def test_a_model_with_device_map_works(family, tmp_path) -> None:
    pytest.importorskip("accelerate", reason="accelerate is not installed, which device_map needs")
    model, inputs = built(family), prompts(family, 1)
    with earlytom.compress(model, QUARTER):
        expected = model.generate(**inputs, do_sample=False, max_new_tokens=4)
    model.save_pretrained(tmp_path)
    placed = type(model).from_pretrained(tmp_path, device_map="auto", dtype=torch.float32)
    with earlytom.compress(placed, QUARTER):
        assert torch.equal(placed.generate(**inputs, do_sample=False, max_new_tokens=4), expected)
