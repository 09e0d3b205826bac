"""Tokens that merge inside the vision encoder: the running model against an encoder made of lists."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import earlytom
from conftest import batch, clip, tiny_model
from earlytom import Method, Reduction
from earlytom.methods.tome import ToMe
from earlytom.types import EncoderPlan
from reference.tome import encode_naively, merge_down_naively, schedule_naively

FRAMES, PATCHES, POOLED = 5, 64, 16


def generate(model, inputs, method, **options):
    with earlytom.compress(model, method) as trace:
        return model.generate(**inputs, **({"do_sample": False, "max_new_tokens": 4} | options)), trace


def kept(model, inputs, method) -> Tensor:
    """[K, C] the visual tokens of a single prompt of one clip, as they go into the language model; no newline."""
    prepared = earlytom.prepare(model, inputs, method)
    return prepared.arguments["inputs_embeds"][0, list(prepared.visual_positions[0])[:-1]]


def assert_near(found: Tensor, expected: Tensor) -> None:
    """Within what separates a stock encoder in float32 from one in float64: 0.01 of values up to 40."""
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=0)


def naive(model, pixels: Tensor, method: ToMe) -> tuple[list[Tensor], list[list[list[int]]]]:
    """For each frame the hidden states of the tokens left, and the patches of each."""
    left = round(method.retention * (PATCHES if method.unmerge else POOLED))
    schedule = schedule_naively(PATCHES - left, 8, method.inflection)
    encoded = [encode_naively(model, frame, schedule, method.proportional_attention) for frame in pixels]
    return [hidden for hidden, _, _ in encoded], [groups for _, groups, _ in encoded]


@pytest.mark.parametrize("method", ["tome", "tome+random"])
@pytest.mark.parametrize(("frames", "share"), [(4, 0.5), (8, 0.25)])
def test_a_number_of_tokens_is_the_clips_own_share_inside_the_encoder(frames, share, method) -> None:
    model, inputs = tiny_model(), batch([[clip(frames, 0)], [clip(frames, 1)]])
    traces = [generate(model, inputs, f"{method}:{text}")[1] for text in ("visual_tokens=32", f"retention={share}")]
    for by_number, by_share in zip(*(trace.videos for trace in traces), strict=True):
        assert by_number.tokens == 32
        assert by_number.token_merges[-1].tokens_after == PATCHES * share
        assert by_number.token_merges == by_share.token_merges
        assert by_number.kept_tokens() == by_share.kept_tokens()


def test_a_clip_with_no_more_tokens_than_asked_for_is_that_of_stock() -> None:
    model, inputs = tiny_model(), batch([[clip(4, 0)]])
    output, trace = generate(model, inputs, "tome:visual_tokens=64")
    assert torch.equal(output, model.generate(**inputs, do_sample=False, max_new_tokens=4))
    assert "no more than the 64 asked for" in trace.videos[0].stepped_aside


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("proportional", [True, False])
def test_unmerged_tokens_are_pooled_as_stock_and_merge_again(attention, proportional) -> None:
    # Merging decides between similarities; this clip has none so close that precision or release turns the decision.
    model, pixels = tiny_model(attention), clip(FRAMES, 9)
    method = ToMe(retention=0.25, proportional_attention=proportional)
    with torch.no_grad():
        hidden, groups = naive(model, pixels, method)
        grid = torch.zeros(FRAMES, PATCHES, hidden[0].shape[1])
        for frame in range(FRAMES):
            for token, members in enumerate(groups[frame]):
                grid[frame, members] = hidden[frame][token].float()
        pooled = model.model.apply_pooling(model.model.multi_modal_projector(grid))
        expected = [
            pooled[frame, members].mean(dim=0)
            for frame in range(FRAMES)
            for members in merge_down_naively(pooled[frame], 4)
        ]
        found = kept(model, batch([[pixels]]), method)
    assert_near(found, torch.stack(expected))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("proportional", [True, False])
def test_without_unmerging_the_tokens_leave_the_encoder_as_they_are(attention, proportional) -> None:
    model, pixels = tiny_model(attention), clip(FRAMES, 3)
    method = ToMe(retention=0.25, proportional_attention=proportional, unmerge=False)
    inputs = batch([[pixels]])
    with torch.no_grad():
        hidden, groups = naive(model, pixels, method)
        expected = model.model.multi_modal_projector(torch.cat(hidden).float())
        assert_near(kept(model, inputs, method), expected)
    _, trace = generate(model, inputs, method)
    rows = trace.videos[0].selection.to_rows()
    flat = [(frame, members) for frame in range(FRAMES) for members in groups[frame]]
    for row, (frame, members) in zip(rows, flat, strict=True):
        # An 8 x 8 grid of patches pooled to 4 x 4: each pooled token has four patches of its own.
        cells = [frame * POOLED + (patch // 8 // 2) * 4 + patch % 8 // 2 for patch in members]
        assert [source for source, _ in row] == cells
        assert [weight for _, weight in row] == pytest.approx([1 / len(members)] * len(members))


@pytest.mark.parametrize("method", [ToMe(), ToMe(unmerge=False), ToMe(retention=0.1)], ids=str)
def test_the_encoder_really_runs_fewer_tokens(model, method) -> None:
    seen = {"attention": [], "mlp": []}
    layers = model.model.vision_tower.encoder.layers
    handles = [
        part.register_forward_hook(lambda module, args, output, name=name: seen[name].append(tuple(shape(output))))
        for layer in layers
        for name, part in (("attention", layer.self_attn.out_proj), ("mlp", layer.mlp))
    ]
    try:
        _, trace = generate(model, batch([[clip(12, 0)], [clip(12, 1)]]), method)
    finally:
        for handle in handles:
            handle.remove()
    records = trace.videos[0].token_merges
    assert [record.layer for record in records] == list(range(8))
    assert seen["attention"] == [(24, record.tokens_before) for record in records]
    assert seen["mlp"] == [(24, record.tokens_after) for record in records]
    left = round(method.retention * (PATCHES if method.unmerge else POOLED))
    assert records[-1].tokens_after == left
    for video in trace.videos:
        assert video.tokens == video.budget == method.budget(video.grid)
        assert sum(video.details["tokens_per_frame"]) == video.tokens
        assert len(video.kept_tokens()) == video.tokens
    assert [merge["tokens_after"] for merge in trace.to_dict()["videos"][0]["token_merges"]][-1] == left


def shape(output: Tensor) -> torch.Size:
    return output.shape[:2]


@pytest.mark.parametrize("unmerge", [True, False])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_full_retention_is_bit_identical_to_stock(attention, unmerge) -> None:
    model, inputs = tiny_model(attention), batch([[clip(12, 0)], [clip(12, 1)]])
    with torch.no_grad():
        plain = model(**inputs).logits
        with earlytom.compress(model, ToMe(retention=1.0, unmerge=unmerge)):
            assert torch.equal(model(**inputs).logits, plain)


@pytest.mark.parametrize("method", [ToMe(), ToMe(unmerge=False)], ids=str)
def test_clips_do_not_touch_each_other(model, method) -> None:
    together, trace = generate(model, batch([[clip(12, 0)], [clip(12, 1)]]), method)
    for number in range(2):
        single, alone = generate(model, batch([[clip(12, number)]]), method)
        ids = batch([[clip(12, 0)], [clip(12, 1)]])["input_ids"]
        assert alone.videos[0].kept_tokens() == trace.videos[number].kept_tokens()
        if number == 0:  # the second prompt of a batch has other text than a first one
            assert together[0, ids.shape[1] :].tolist() == single[0, -4:].tolist()


@pytest.mark.parametrize("method", [ToMe(retention=0.1), ToMe(retention=0.1, unmerge=False)], ids=str)
def test_one_frame_and_black_static_and_nan_clips(model, method) -> None:
    clips = (clip(1, 0), torch.zeros(12, 3, 32, 32), clip(1, 0).expand(12, -1, -1, -1).clone())
    for pixels in (*clips, torch.full((12, 3, 32, 32), torch.nan)):
        _, trace = generate(model, batch([[pixels]]), method)
        assert trace.videos[0].tokens == method.budget(trace.videos[0].grid)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("method", [ToMe(), ToMe(unmerge=False)], ids=str)
def test_half_precision_keeps_the_budget(method, dtype) -> None:
    inputs = batch([[clip(12, 0)]])
    inputs["pixel_values_videos"] = inputs["pixel_values_videos"].to(dtype)
    _, trace = generate(tiny_model("sdpa", dtype), inputs, method)
    assert trace.videos[0].tokens == 48


@pytest.mark.parametrize("unmerge", [True, False])
def test_several_feature_layers_merge_alike(unmerge) -> None:
    model = tiny_model()
    model.config.vision_feature_layer = [-3, -1]
    projector, width = model.model.multi_modal_projector, model.config.vision_config.hidden_size
    projector.linear_1 = torch.nn.Linear(2 * width, projector.linear_1.out_features)
    _, trace = generate(model, batch([[clip(12, 0)]]), ToMe(unmerge=unmerge))
    assert trace.videos[0].tokens == 48


class Scores(Method):
    """Keeps the tokens that receive most attention in a layer, and remembers what it saw."""

    name, stages = "scores", ("tokens",)
    seen: list = []  # noqa: RUF012

    def encoder_plan(self, encoder):
        return EncoderPlan(attention_layer=4, keys=True)

    def select_tokens(self, tokens, budget):
        self.seen.append(tokens)
        order = torch.argsort(tokens.attention.flatten(), descending=True, stable=True)
        return earlytom.types.Decision(reduction=Reduction.keep(order[:budget].sort().values, tokens.attention.numel()))


def test_another_method_selects_by_attention_and_keys_as_if_every_patch_were_there(model) -> None:
    from earlytom.methods.compose import compose

    pixels = clip(FRAMES, 3)
    generate(model, batch([[pixels]]), compose(ToMe(), Scores(), retention=0.25))
    tokens = Scores.seen.pop()
    with torch.no_grad():
        schedule = schedule_naively(PATCHES - PATCHES // 4, 8, -0.5)
        received = torch.stack([encode_naively(model, frame, schedule, True)[2][4] for frame in pixels]).float()
        expected = model.model.apply_pooling(received[..., None])[..., 0]
    torch.testing.assert_close(tokens.attention, expected, atol=1e-6, rtol=1e-4)
    assert tokens.keys.shape == (FRAMES, POOLED, 8)
    assert tokens.features.shape[:2] == (FRAMES, POOLED)


@pytest.mark.parametrize(
    "text", ["tome+visionzip:retention=0.2", "tome+fastv:retention=0.5", "tome+random:retention=0.2"]
)
def test_it_goes_with_other_methods(model, text) -> None:
    output, trace = generate(model, batch([[clip(12, 0)]]), text)
    retention = earlytom.parse_method(text).retention
    assert trace.videos[0].tokens == round(retention * 12 * POOLED)
    assert trace.videos[0].token_merges[-1].tokens_after == round(retention * PATCHES)
    assert output.shape[1] > 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tome@encoder+earlytom@tokens:retention=0.2", "tome and earlytom cannot go together"),
        ("tome:unmerge=false+visionzip:retention=0.2", "cannot be selected from"),
    ],
)
def test_what_cannot_go_together_is_refused_before_anything_runs(model, text, message) -> None:
    with pytest.raises(earlytom.MethodError, match=message), earlytom.compress(model, text):
        pass


def test_a_method_that_merges_unequally_or_steps_aside_in_part_is_refused(model) -> None:
    class Unequal(ToMe):
        def merge_tokens(self, states, layer):
            return Reduction.keep(torch.arange(states.sizes.numel() - 1), states.sizes.numel())

    with pytest.raises(earlytom.CompressionError, match="equally many"):
        generate(model, batch([[clip(12, 0)]]), Unequal())
    answers = [None, None, "because", "because"]  # asked twice for each clip

    class Aside(ToMe):
        def steps_aside(self, grid):
            return answers.pop(0)

    with pytest.raises(earlytom.CompressionError, match="cannot step aside for some"):
        generate(model, batch([[clip(12, 0), clip(12, 1)]]), Aside())


@pytest.mark.parametrize("implementation", ["flash_attention_2", "flex_attention"])
def test_an_attention_without_a_bias_is_refused(implementation, monkeypatch) -> None:
    model = tiny_model()
    monkeypatch.setattr(model.model.vision_tower.config, "_attn_implementation_internal", implementation)
    refusal = f"{implementation}.*cannot take.*proportional_attention=False"
    with pytest.raises(earlytom.ModelError, match=refusal), earlytom.compress(model, ToMe()):
        model.generate(**batch([[clip(12, 0)]]), max_new_tokens=2)
    with pytest.raises(earlytom.ModelError, match=refusal):
        earlytom.prepare(model, batch([[clip(12, 0)]]), ToMe())


def test_an_attention_that_is_switched_inside_a_block_is_looked_at_again(monkeypatch) -> None:
    model = tiny_model()
    with earlytom.compress(model, ToMe()):
        monkeypatch.setattr(model.model.vision_tower.config, "_attn_implementation_internal", "flex_attention")
        with pytest.raises(earlytom.ModelError, match=r"flex_attention.*cannot take.*proportional_attention=False"):
            model.generate(**batch([[clip(12, 0)]]), max_new_tokens=2)
