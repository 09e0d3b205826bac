"""The paper's FLOPs from its own count, and what does not come out of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from earlytom.bench.accounting import PAPER_MODELS, AccountingRow, account, paper_flops, tokens_per_layer
from earlytom.bench.published import PUBLISHED, PublishedRow
from earlytom.errors import EarlyTomError

ONEVISION = {"frames": 32, "uncompressed": 6272}


def find(rows: Sequence[AccountingRow], method: str, retention: float) -> AccountingRow:
    (found,) = [row for row in rows if (row.published.method, row.published.retention) == (method, retention)]
    return found


@pytest.mark.parametrize(
    ("entering", "after", "published"),
    [
        (6272, {}, 82.6),
        (1568, {}, 50.5),
        (941, {}, 46.9),
        (627, {}, 45.2),
        (1568, {18: 784}, 49.0),
        (6272, {2: 1254}, 51.1),
    ],
    ids=["none", "visionzip 25%", "visionzip 15%", "visionzip 10%", "holitom 25%", "fastv"],
)
def test_the_main_table_comes_out_of_its_count(entering, after, published) -> None:
    found = paper_flops("llava-onevision-7b", tokens_per_layer(entering, 28, after), **ONEVISION)
    assert found is not None
    assert found.total / 1e12 == pytest.approx(published, rel=0.01)
    assert found.to_dict() == {"language": found.language, "vision": 41_800_000_000_000, "total": found.total}


def test_the_count_is_the_formula_added_up_layer_by_layer() -> None:
    width, inner = 3584, 18944
    one = {n: 4 * n * width**2 + 2 * n**2 * width + 2 * n * width * inner for n in (1568, 784)}
    found = paper_flops("llava-onevision-7b", tokens_per_layer(1568, 28, {18: 784}), **ONEVISION)
    assert found is not None
    assert found.language == 18 * one[1568] + 10 * one[784]


def test_the_constant_grows_with_the_clip_and_shrinks_with_the_encoder_s_work() -> None:
    tokens = [100] * 28
    whole = paper_flops("llava-onevision-7b", tokens, **ONEVISION)
    short = paper_flops("llava-onevision-7b", tokens, frames=8, uncompressed=8 * 196, encoder_share=0.5)
    assert whole is not None
    assert short is not None
    assert (short.language, short.vision * 8) == (whole.language, whole.vision)
    # Of frames that can have any size, the tokens say how large the clip is.
    half = paper_flops("qwen2.5-vl-7b", tokens, frames=768, uncompressed=11_500)
    assert half is not None
    assert half.vision == 21_100_000_000_000


def test_every_row_without_merged_frames_has_its_difference_and_few_come_out() -> None:
    """Pinned where the count does not give the table, so that a change of either is seen."""
    large = {
        (model, row.published.method): round(row.difference, 1)
        for model in PAPER_MODELS
        for row in account(model)
        if row.difference is not None and abs(row.difference) > 0.01 * (row.published.tera_flops or 0.0)
    }
    assert large == {
        ("llava-onevision-7b", "pyramiddrop"): -8.0,
        ("llava-video-7b", "fastv"): -11.0,
        ("llava-video-7b", "pyramiddrop"): -30.8,
    }
    for model, published in PUBLISHED.items():
        for row in account(model):
            assert (row.formula is None) == (row.published.method == "earlytom")
            assert row.published in published


def test_rows_with_merged_frames_tell_what_is_left_for_the_vision_side() -> None:
    """The same at every retention: the tables take one fixed number of frames, which the paper does not tell."""
    for model in ("llava-onevision-7b", "llava-onevision-0.5b"):
        left = [row.vision_left for row in account(model) if row.published.method == "earlytom"]
        assert left == [pytest.approx(29.4, abs=0.1)] * 4
    assert all(row.reading == "" for row in account("llava-onevision-7b"))


def test_both_readings_stand_where_the_paper_does_not_settle_inner_merging() -> None:
    """Table 7 names no inner merging: 67.7 T leave 17.9 T without it, 27.2 T with it at the usual layer."""
    rows = [row for row in account("qwen2.5-vl-7b") if row.published.method == "earlytom"]
    assert [(row.reading, round(row.language, 1), round(row.vision_left or 0.0, 1)) for row in rows] == [
        ("without inner merging", 49.8, 17.9),
        ("with inner merging", 40.5, 27.2),
    ]
    assert [(row.formula, row.difference, row.true) for row in rows] == [(None, None, None)] * 2
    assert [row.reading for row in account("qwen2.5-vl-7b") if row.published.method != "earlytom"] == [""] * 3


def test_true_operations_are_asked_for_with_the_tokens_of_each_layer() -> None:
    asked: list[list[int]] = []

    def count(tokens: Sequence[int]) -> int:
        asked.append(list(tokens))
        return 7 * 10**12

    wanted = {("none", 1.0), ("fastv", 1.0), ("holitom", 0.25), ("earlytom", 0.25)}
    chosen = [row for row in PUBLISHED["llava-onevision-7b"] if (row.method, row.retention) in wanted]
    rows = account("llava-onevision-7b", count, chosen)
    assert asked == [[6272] * 28, [6272] * 2 + [1254] * 26, [1568] * 18 + [784] * 10]
    assert [row.true for row in rows] == [7.0, 7.0, 7.0, None]


def test_a_row_without_a_published_figure_has_no_difference() -> None:
    row = find(account("llava-onevision-0.5b"), "visionzip", 0.1)
    assert row.formula == pytest.approx(42.0, abs=0.1)
    assert (row.difference, row.vision_left) == (None, None)


def test_language_models_by_true_operations() -> None:
    """Table 7: 23,000 and 3,450 tokens leave the same constant."""
    rows = account("qwen2.5-vl-7b")
    assert find(rows, "none", 1.0).language == pytest.approx(512.5, abs=0.1)
    assert find(rows, "uniform", 0.15).language == pytest.approx(49.8, abs=0.1)
    assert find(rows, "none", 1.0).vision_left == pytest.approx(42.2, abs=0.1)


def test_models_and_layers_that_are_not_there() -> None:
    assert paper_flops("qwen3-vl-8b", [1], frames=1, uncompressed=1) is None
    with pytest.raises(EarlyTomError, match=r"no table for 'qwen3-vl-8b'; it has them for llava-onevision-7b"):
        account("qwen3-vl-8b")
    with pytest.raises(EarlyTomError, match="28 language layers, got tokens of 3"):
        paper_flops("llava-onevision-7b", [1, 1, 1], **ONEVISION)
    with pytest.raises(EarlyTomError, match="layers 0 to 27, got tokens before layer 28"):
        tokens_per_layer(100, 28, {28: 3})


def test_a_published_row_says_nothing_of_ours() -> None:
    speedups = {
        (row.method, row.retention): round(889.9 / row.ttft, 2)
        for row in PUBLISHED["llava-onevision-7b"]
        if row.ttft is not None
    }
    assert speedups["earlytom", 0.1] == 2.65  # as the supplementary says of Figure 7
    small: list[PublishedRow] = [row for row in PUBLISHED["llava-onevision-0.5b"] if row.retention == 0.1]
    assert [round(413.7 / row.ttft, 2) for row in small if row.ttft] == [
        1.13,
        0.91,
        1.48,
    ]  # of Figure 8 it says 0.90 and 1.48
