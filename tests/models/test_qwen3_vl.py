"""What is Qwen3-VL's own: DeepStack features and timestamps. The rest: test_qwen_vl*.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

import earlytom
from earlytom.methods import make_method
from earlytom.methods.base import Method
from earlytom.models import open_model
from earlytom.reduction import Reduction
from earlytom.runtime.encode import encode_videos
from earlytom.runtime.plans import Plans
from earlytom.trace import Stopwatch
from earlytom.types import Decision, FrameGrid, KeptTokens
from families.qwen2_5_vl import END, START, VIDEO
from families.qwen3_vl import TIMESTAMP, batch, build, clip, image

PER_FRAME, WIDTH = 15, 48
QUARTER = "earlytom:retention=0.25,merge_layers=1/3/5"


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return build()


@dataclass(frozen=True, kw_only=True)
class Chosen(Method):
    """Keeps the tokens it is told, in the order it is told, and remembers what it was shown."""

    tokens: tuple[int, ...] = ()
    name: ClassVar[str] = "chosen"
    summary: ClassVar[str] = "for tests"
    exact_budget: ClassVar[bool] = False
    seen: ClassVar[list[torch.Tensor]] = []

    def select_tokens(self, tokens, budget):
        self.seen.append(tokens.features)
        count = tokens.features.shape[0] * tokens.features.shape[1]
        return Decision(reduction=Reduction.keep(torch.tensor(self.tokens), count))


def assembled(model, inputs, method):
    host, method = open_model(model), make_method(method)
    call = host.open(inputs)
    with torch.no_grad():
        kept, _ = encode_videos(call, method, Plans.of(method, host).encoder, Stopwatch(torch.device("cpu")))
        return call.assemble(kept), kept


def framed(inputs):
    """The same single prompt with start and end around its clip, as the chat template writes them."""
    ids = inputs["input_ids"][0].tolist()
    begin, end = ids.index(START) - TIMESTAMP, len(ids) - ids[::-1].index(END)
    row = torch.tensor([[*ids[:begin], START, *ids[begin:end], END, *ids[end:]]])
    return inputs | {
        "input_ids": row, "attention_mask": torch.ones_like(row), "mm_token_type_ids": (row == VIDEO).int() * 2
    }  # fmt: skip


def kept_text(inputs, counts: list[int], *, template: bool) -> list[int]:
    """The prompt of one sample with one clip, with so many placeholders in each frame, written anew."""
    ids = inputs["input_ids"][0].tolist()
    begin = ids.index(START) + 1 if template else ids.index(START) - TIMESTAMP
    frame = TIMESTAMP + 2 + PER_FRAME
    row = ids[:begin]
    for number, count in enumerate(counts):
        stamp = ids[begin + number * frame :][:TIMESTAMP]
        if count:
            row += [*stamp, START, *[VIDEO] * count, END]
        elif number == 0 and not template:
            row += stamp
    return row + ids[begin + len(counts) * frame :]


@pytest.mark.parametrize("template", [False, True], ids=["bare", "in the chat template"])
@pytest.mark.parametrize(
    ("tokens", "counts"),
    [
        ((0, 14, 15, 40, 41, 75), [2, 1, 2, 0, 0, 1]),
        ((31, 76, 30, 1), [1, 0, 2, 0, 0, 1]),
        ((16, 44), [0, 1, 1, 0, 0, 0]),
        ((89,), [0, 0, 0, 0, 0, 1]),
        (tuple(range(15, 30)), [0, 15, 0, 0, 0, 0]),
    ],
    ids=["some", "unordered", "without the first", "the last", "one whole"],
)
def test_frames_without_tokens_leave_with_their_timestamps(model, tokens, counts, template) -> None:
    inputs = framed(batch([[clip(6, 0)]])) if template else batch([[clip(6, 0)]])
    method = Chosen(tokens=tokens)
    prepared, (kept,) = assembled(model, inputs, method)
    expected = kept_text(inputs, counts, template=template)
    assert prepared.visual_positions == (tuple(n for n, token in enumerate(expected) if token == VIDEO),)
    assert prepared.dropped == (inputs["input_ids"].shape[1] - len(expected),)
    embeds = prepared.arguments["inputs_embeds"][0]
    text = [place for place, token in enumerate(expected) if token != VIDEO]
    assert torch.equal(embeds[text], model.get_input_embeddings()(torch.tensor([expected[n] for n in text])))
    by_grid = sorted(range(len(tokens)), key=lambda n: tokens[n] // PER_FRAME)
    assert torch.equal(embeds[list(prepared.visual_positions[0])], kept.features[by_grid, :WIDTH])
    deepstack = prepared.language_arguments["deepstack_visual_embeds"](1)
    for number, features in enumerate(deepstack, 1):
        assert torch.equal(features, kept.features[by_grid, number * WIDTH : (number + 1) * WIDTH])
    # The kept tokens stand at their own row and column: the grid is one of 3 x 5, its time that of the frame's start.
    positions = prepared.arguments["position_ids"][1:, 0, list(prepared.visual_positions[0])]
    for (time, row, column), number in zip(positions.T.tolist(), by_grid, strict=True):
        frame, token = divmod(tokens[number], PER_FRAME)
        assert time == inputs["input_ids"][0].tolist().index(VIDEO) + frame * (TIMESTAMP + 2 + 5)
        assert (row - time, column - time) == divmod(token, 5)


def test_methods_see_the_final_features_and_reduce_all_of_them(model) -> None:
    inputs, method = batch([[clip(6, 0)]]), Chosen(tokens=(3, 20, 88))
    method.seen.clear()
    _, (kept,) = assembled(model, inputs, method)
    with torch.no_grad():
        stock = model.model.get_video_features(inputs["pixel_values_videos"], inputs["video_grid_thw"])
    final = torch.cat(list(stock.pooler_output))
    assert torch.equal(method.seen[0].flatten(0, 1), final)
    sets = [part if torch.is_tensor(part) else torch.cat(list(part)) for part in stock.deepstack_features]
    assert torch.equal(kept.features, torch.cat([final, *sets], dim=1)[[3, 20, 88]])


@pytest.mark.parametrize("method", ["holitom:retention=0.2", "prunevid:retention=0.2", "dycoke:retention=0.3"])
def test_comparing_methods_decide_by_the_final_features(model, method) -> None:
    """The tokens that are kept do not change when only the DeepStack mergers do."""
    inputs, other = batch([[clip(12, 0)]]), build()
    with torch.no_grad():
        for merger in other.model.visual.deepstack_merger_list:
            merger.linear_fc2.weight.normal_(generator=torch.Generator().manual_seed(4)).mul_(50)
    (_, (ours,)), (_, (theirs,)) = (assembled(one, inputs, method) for one in (model, other))
    assert torch.equal(ours.places, theirs.places)
    assert torch.equal(ours.features[:, :WIDTH], theirs.features[:, :WIDTH])
    assert not torch.equal(ours.features[:, WIDTH:], theirs.features[:, WIDTH:])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("deepstack", [(), (5,), (7, 0), (1, 3, 5)])
def test_any_deepstack_layers_are_bit_identical_to_stock(deepstack, attention) -> None:
    model = build(attention, deepstack=deepstack)
    inputs = image(batch([[clip(5, 0)], [clip(4, 1), clip(3, 2)]]), 1)
    assert open_model(model).shape.feature_sets == 1 + len(deepstack)
    with torch.no_grad():
        plain = model(**inputs).logits
        with earlytom.compress(model, "none"):
            assert torch.equal(model(**inputs).logits, plain)


@pytest.mark.parametrize("method", ["none", "earlytom:retention=1.0,frame_merging=false"])
def test_prompts_of_the_chat_template_are_bit_identical_to_stock(model, method) -> None:
    inputs = framed(batch([[clip(6, 0)]]))
    with torch.no_grad():
        plain = model(**inputs).logits
        with earlytom.compress(model, method):
            assert torch.equal(model(**inputs).logits, plain)


def test_the_text_before_a_clip_behind_an_image_stays(model) -> None:
    """The vision_end of an image stands before the clip, so the first timestamp cannot be told from the text."""
    inputs = image(batch([[clip(6, 0)]]), 0)
    prepared, _ = assembled(model, inputs, Chosen(tokens=(89,)))
    frame = TIMESTAMP + 2 + PER_FRAME
    assert prepared.dropped == (6 * frame - TIMESTAMP - (TIMESTAMP + 3),)


@pytest.mark.parametrize(("deepstack", "earliest"), [((), 1), ((5,), 1), ((2, 5), 2), ((1, 3, 5), 3)])
def test_tokens_stay_until_the_last_features_were_added(deepstack, earliest) -> None:
    model, inputs = build(deepstack=deepstack), batch([[clip(12, 0)]])
    assert open_model(model).language.earliest_reduction == earliest
    if earliest > 1:
        early = f"fastv:layer={earliest - 1},retention=0.9"
        with pytest.raises(earlytom.MethodError, match=f"before layer {earliest} at the earliest"):
            earlytom.prepare(model, inputs, early)
    with earlytom.compress(model, f"fastv:layer={earliest},retention=0.9") as trace:
        model.generate(**inputs, max_new_tokens=2, do_sample=False)
    reduction = trace.last.language[0]
    assert reduction.layer == earliest
    assert reduction.tokens_after[0] < reduction.tokens_before[0]


def test_deepstack_features_of_images_and_videos_stand_in_the_order_of_the_prompts(model) -> None:
    """Two samples, an image before the clips of the second; every row of the joint features is checked, with beams."""
    inputs = image(batch([[clip(6, 0)], [clip(4, 1), clip(5, 2)]]), 1)
    prepared, kept = assembled(model, inputs, "uniform:retention=0.4")
    with torch.no_grad():
        images = model.model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"]).deepstack_features
    images = [part if torch.is_tensor(part) else torch.cat(list(part)) for part in images]
    mask = prepared.language_arguments["visual_pos_masks"](3)
    found = prepared.language_arguments["deepstack_visual_embeds"](3)
    assert mask.shape == (6, prepared.arguments["inputs_embeds"].shape[1])
    for number, features in enumerate(found):
        columns = slice((number + 1) * WIDTH, (number + 2) * WIDTH)
        first = kept[0].features[:, columns]
        second = torch.cat([images[number], kept[1].features[:, columns], kept[2].features[:, columns]])
        assert torch.equal(features, torch.cat([first] * 3 + [second] * 3))
    rows = [row.nonzero().flatten().tolist() for row in mask]
    assert rows[0] == rows[1] == rows[2] == list(prepared.visual_positions[0])
    assert rows[3] == rows[4] == rows[5]
    assert rows[5][6:] == list(prepared.visual_positions[1])
    assert rows[5][:6] == list(range(rows[5][0], rows[5][0] + 6))


def test_prepare_says_why_it_cannot(model) -> None:
    with pytest.raises(earlytom.ModelError, match=r"visual_pos_masks, deepstack_visual_embeds.*use earlytom.compress"):
        earlytom.prepare(model, batch([[clip(12, 0)]]), QUARTER)


def one_run(inputs):
    """The placeholders of all frames behind one another, as Qwen2.5-VL has them."""
    ids = inputs["input_ids"][0].tolist()
    videos = ids.count(VIDEO)
    begin = ids.index(VIDEO)
    behind = len(ids) - ids[::-1].index(VIDEO)
    row = [*ids[:begin], *[VIDEO] * videos, *ids[behind:]]
    return inputs | {"input_ids": torch.tensor([row]), "attention_mask": torch.ones(1, len(row), dtype=torch.int64)}


def unmarked(token):
    return lambda inputs: inputs | {"input_ids": inputs["input_ids"].masked_fill(inputs["input_ids"] == token, 7)}


def uneven(inputs):
    """One placeholder moves from the first frame to the second."""
    ids = inputs["input_ids"].clone()
    first = int((ids[0] == VIDEO).nonzero()[0])
    second = first + PER_FRAME + TIMESTAMP + 2
    row = ids[0].tolist()
    row.insert(second, row.pop(first))
    return inputs | {"input_ids": torch.tensor([row])}


@pytest.mark.parametrize(
    "change", [one_run, unmarked(START), unmarked(END), uneven], ids=["one run", "no start", "no end", "uneven"]
)
def test_placeholders_that_are_not_one_run_a_frame_are_refused(model, change) -> None:
    inputs = change(batch([[clip(6, 0)]]))
    with (
        earlytom.compress(model, QUARTER),
        torch.no_grad(),
        pytest.raises(earlytom.CompressionError, match="each of the 6 temporal grids of video 0 together, 15 between"),
    ):
        model(**inputs)


def test_more_tokens_than_a_frame_has_are_refused(model) -> None:
    call = open_model(model).open(batch([[clip(2, 0)]]))
    assert call.grids == [FrameGrid(frames=2, rows=3, columns=5)]
    kept = KeptTokens(features=torch.zeros(16, 3 * WIDTH), places=torch.zeros(16, dtype=torch.int64))
    with pytest.raises(earlytom.CompressionError, match="16 tokens were kept in one frame of 15"):
        call.assemble([kept])


def test_pooled_attention_is_the_mean_of_each_unit_in_raster_order(model) -> None:
    attention = torch.rand(2, PER_FRAME * 4, generator=torch.Generator().manual_seed(1))
    pooled = open_model(model).tower(FrameGrid(frames=2, rows=3, columns=5)).pool_attention(attention)
    for frame in range(2):
        for token in range(PER_FRAME):
            expected = sum(attention[frame, 4 * token + patch] for patch in range(4)) / 4
            torch.testing.assert_close(pooled[frame, token], expected)
