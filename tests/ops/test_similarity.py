"""Similarity of frames against one pair and one token at a time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from earlytom.ops import frame_similarity, packed_frame_similarity, similarity, similarity_within, unit_rows
from reference.similarity import frame_similarity_naively
from reference.strategies import quick, scene_clips


@quick
@given(scene_clips(most=8))
def test_equals_the_naive_mean_of_cosines(features) -> None:
    torch.testing.assert_close(
        frame_similarity(features).double(), frame_similarity_naively(features), atol=1e-6, rtol=0
    )


@quick
@given(st.lists(scene_clips(most=8), min_size=1, max_size=4))
def test_tables_of_several_clips_are_those_of_each_bit_for_bit(clips) -> None:
    packed = packed_frame_similarity(clips)
    assert torch.equal(packed, torch.cat([frame_similarity(features).flatten() for features in clips]))


def test_clips_of_which_a_span_is_asked_for_stand_between_whole_ones() -> None:
    clips = [torch.randn(frames, 4, 6) for frames in (5, 150, 7)]
    packed = packed_frame_similarity(clips, [None, 5, 5])
    whole, blocks, short = packed.split([25, packed.numel() - 25 - 49, 49])
    assert torch.equal(whole.view(5, 5), frame_similarity(clips[0]))
    assert torch.equal(blocks.view(-1, 64, 64), similarity_within(clips[1], 5).blocks)
    assert torch.equal(short.view(7, 7), frame_similarity(clips[2]))


class Products(TorchDispatchMode):
    """Sums up the multiplications of all matrix products."""

    multiplications = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.mm.default:
            self.multiplications += args[0].shape[0] * args[0].shape[1] * args[1].shape[1]
        return function(*args, **(kwargs or {}))


def test_what_a_span_costs_is_linear_in_the_frames() -> None:
    counts = {}
    for frames in (500, 1000, 2000):
        with Products() as products:
            similarity_within(torch.randn(frames, 2, 3), 5)
        counts[frames] = products.multiplications
    assert counts[2000] < 2.2 * counts[1000] < 4.6 * counts[500]
    assert counts[500] < 500**2 * 6 / 5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_compared_in_float32(dtype) -> None:
    features = (300 * torch.randn(5, 9, 64)).to(dtype)  # squares overflow float16
    table = frame_similarity(features)
    assert table.dtype == torch.float32
    torch.testing.assert_close(table.double(), frame_similarity_naively(features.double()), atol=1e-6, rtol=0)


@pytest.mark.parametrize("chunk", [1, 50, 7 * 5 * 3, 1 << 25])
def test_chunks_of_tokens_add_up(monkeypatch, chunk) -> None:
    monkeypatch.setattr(similarity, "_CHUNK_VALUES", chunk)
    features = torch.randn(7, 11, 5)
    torch.testing.assert_close(
        frame_similarity(features).double(), frame_similarity_naively(features), atol=1e-6, rtol=0
    )


@quick
@given(scene_clips())
def test_table_is_symmetric_bounded_with_ones_on_the_diagonal_and_the_same_in_every_run(features) -> None:
    table = frame_similarity(features)
    torch.testing.assert_close(table, table.T, atol=1e-6, rtol=0)
    assert float(table.abs().max()) <= 1 + 1e-5
    torch.testing.assert_close(table.diagonal(), torch.ones(len(features)), atol=1e-5, rtol=0)
    assert torch.equal(table, frame_similarity(features))


def test_a_clip_within_a_batch_has_the_table_that_it_has_alone() -> None:
    features = torch.randn(9, 9, 6)
    torch.testing.assert_close(frame_similarity(features)[2:6, 2:6], frame_similarity(features[2:6]), atol=1e-6, rtol=0)


def test_similarity_does_not_depend_on_the_length_of_token_vectors() -> None:
    features = torch.randn(4, 9, 6)
    scaled = features * torch.rand(4, 9, 1).add(0.1) * 50
    torch.testing.assert_close(frame_similarity(scaled), frame_similarity(features), atol=1e-6, rtol=0)


def test_zero_vectors_have_similarity_zero() -> None:
    features = torch.randn(3, 4, 5)
    features[1] = 0
    table = frame_similarity(features)
    assert torch.equal(table[1], torch.zeros(3))
    assert torch.equal(table[:, 1], torch.zeros(3))
    assert float(table[0, 0]) == pytest.approx(1)


def test_one_zero_token_among_several_counts_as_zero() -> None:
    frame = torch.ones(4, 5)
    partly_black = frame.clone()
    partly_black[0] = 0
    assert float(frame_similarity(torch.stack([frame, partly_black]))[0, 1]) == pytest.approx(0.75)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_frame_that_is_not_finite_is_unlike_every_frame_and_harms_no_other(bad) -> None:
    features = torch.randn(4, 9, 6)
    expected = frame_similarity(features[[0, 1, 3]])
    features[2, 3, 1] = bad
    table = frame_similarity(features)
    assert torch.equal(table[2], torch.zeros(4))
    torch.testing.assert_close(table[[0, 1, 3]][:, [0, 1, 3]], expected, atol=1e-6, rtol=0)


def test_identical_frames_have_identical_similarities() -> None:
    features = torch.randn(1, 49, 48).expand(33, 49, 48).contiguous()
    assert frame_similarity(features).unique().numel() == 1


def test_unit_rows_have_length_one_and_zero_rows_stay_zero() -> None:
    rows = torch.randn(3, 4, 5)
    rows[1, 2] = 0
    scaled = unit_rows(rows)
    lengths = torch.ones(3, 4)
    lengths[1, 2] = 0
    torch.testing.assert_close(scaled.norm(dim=-1), lengths)


def test_a_table_is_differentiable_and_may_be_empty() -> None:
    features = torch.randn(3, 4, 5, requires_grad=True)
    frame_similarity(features).sum().backward()
    assert features.grad is not None
    assert frame_similarity(torch.zeros(0, 4, 5)).shape == (0, 0)
    assert not packed_frame_similarity([features, features]).requires_grad
