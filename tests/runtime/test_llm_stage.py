"""Reducing tokens inside the language model, against recomputation without a cache."""

from __future__ import annotations

import pytest
import torch

import earlytom
from conftest import batch, clip, tiny_model
from earlytom.models.caches import returned_cache
from earlytom.reduction import Reduction
from earlytom.types import LanguagePlan
from reference.language_model import logits_without_cache


class TwoBoundaries(earlytom.EarlyTom):
    """Reduces twice inside the language model, as pyramid methods do."""

    def llm_plan(self, depth):
        return LanguagePlan(reduce_before=(1, 3) if self.inner_merging else ())


class AboveAverage(earlytom.EarlyTom):
    """Keeps inside the language model what is attended to more than on average: another number for each sample."""

    def reduce_in_llm(self, states, layer):
        kept = (states.attention > states.attention.mean()).nonzero().flatten()
        return Reduction.keep(kept, states.attention.numel())


METHODS = [
    TwoBoundaries(retention=0.25, inner_merging=True),
    earlytom.EarlyTom(retention=0.25, inner_merging=True),
    earlytom.EarlyTom(retention=0.5, inner_merging=True, inner_layer=1, inner_ratio=0.8),
    earlytom.EarlyTom(retention=0.25, inner_merging=True, inner_layer=4, compat="official", tau_seg=0.4),
]


def short_prompt(model, inputs, method):
    """The prompt that stages I and II make, and where its visual tokens lie."""
    from dataclasses import replace

    return earlytom.prepare(model, inputs, replace(method, inner_merging=False))


