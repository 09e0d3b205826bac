"""FastV and PyramidDrop inside a running model, against recomputation without a cache."""

from __future__ import annotations

import pytest
import torch

import earlytom
from conftest import batch, clip, tiny_model
from earlytom.models.caches import returned_cache
from reference.language_model import logits_without_cache

# The method, and the method that makes the prompt it prefills.
CASES = {
    "fastv": ("fastv:retention=0.4", "none"),
    "fastv deep": ("fastv:layer=4,ratio=0.9", "none"),
    "pyramiddrop": ("pyramiddrop", "none"),
    "pyramiddrop steep": ("pyramiddrop:layers=1/2/4,ratios=0.3/0.1/0.02", "none"),
    "fastv after earlytom": ("earlytom+fastv:retention=0.3,layer=2,ratio=0.5", "earlytom:retention=0.3"),
    "pyramiddrop after earlytom": ("earlytom+pyramiddrop:retention=0.3", "earlytom:retention=0.3"),
}
SOME = ["fastv", "pyramiddrop", "pyramiddrop after earlytom"]


def generate(model, inputs, method, **options):
    with earlytom.compress(model, method) as trace:
        output = model.generate(**inputs, do_sample=False, return_dict_in_generate=True, output_logits=True, **options)
    return output, trace


def alone(inputs, number, first_video, clips):
    """One sample of a left-padded batch as a batch of its own."""
    padding = int((inputs["attention_mask"][number] == 0).sum())
    single = {key: inputs[key][number : number + 1, padding:] for key in ("input_ids", "attention_mask")}
    if clips:
        single["pixel_values_videos"] = inputs["pixel_values_videos"][first_video : first_video + clips]
    return single


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("case", CASES)
def test_cached_decoding_equals_recomputation_without_cache(case, attention) -> None:
    text, before = CASES[case]
    model, method = tiny_model(attention), earlytom.parse_method(text)
    inputs = batch([[clip(12, 3)]])
    with torch.no_grad():
        output, trace = generate(model, inputs, method, max_new_tokens=12)
        prepared = earlytom.prepare(model, inputs, before)
        new_ids = output.sequences[0, inputs["input_ids"].shape[1] :].tolist()
        for step, logits in enumerate(output.logits):
            prompt, visual = prepared.arguments["inputs_embeds"][0], list(prepared.visual_positions[0])
            expected = logits_without_cache(model, method, prompt, visual, new_ids[:step])
            torch.testing.assert_close(logits[0], expected, atol=1e-4, rtol=1e-4)
    assert trace.last.language
    assert all(step.tokens_after < step.tokens_before for step in trace.last.language)


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
@pytest.mark.parametrize("case", SOME)
def test_left_padded_batches_equal_single_samples(samples, attention, case) -> None:
    model, (method, _) = tiny_model(attention), CASES[case]
    inputs = batch(samples)
    together, trace = generate(model, inputs, method, max_new_tokens=6)
    first_video = 0
    for number, clips in enumerate(samples):
        single, one = generate(model, alone(inputs, number, first_video, len(clips)), method, max_new_tokens=6)
        first_video += len(clips)
        for ours, theirs in zip(together.logits, single.logits, strict=True):
            torch.testing.assert_close(ours[number], theirs[0], atol=1e-4, rtol=1e-4)
        for step, lone in zip(trace.last.language, one.last.language, strict=False):
            assert step.tokens_after[number] == lone.tokens_after[0]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("case", SOME)
def test_beams_follow_their_sample(case, attention) -> None:
    model, (method, _) = tiny_model(attention), CASES[case]
    inputs = batch([[clip(12, 0)], [clip(12, 1)]])
    with earlytom.compress(model, method) as trace:
        together = model.generate(**inputs, num_beams=3, max_new_tokens=5, do_sample=False)
    assert all(len(step.tokens_after) == 2 for step in trace.last.language)
    for number in range(2):
        with earlytom.compress(model, method):
            single = model.generate(**alone(inputs, number, number, 1), num_beams=3, max_new_tokens=5, do_sample=False)
        assert together[number, -5:].tolist() == single[0, -5:].tolist()


@pytest.mark.parametrize("case", CASES)
def test_caches_behind_a_boundary_are_shorter(case) -> None:
    model, (method, _) = tiny_model(), CASES[case]
    output, trace = generate(model, batch([[clip(12, 0)]]), method, max_new_tokens=3)
    lengths = [returned_cache(output).get_seq_length(layer) for layer in range(5)]
    text = trace.last.prefill_tokens - trace.last.visual_tokens[0]
    expected, tokens = [], trace.last.visual_tokens[0]
    for layer in range(5):
        tokens = next((step.tokens_after[0] for step in trace.last.language if step.layer == layer), tokens)
        expected.append(text + tokens + 2)
    assert lengths == expected
    assert lengths[-1] < lengths[0]
    assert not any(layer._forward_pre_hooks for layer in model.model.language_model.layers)


