"""A text that many prompts share, prefilled once: stock goes on behind its cache, and so do compressed prompts."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import DynamicCache

import earlytom
from conftest import batch, cache_name, clip, tiny_model
from earlytom.models.caches import returned_cache
from families import FAMILY_NAMES, family_case

QUARTER = "earlytom:retention=0.25"
LENGTH = 4
OPTIONS = {"do_sample": False, "max_new_tokens": 5, "return_dict_in_generate": True, "output_logits": True}


def with_cache(cache: DynamicCache) -> dict[str, DynamicCache]:
    """A copy of a cache as an argument: a call extends what it is given."""
    return {cache_name(): copy.deepcopy(cache)}


def cache_of(model: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor | None = None) -> DynamicCache:
    """What the language model has cached of some text."""
    with torch.no_grad():
        return returned_cache(model(input_ids=ids, attention_mask=mask, use_cache=True))


@pytest.fixture(params=FAMILY_NAMES)
def prompt(request):
    """A model of each family, a prompt of which the first tokens are text, and the cache of these."""
    case = family_case(request.param)
    model = case.build()
    inputs = case.batch([[case.clip(6, 0)]])
    return model, inputs, cache_of(model, inputs["input_ids"][:, :LENGTH])


def logits(output) -> torch.Tensor:
    return torch.stack(output.logits)


def test_nothing_compressed_is_what_stock_does(prompt) -> None:
    model, inputs, cache = prompt
    stock = model.generate(**inputs, **with_cache(cache), **OPTIONS)
    whole = model.generate(**inputs, **OPTIONS)
    with earlytom.compress(model, "none") as trace:
        ours = model.generate(**inputs, **with_cache(cache), **OPTIONS)
    assert torch.equal(ours.sequences, stock.sequences)
    torch.testing.assert_close(logits(ours), logits(stock), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits(ours), logits(whole), atol=1e-4, rtol=1e-4)
    assert trace.videos[0].tokens == trace.videos[0].grid.tokens


@pytest.mark.parametrize("method", [QUARTER, "holitom:retention=0.3", "random:retention=0.25"])
def test_a_compressed_prompt_goes_on_behind_it(prompt, method) -> None:
    model, inputs, cache = prompt
    with earlytom.compress(model, method):
        whole = model.generate(**inputs, **OPTIONS)
        mine = copy.deepcopy(cache)
        behind = model.generate(**inputs, **{cache_name(): mine}, **OPTIONS)
    torch.testing.assert_close(logits(behind), logits(whole), atol=1e-4, rtol=1e-4)
    assert torch.equal(behind.sequences, whole.sequences)
    assert mine.get_seq_length() == returned_cache(whole).get_seq_length()


def test_prepare_too(prompt) -> None:
    model, inputs, cache = prompt
    if family_of(model) == "qwen3_vl":
        pytest.skip("prepare() cannot hand over this family's further features")
    with earlytom.compress(model, QUARTER):
        expected = model.generate(**inputs, **OPTIONS)
    prepared = earlytom.prepare(model, inputs | with_cache(cache), QUARTER)
    found = model.generate(**prepared.arguments, **OPTIONS)
    torch.testing.assert_close(logits(found), logits(expected), atol=1e-4, rtol=1e-4)


def family_of(model: torch.nn.Module) -> str:
    return model.config.model_type


def rest_of(inputs):
    """What comes behind the cached tokens, with the mask of all."""
    return {
        name: value[:, LENGTH:] if name in ("input_ids", "mm_token_type_ids") else value
        for name, value in inputs.items()
    }


def test_only_what_comes_behind_may_be_given(prompt) -> None:
    """To forward() always; to generate() with the mask of all. Positions with three axes cannot be told from it."""
    model, inputs, cache = prompt
    rest = rest_of(inputs)
    with torch.no_grad(), earlytom.compress(model, QUARTER):
        expected = model(**inputs).logits
        if family_of(model) in ("qwen2_5_vl", "qwen3_vl"):
            for call in (model, model.generate):
                with pytest.raises(earlytom.CompressionError, match=r"whole prompt to generate\(\), or position_ids"):
                    call(**rest, **with_cache(cache))
            return
        for given in (rest, {name: value for name, value in rest.items() if name != "attention_mask"}):
            mine = copy.deepcopy(cache)
            output = model(**given, **{cache_name(): mine}, use_cache=True)
            torch.testing.assert_close(output.logits, expected[:, LENGTH:], atol=1e-4, rtol=1e-4)
            assert mine.get_seq_length() == expected.shape[1]
        whole = model.generate(**inputs, **OPTIONS)
        behind = model.generate(**rest, **with_cache(cache), **OPTIONS)
        assert torch.equal(behind.sequences, whole.sequences[:, LENGTH:])
        torch.testing.assert_close(logits(behind), logits(whole), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("masked", [True, False])
def test_decoding_by_hand_behind_both(masked) -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    mine, mask = cache_of(model, inputs["input_ids"][:, :LENGTH]), inputs["attention_mask"]
    with torch.no_grad(), earlytom.compress(model, QUARTER):
        expected = model.generate(**inputs, **OPTIONS)
        output = model(**rest_of(inputs), **{cache_name(): mine}, use_cache=True)
        for step in range(1, 5):
            torch.testing.assert_close(output.logits[:, -1], expected.logits[step - 1], atol=1e-4, rtol=1e-4)
            mask = torch.cat([mask, mask.new_ones(1, 1)], dim=1)
            token = output.logits[:, -1:].argmax(dim=-1)
            given = {"attention_mask": mask} if masked else {}
            output = model(input_ids=token, **{cache_name(): returned_cache(output)}, **given)


def test_a_batch_whose_prompts_stay_equally_long() -> None:
    model = tiny_model()
    inputs = batch([[clip(12, 0)], [clip(12, 1)]])
    # The same text before both videos: the first sample's padding is a token of its own.
    inputs["input_ids"][:, :LENGTH], inputs["attention_mask"][:] = 7, 1
    cache = cache_of(model, inputs["input_ids"][:, :LENGTH])
    with earlytom.compress(model, QUARTER):
        whole = model.generate(**inputs, **OPTIONS)
        behind = model.generate(**inputs, **with_cache(cache), **OPTIONS)
        torch.testing.assert_close(logits(behind), logits(whole), atol=1e-4, rtol=1e-4)
        unequal = batch([[clip(12, 0)], [clip(12, 1), clip(12, 2)]])
        unequal["input_ids"][:, :LENGTH], unequal["attention_mask"][:] = 7, 1
        with pytest.raises(earlytom.CompressionError, match="shortened to one length"):
            model.generate(**unequal, **with_cache(cache), **OPTIONS)


def test_what_cannot_be_right_is_refused(prompt) -> None:
    model, inputs, cache = prompt
    inside = "earlytom:retention=0.5,inner_merging=true,inner_layer=3"
    with (
        earlytom.compress(model, inside),
        pytest.raises(earlytom.CompressionError, match="already holds 4 tokens, which a method that acts inside"),
    ):
        model.generate(**inputs, **with_cache(cache), **OPTIONS)
    with earlytom.compress(model, QUARTER) as trace:
        first = model.generate(**inputs, **OPTIONS)
        # The cache of a compressed call holds the video: it can neither be added again nor be taken for the text.
        turn = {name: torch.cat([value, value[:, -3:]], dim=1) if value.dim() == 2 and name.endswith(("ids", "mask"))
                else value for name, value in inputs.items()}  # fmt: skip
        with pytest.raises(earlytom.CompressionError, match="not the cache of a compressed call"):
            model.generate(**turn, **{cache_name(): returned_cache(first)}, **OPTIONS)
        short = {name: value[:, :LENGTH] if value.dim() == 2 and name.endswith(("ids", "mask")) else value
                 for name, value in inputs.items()}  # fmt: skip
        # Where pictures and frames come in one tensor, it is stock that misses the placeholders.
        with pytest.raises((earlytom.EarlyTomError, ValueError)):
            model.generate(**short, **with_cache(cache), **OPTIONS)
        assert len(trace.calls) == 1


def test_a_mask_that_covers_neither_is_refused() -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    cache = cache_of(model, inputs["input_ids"][:, :LENGTH])
    rest = rest_of(inputs) | {"attention_mask": inputs["attention_mask"][:, LENGTH:]}
    with earlytom.compress(model, QUARTER), pytest.raises(earlytom.CompressionError, match="covers both, 204 tokens"):
        model(**rest, **with_cache(cache))


def test_without_a_mask_nobody_can_tell_the_whole_prompt_from_the_rest(prompt) -> None:
    model, inputs, cache = prompt
    whole = {name: value for name, value in inputs.items() if name != "attention_mask"}
    with earlytom.compress(model, QUARTER):
        for given in (whole, rest_of(whole)):
            with pytest.raises(earlytom.CompressionError, match="pass the attention_mask too"):
                model.generate(**given, **with_cache(cache), max_new_tokens=1)
