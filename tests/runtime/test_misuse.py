"""Ways around compress() that must work or be refused, never go wrong in silence."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch

import earlytom
from conftest import batch, cache_name, clip, tiny_model
from earlytom.models.caches import returned_cache

QUARTER = earlytom.EarlyTom(retention=0.25)
INNER = earlytom.EarlyTom(retention=0.25, inner_merging=True)


def logits_of(model, inputs, **options) -> torch.Tensor:
    output = model.generate(
        **inputs, do_sample=False, max_new_tokens=4, return_dict_in_generate=True, output_logits=True, **options
    )
    return torch.stack(output.logits)


def test_a_wrapper_that_outlives_the_block_is_stock_again() -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    with torch.no_grad():
        plain = model(**inputs).logits
        with earlytom.compress(model, QUARTER):
            kept = model.forward
            generate = model.generate
        model.forward = lambda *args, **kwargs: kept(*args, **kwargs)
        assert torch.equal(model(**inputs).logits, plain)
    del model.forward
    assert torch.equal(
        generate(**inputs, max_new_tokens=3, do_sample=False),
        model.generate(**inputs, max_new_tokens=3, do_sample=False),
    )


@pytest.mark.parametrize("method", [QUARTER, INNER], ids=["outside", "inside"])
def test_models_cannot_be_copied_inside_a_block(method, tmp_path) -> None:
    model = tiny_model()
    with earlytom.compress(model, method):
        with pytest.raises(earlytom.ModelError, match="copied"):
            copy.deepcopy(model)
        for attempt in (
            lambda: pickle.dumps(model),
            lambda: pickle.dumps(model.generate),
            lambda: pickle.dumps(model.model.language_model),
            lambda: torch.save(model, tmp_path / "model.pt"),
        ):
            with pytest.raises(earlytom.ModelError, match="pickled"):
                attempt()
        torch.save(model.state_dict(), tmp_path / "weights.pt")
        model.save_pretrained(tmp_path / "saved")
    copy.deepcopy(model)
    torch.save(model, tmp_path / "model.pt")
    assert pickle.loads(pickle.dumps(model)).config.model_type == "llava_onevision"


def test_a_generate_from_before_the_block_is_refused() -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    bound = model.generate
    with earlytom.compress(model, QUARTER):
        for call in (bound, lambda **kwargs: type(model).generate(model, **kwargs)):
            with pytest.raises(earlytom.CompressionError):
                call(**inputs, max_new_tokens=2)
        text = batch([[]])
        assert torch.equal(bound(**text, max_new_tokens=2, do_sample=False)[:, :-2], text["input_ids"])


def test_the_inner_model_refuses_videos_inside_a_block() -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    with earlytom.compress(model, QUARTER), pytest.raises(earlytom.CompressionError, match="LlavaOnevisionModel"):
        model.model(**inputs)
    model.model(**inputs)


def test_decoding_by_hand_behind_a_compressed_prefill() -> None:
    """The caller extends the mask of the prompt as written; the cache belongs to the shortened one."""
    model, inputs = tiny_model(), batch([[clip(12, 0)], [clip(12, 1), clip(12, 2)]])
    short = earlytom.prepare(model, inputs, QUARTER).arguments
    embed, length = model.get_input_embeddings(), short["inputs_embeds"].shape[1]
    tokens = torch.randint(1, 290, (2, 3), generator=torch.Generator().manual_seed(1))
    mask = inputs["attention_mask"]
    with torch.no_grad(), earlytom.compress(model, QUARTER):
        output = model(**inputs, use_cache=True)
        for step in range(3):
            mask = torch.cat([mask, mask.new_ones(2, 1)], dim=1)
            token = tokens[:, step, None]
            output = model(input_ids=token, attention_mask=mask, **{cache_name(): returned_cache(output)})
            everything = torch.cat([short["inputs_embeds"], embed(tokens[:, : step + 1])], dim=1)
            short_mask = torch.cat([short["attention_mask"], mask.new_ones(2, step + 1)], dim=1)
            expected = model(inputs_embeds=everything, attention_mask=short_mask, use_cache=False).logits
            assert expected.shape[1] == length + step + 1
            torch.testing.assert_close(output.logits[:, -1], expected[:, -1], atol=1e-4, rtol=1e-4)


def test_forward_with_inner_merging_fills_no_cache() -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    with torch.no_grad(), earlytom.compress(model, INNER):
        assert returned_cache(model(**inputs)) is None
        with pytest.raises(earlytom.CompressionError, match="cache"):
            model(**inputs, use_cache=True)


def test_a_second_turn_with_the_cache_names_the_cause() -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    with earlytom.compress(model, QUARTER):
        first = model.generate(**inputs, max_new_tokens=2, return_dict_in_generate=True)
        with pytest.raises(earlytom.CompressionError, match="whole history"):
            model.generate(input_ids=first.sequences, max_new_tokens=2, **{cache_name(): returned_cache(first)})


def test_arguments_may_be_positional() -> None:
    from transformers import GenerationConfig

    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    config = GenerationConfig(max_new_tokens=3, do_sample=False, pad_token_id=0)
    rest = {key: value for key, value in inputs.items() if key != "input_ids"}
    with earlytom.compress(model, QUARTER) as trace, torch.no_grad():
        expected = model.generate(**inputs, generation_config=config)
        assert torch.equal(model.generate(inputs["input_ids"], config, **rest), expected)
        assert torch.equal(model.generate(inputs=inputs["input_ids"], generation_config=config, **rest), expected)
        assert torch.equal(model(inputs["input_ids"], **rest).logits, model(**inputs).logits)
        assert len(trace.calls) == 5
        with pytest.raises(TypeError, match="input_ids is given twice"):
            model.generate(inputs["input_ids"], **inputs)


@pytest.mark.parametrize("where", ["model", "argument", "config"])
def test_a_missing_mask_is_inferred_as_in_stock(where) -> None:
    from transformers import GenerationConfig

    model = tiny_model()
    inputs = batch([[clip(12, 3)], [clip(12, 4), clip(12, 5)]])
    without = {key: value for key, value in inputs.items() if key != "attention_mask"}
    options: dict[str, object] = {}
    if where != "model":
        model.generation_config.pad_token_id = None
        options = (
            {"pad_token_id": 0} if where == "argument" else {"generation_config": GenerationConfig(pad_token_id=0)}
        )
    with earlytom.compress(model, QUARTER):
        expected = logits_of(model, inputs, pad_token_id=0)
        torch.testing.assert_close(logits_of(model, without, **options), expected, atol=1e-5, rtol=1e-5)
    full = earlytom.EarlyTom(retention=1.0, frame_merging=False)
    with torch.no_grad():
        plain = model(**without).logits
        with earlytom.compress(model, full):
            assert torch.equal(model(**without).logits, plain)


def test_a_mask_of_another_shape_is_refused() -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    with earlytom.compress(model, QUARTER), pytest.raises(earlytom.CompressionError, match="shape of input_ids"):
        model.generate(**(inputs | {"attention_mask": torch.ones(1, 3)}), max_new_tokens=2)


def test_guidance_with_inner_merging_is_refused() -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    with earlytom.compress(model, INNER), pytest.raises(earlytom.CompressionError, match="guidance_scale"):
        model.generate(**inputs, guidance_scale=1.5, max_new_tokens=2)


def test_a_block_keeps_only_its_newest_calls() -> None:
    model, inputs = tiny_model(), batch([[]])
    with earlytom.compress(model, QUARTER) as trace:
        for _ in range(70):
            model.generate(**inputs, max_new_tokens=1)
    assert len(trace.calls) == 64
    assert len(repr(trace)) < 200


@pytest.mark.parametrize("new_tokens", [1, 4])
def test_the_time_split_adds_up(new_tokens) -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    with earlytom.compress(model, INNER) as trace:
        model.generate(**inputs, max_new_tokens=new_tokens)
    split = trace.last.split()
    parts = [split[name] for name in ("vision_encoding", "token_processing", "prefill", "overhead")]
    assert all(part > 0 for part in parts)
    assert sum(parts) == pytest.approx(split["ttft"])
    with earlytom.compress(model, "none") as plain:
        model.generate(**inputs, max_new_tokens=1)
    assert plain.last.split()["prefill"] > 0


@pytest.mark.parametrize("where", ["argument", "config", "model"])
def test_use_cache_false_is_said_to_have_no_effect(where) -> None:
    """Stock generate() caches what starts from embeddings, whatever it was told."""
    from transformers import GenerationConfig

    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    with earlytom.compress(model, QUARTER):
        expected = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    options: dict[str, object] = {"max_new_tokens": 4, "do_sample": False}
    if where == "argument":
        options["use_cache"] = False
    elif where == "config":
        options = {"generation_config": GenerationConfig(max_new_tokens=4, pad_token_id=0, use_cache=False)}
    else:
        model.generation_config.use_cache = False
    with earlytom.compress(model, QUARTER), pytest.warns(UserWarning, match="use_cache=False has no effect"):
        assert torch.equal(model.generate(**inputs, **options), expected)
    with earlytom.compress(model, QUARTER), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.generate(**batch([[]]), max_new_tokens=2, use_cache=False)  # text is stock, and not cached