def generate(model, inputs, method, **options):
    with earlytom.compress(model, method) as trace:
        output = model.generate(**inputs, do_sample=False, return_dict_in_generate=True, output_logits=True, **options)
    return output, trace


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("method", METHODS, ids=["twice", "default", "early", "official"])
def test_cached_decoding_equals_recomputation_without_cache(method, attention) -> None:
    model = tiny_model(attention)
    inputs = batch([[clip(12, 3)]])
    with torch.no_grad():
        output, _ = generate(model, inputs, method, max_new_tokens=20)
        prepared = short_prompt(model, inputs, method)
        new_ids = output.sequences[0, inputs["input_ids"].shape[1] :].tolist()
        for step, logits in enumerate(output.logits):
            expected = logits_without_cache(
                model,
                method,
                prepared.arguments["inputs_embeds"][0],
                list(prepared.visual_positions[0]),
                new_ids[:step],
            )
            torch.testing.assert_close(logits[0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    "samples",
    [
        [[clip(12, 0)], [clip(12, 1)]],
        [[clip(12, 0)], [clip(12, 1), clip(12, 2)]],
        [[clip(12, 0)], []],
    ],
    ids=["padding", "one and two videos", "video and text"],
)
@pytest.mark.parametrize("method", METHODS[:2], ids=["twice", "once"])
def test_batches_equal_single_samples(samples, attention, method) -> None:
    model = tiny_model(attention)
    inputs = batch(samples)
    together, _ = generate(model, inputs, method, max_new_tokens=6)
    first_video = 0
    for number, clips in enumerate(samples):
        padding = int((inputs["attention_mask"][number] == 0).sum())
        alone = {key: inputs[key][number : number + 1, padding:] for key in ("input_ids", "attention_mask")}
        if clips:
            videos = inputs["pixel_values_videos"][first_video : first_video + len(clips)]
            alone["pixel_values_videos"] = videos
            first_video += len(clips)
        single, _ = generate(model, alone, method, max_new_tokens=6)
        for ours, theirs in zip(together.logits, single.logits, strict=True):
            torch.testing.assert_close(ours[number], theirs[0], atol=1e-4, rtol=1e-4)


def test_samples_of_unequal_length_without_any_padding_in_the_prompt() -> None:
    """The stock mask is None here, so the padding that reduction makes needs a mask of its own."""
    for attention in ("sdpa", "eager"):
        model, method = tiny_model(attention), METHODS[1]
        one = batch([[clip(12, 0)]], prefix=5, suffix=6)
        length = one["input_ids"].shape[1]
        visual = int((one["input_ids"] == 299).sum())
        short = earlytom.prepare(model, one, earlytom.EarlyTom(retention=0.25)).arguments["inputs_embeds"].shape[1]
        # A text-only sample as long as the shortened video prompt, padded in the long prompt, unpadded in the short.
        text = torch.randint(1, 290, (short,)).tolist()
        ids = torch.cat([one["input_ids"], torch.tensor([[0] * (length - short) + text])])
        mask = torch.cat([one["attention_mask"], torch.tensor([[0] * (length - short) + [1] * short])])
        inputs = {"input_ids": ids, "attention_mask": mask, "pixel_values_videos": one["pixel_values_videos"]}
        together, trace = generate(model, inputs, method, max_new_tokens=4)
        assert trace.last.prompt_tokens == length
        assert visual > trace.videos[0].tokens
        single, _ = generate(model, one, method, max_new_tokens=4)
        stock = model.generate(
            input_ids=ids[1:, length - short :],
            attention_mask=mask[1:, length - short :],
            max_new_tokens=4,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
        )
        for step in range(4):
            torch.testing.assert_close(together.logits[step][0], single.logits[step][0], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(together.logits[step][1], stock.logits[step][0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_samples_that_become_unequal_inside_where_stock_needs_no_mask(attention) -> None:
    """Neither prompt is padded before or behind the selection, so that every step needs a mask that stock left out."""
    model, method = tiny_model(attention), AboveAverage(retention=0.25, inner_merging=True)
    singles = [batch([[clip(12, seed)]]) for seed in range(2)]
    inputs = {name: torch.cat([single[name] for single in singles]) for name in singles[0]}
    together, trace = generate(model, inputs, method, max_new_tokens=6)
    first, second = trace.last.language[0].tokens_after
    assert first != second
    for number, single in enumerate(singles):
        alone, _ = generate(model, single, method, max_new_tokens=6)
        for ours, theirs in zip(together.logits, alone.logits, strict=True):
            torch.testing.assert_close(ours[number], theirs[0], atol=1e-4, rtol=1e-4)


def test_beams_follow_their_sample() -> None:
    model, method = tiny_model(), METHODS[1]
    inputs = batch([[clip(12, 0)], [clip(12, 1)]])
    with earlytom.compress(model, method) as trace:
        together = model.generate(**inputs, num_beams=3, max_new_tokens=5, do_sample=False)
    assert trace.last.language[0].tokens_after == tuple(24 for _ in range(2))
    for number in range(2):
        padding = int((inputs["attention_mask"][number] == 0).sum())
        alone = {key: inputs[key][number : number + 1, padding:] for key in ("input_ids", "attention_mask")}
        alone["pixel_values_videos"] = inputs["pixel_values_videos"][number : number + 1]
        with earlytom.compress(model, method):
            single = model.generate(**alone, num_beams=3, max_new_tokens=5, do_sample=False)
        assert together[number, -5:].tolist() == single[0, -5:].tolist()


def test_cache_of_later_layers_is_shorter_and_hooks_are_gone() -> None:
    model, method = tiny_model(), METHODS[2]
    inputs = batch([[clip(12, 0)]])
    output, trace = generate(model, inputs, method, max_new_tokens=3)
    lengths = [returned_cache(output).get_seq_length(layer) for layer in range(5)]
    reduction = trace.last.language[0]
    dropped = reduction.tokens_before[0] - reduction.tokens_after[0]
    assert dropped > 0
    assert lengths == [lengths[0], *[lengths[0] - dropped] * 4]
    assert not any(layer._forward_pre_hooks for layer in model.model.language_model.layers)


def test_perturbing_the_last_token_leaves_earlier_positions_alone() -> None:
    """Causality (the published code runs one layer without a causal mask)."""
    model = tiny_model()
    inputs = batch([[clip(12, 0)]])
    changed = {key: value.clone() for key, value in inputs.items()}
    changed["input_ids"][0, -1] = 7 if int(changed["input_ids"][0, -1]) != 7 else 8
    states = []
    for one in (inputs, changed):
        seen: list[torch.Tensor] = []
        handle = model.model.language_model.layers[1].register_forward_hook(
            lambda module, args, output, seen=seen: seen.append(output)
        )
        generate(model, one, METHODS[1], max_new_tokens=1)
        handle.remove()
        states.append(seen[0])
    assert torch.equal(states[0][:, :-1], states[1][:, :-1])


def test_prepare_refuses_what_it_cannot_do() -> None:
    with pytest.raises(earlytom.MethodError, match="prepare"):
        earlytom.prepare(tiny_model(), batch([[clip(12, 0)]]), METHODS[1])


def test_forward_reduces_too() -> None:
    model, method = tiny_model(), METHODS[1]
    inputs = batch([[clip(12, 0)]])
    with torch.no_grad(), earlytom.compress(model, method) as trace:
        logits = model(**inputs).logits
    reduction = trace.last.language[0]
    assert logits.shape[1] == trace.last.prefill_tokens - reduction.tokens_before[0] + reduction.tokens_after[0]
    output, _ = generate(model, inputs, method, max_new_tokens=1)
    torch.testing.assert_close(logits[0, -1], output.logits[0][0], atol=1e-4, rtol=1e-4)
