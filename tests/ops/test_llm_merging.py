"""Inner-LLM merging against naive loops: sequential averages (official) and plain means (default)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from earlytom.ops import llm_merging, merge_dropped_tokens
from reference.llm_merging import merge_dropped_naively
from reference.strategies import quick

ratios = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])


@st.composite
def visual_tokens(draw: st.DrawFn, most: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    """[V, D] hidden states and [V] attention with ties."""
    tokens = draw(st.integers(1, most))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31 - 1)))
    attention = torch.randint(0, draw(st.sampled_from([2, 5, 10_000])), (tokens,), generator=generator) / 100
    return torch.randn(tokens, 6, generator=generator), attention


@quick
@given(visual_tokens(), ratios, st.booleans())
def test_equals_the_naive_loop(case, ratio, sequential) -> None:
    hidden, attention = case
    reduction = merge_dropped_tokens(hidden, attention, ratio=ratio, sequential=sequential)
    kept, expected = merge_dropped_naively(hidden, attention, ratio, sequential)
    assert reduction.survivors().tolist() == kept
    torch.testing.assert_close(reduction.apply(hidden).double(), expected, atol=1e-5, rtol=1e-5)


@quick
@given(visual_tokens(), ratios, st.booleans())
def test_every_token_is_used_once_and_weights_sum_to_one(case, ratio, sequential) -> None:
    hidden, attention = case
    reduction = merge_dropped_tokens(hidden, attention, ratio=ratio, sequential=sequential)
    assert sorted(reduction.source.tolist()) == list(range(len(hidden)))
    assert reduction.outputs == max(1, round(len(hidden) * (1 - ratio)))
    for row in reduction.to_rows():
        assert sum(weight for _, weight in row) == pytest.approx(1, abs=1e-5)


def test_three_sources_weigh_as_the_authors_code_weighs_them() -> None:
    """methods.md 2.5: the kept token weighs 1/8, the last of three joiners 1/2."""
    hidden = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [1.0, 0.3]])
    attention = torch.tensor([0.0, 1.0, 0.0, 0.0])
    sequential = merge_dropped_tokens(hidden, attention, ratio=0.75, sequential=True)
    assert sequential.to_rows() == [[(0, 0.125), (1, 0.125), (2, 0.25), (3, 0.5)]]
    mean = merge_dropped_tokens(hidden, attention, ratio=0.75, sequential=False)
    assert mean.to_rows() == [[(0, 0.25), (1, 0.25), (2, 0.25), (3, 0.25)]]


def test_the_kept_share_is_one_less_the_ratio_in_floats() -> None:
    """1 - 0.7 is 0.30000000000000004, and 15 of it round to 5; 15 * 0.3 = 4.5 would round to 4."""
    reduction = merge_dropped_tokens(torch.randn(15, 4), torch.rand(15), ratio=0.7, sequential=True)
    assert reduction.outputs == 5 > round(15 * 0.3)


def test_outputs_are_anchored_at_the_kept_tokens_even_where_an_earlier_token_joined() -> None:
    hidden = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    reduction = merge_dropped_tokens(hidden, torch.tensor([0.1, 0.9, 0.5]), ratio=0.4, sequential=False)
    assert reduction.survivors().tolist() == [1, 2]
    assert [[source for source, _ in row] for row in reduction.to_rows()] == [[0, 1], [2]]


def test_attention_ties_keep_the_lower_index() -> None:
    reduction = merge_dropped_tokens(torch.randn(10, 4), torch.ones(10), ratio=0.5, sequential=False)
    assert reduction.survivors().tolist() == [0, 1, 2, 3, 4]


def test_equally_similar_targets_take_the_lower_index() -> None:
    hidden = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    reduction = merge_dropped_tokens(hidden, torch.tensor([0.5, 0.4, 0.3, 0.1]), ratio=0.25, sequential=False)
    assert [[source for source, _ in row] for row in reduction.to_rows()] == [[0], [1, 3], [2]]


def test_targets_are_chosen_by_direction_not_by_length() -> None:
    hidden = torch.tensor([[100.0, 90.0], [0.01, 0.0], [1.0, 0.01]])
    reduction = merge_dropped_tokens(hidden, torch.tensor([0.5, 0.4, 0.1]), ratio=0.34, sequential=False)
    assert [[source for source, _ in row] for row in reduction.to_rows()] == [[0], [1, 2]]


@pytest.mark.parametrize("chunk", [1, 10, 1 << 24])
def test_chunks_of_dropped_tokens_give_the_same_targets(monkeypatch, chunk) -> None:
    hidden, attention = torch.randn(40, 6), torch.rand(40)
    monkeypatch.setattr(llm_merging, "_CHUNK_VALUES", chunk)
    reduction = merge_dropped_tokens(hidden, attention, ratio=0.6, sequential=False)
    _, expected = merge_dropped_naively(hidden, attention, 0.6, sequential=False)
    torch.testing.assert_close(reduction.apply(hidden).double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("bad", [0.0, float("nan")])
def test_zero_and_nan_tokens_do_not_crash_and_keep_the_count(bad, sequential) -> None:
    hidden, attention = torch.randn(10, 4), torch.rand(10)
    hidden[3] = bad
    hidden[7] = bad
    attention[5] = float("nan")
    reduction = merge_dropped_tokens(hidden, attention, ratio=0.5, sequential=sequential)
    assert reduction.outputs == 5
    assert sorted(reduction.source.tolist()) == list(range(10))
    assert 5 not in reduction.survivors().tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_averaged_in_float32_and_rounded_once(dtype) -> None:
    hidden, attention = torch.randn(30, 8).to(dtype), torch.rand(30)
    reduction = merge_dropped_tokens(hidden, attention, ratio=0.8, sequential=False)
    _, expected = merge_dropped_naively(hidden.float(), attention, 0.8, sequential=False)
    torch.testing.assert_close(reduction.apply(hidden), expected.to(dtype), atol=0, rtol=2 * torch.finfo(dtype).eps)