@pytest.mark.parametrize(("case", "renumbered"), [("fastv", False), ("pyramiddrop", True)])
def test_positions_of_newer_tokens(case, renumbered) -> None:
    """FastV: every layer counts the whole prompt; PyramidDrop: every layer counts what it has itself."""
    model, (method, _) = tiny_model(), CASES[case]
    inputs, seen = batch([[clip(12, 0)]]), {}

    def watch(index):
        def hook(module, args, kwargs):
            seen.setdefault(index, []).append(kwargs["position_embeddings"])

        return hook

    handles = [
        layer.self_attn.register_forward_pre_hook(watch(index), with_kwargs=True)
        for index, layer in enumerate(model.model.language_model.layers)
    ]
    try:
        output, trace = generate(model, inputs, method, max_new_tokens=3)
    finally:
        for handle in handles:
            handle.remove()
    for layer, (prefill, *decoding) in seen.items():
        length = returned_cache(output).get_seq_length(layer) - 2
        assert prefill[0].shape[1] == length
        for step, given in enumerate(decoding):
            position = (length if renumbered else trace.last.prefill_tokens) + step
            wanted = model.model.language_model.rotary_emb(given[0], torch.tensor([[position]]))
            torch.testing.assert_close(given, wanted)
        if renumbered:
            torch.testing.assert_close(
                prefill, model.model.language_model.rotary_emb(prefill[0], torch.arange(length)[None])
            )


@pytest.mark.parametrize("case", SOME)
def test_the_last_token_changes_no_earlier_position_up_to_the_boundary(case) -> None:
    model, (method, _) = tiny_model(), CASES[case]
    inputs = batch([[clip(12, 0)]])
    changed = {key: value.clone() for key, value in inputs.items()}
    changed["input_ids"][0, -1] = 7 if int(inputs["input_ids"][0, -1]) != 7 else 8
    states = []
    for one in (inputs, changed):
        seen: list[torch.Tensor] = []
        handle = model.model.language_model.layers[0].register_forward_hook(
            lambda module, args, output, seen=seen: seen.append(output)
        )
        generate(model, one, method, max_new_tokens=1)
        handle.remove()
        states.append(seen[0])
    assert torch.equal(states[0][:, :-1], states[1][:, :-1])


@pytest.mark.parametrize("case", SOME)
def test_forward_prunes_too_and_right_padding_changes_nothing(case) -> None:
    model, (method, _) = tiny_model(), CASES[case]
    left = batch([[clip(12, 0)], [clip(12, 1), clip(12, 2)]])
    padding = int((left["attention_mask"][0] == 0).sum())
    right = {
        key: torch.stack([value[0].roll(-padding), value[1]]) if key != "pixel_values_videos" else value
        for key, value in left.items()
    }
    with torch.no_grad(), earlytom.compress(model, method):
        on_the_left, on_the_right = model(**left).logits, model(**right).logits
    text = 6
    output, _ = generate(model, left, method, max_new_tokens=1)
    torch.testing.assert_close(on_the_left[:, -1], output.logits[0], atol=1e-4, rtol=1e-4)
    # The last text of each sample ends where its right padding begins.
    for ours, theirs in zip(on_the_left, on_the_right, strict=True):
        windows = theirs.unfold(0, text, 1).transpose(1, 2)
        assert sum(torch.allclose(ours[-text:], window, atol=1e-4, rtol=1e-4) for window in windows) == 1


@pytest.mark.parametrize("case", SOME)
def test_the_model_is_never_switched_to_eager_and_no_layer_gives_maps(case) -> None:
    model, (method, _) = tiny_model("sdpa"), CASES[case]
    implementations, maps = set(), []

    def note(module, args, output):
        implementations.add(module.config._attn_implementation)
        maps.append(output[1])

    handles = [layer.self_attn.register_forward_hook(note) for layer in model.model.language_model.layers]
    try:
        generate(model, batch([[clip(12, 0)]]), method, max_new_tokens=2)
    finally:
        for handle in handles:
            handle.remove()
    assert implementations == {"sdpa"}
    assert set(maps) == {None}


@pytest.mark.parametrize("case", SOME)
def test_identical_frames_and_one_frame_do_not_matter(case) -> None:
    model, (method, _) = tiny_model(), CASES[case]
    for frames in (torch.zeros(12, 3, 32, 32), clip(1, 0), torch.full((12, 3, 32, 32), torch.nan)):
        output, trace = generate(model, batch([[frames]]), method, max_new_tokens=3)
        assert output.sequences.shape[1] > 3
        assert trace.last.language


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", SOME)
def test_half_precision_keeps_as_many(case, dtype) -> None:
    inputs, (method, _) = batch([[clip(12, 0)]]), CASES[case]
    _, exact = generate(tiny_model(), inputs, method, max_new_tokens=2)
    inputs["pixel_values_videos"] = inputs["pixel_values_videos"].to(dtype)
    _, trace = generate(tiny_model("sdpa", dtype), inputs, method, max_new_tokens=2)
    assert trace.last.language == exact.last.language


@pytest.mark.parametrize("case", SOME)
def test_prepare_refuses_what_it_cannot_do(case) -> None:
    with pytest.raises(earlytom.MethodError, match="prepare"):
        earlytom.prepare(tiny_model(), batch([[clip(12, 0)]]), CASES[case][0])
