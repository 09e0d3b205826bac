"""What is known of a long clip's similarities, against the whole table."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from earlytom import MethodError, similarity
from earlytom.ops import frame_similarity, similarity_within
from earlytom.similarity import FrameSimilarity, block_starts
from reference.similarity import frame_similarity_naively
from reference.strategies import quick, scene_clips

SMALL_BLOCKS = {"_BLOCK": 4, "_BLOCK_OF_SPAN": 2}


@pytest.fixture
def small_blocks(monkeypatch) -> None:
    for name, value in SMALL_BLOCKS.items():
        monkeypatch.setattr(similarity, name, value)


@quick
@given(st.integers(0, 700), st.integers(1, 30))
def test_frames_within_the_span_are_together_in_a_block(frames, span) -> None:
    starts, size = block_starts(frames, span)
    assert starts == sorted(set(starts))
    assert all(0 <= start <= frames - size for start in starts)
    assert len(starts) == 1 or len(starts) * (size - span) < frames + size
    for first in range(frames):
        last = min(frames - 1, first + span)
        assert any(start <= first and last < start + size for start in starts)


@pytest.mark.parametrize("frames", [0, 1, 64, 128])
def test_usual_clips_are_one_block(frames) -> None:
    assert block_starts(frames, 5) == ([0], frames)


def test_all_is_one_block_where_all_is_asked_for() -> None:
    assert block_starts(4000, None) == ([0], 4000)
    assert block_starts(4000, 3999) == ([0], 4000)


@quick
@given(scene_clips(most=24), st.integers(1, 5))
def test_rows_equal_the_naive_table_as_far_as_the_span(features, span) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL_BLOCKS.items():
            patch.setattr(similarity, name, value)
        rows = similarity_within(features, span).rows()
    expected = frame_similarity_naively(features).tolist()
    frames = len(features)
    assert len(rows) == frames
    for one in range(frames):
        for other in range(max(0, one - span), min(frames, one + span + 1)):
            assert rows[one][other] == pytest.approx(expected[one][other], abs=1e-6)
            assert rows[one][other] == pytest.approx(rows[other][one], abs=1e-6)


@pytest.mark.parametrize("frames", [1, 64, 128])
def test_usual_clips_have_the_rows_of_the_whole_table_bit_for_bit(frames) -> None:
    features = torch.randn(frames, 9, 6)
    assert similarity_within(features, 5).rows() == frame_similarity(features).tolist()


def test_equal_pairs_are_equal_in_every_block() -> None:
    still = torch.randn(1, 49, 48).expand(333, 49, 48).contiguous()
    known = similarity_within(still, 5)
    assert known.blocks.shape[0] > 2
    assert known.blocks.unique().numel() == 1


def test_long_clips_agree_with_the_whole_table() -> None:
    features = torch.randn(300, 20, 48)
    rows, whole = similarity_within(features, 5).rows(), frame_similarity(features).tolist()
    apart = [abs(rows[i][j] - whole[i][j]) for i in range(300) for j in range(i, min(300, i + 6))]
    assert max(apart) < 3e-7


def test_a_frame_that_is_not_finite_is_unlike_all_and_harms_no_other(small_blocks) -> None:
    features = torch.randn(20, 9, 6)
    expected = similarity_within(features, 2).rows()
    features[11, 3, 1] = float("nan")
    rows = similarity_within(features, 2).rows()
    for one in range(19):
        harmed = 11 in (one, one + 1)
        assert rows[one][one + 1] == (0.0 if harmed else expected[one][one + 1])


@pytest.mark.parametrize(("one", "other"), [(3, 7), (7, 3), (3, 20), (19, 21), (3, -1)])
def test_what_is_too_far_apart_is_refused(one, other, small_blocks) -> None:
    rows = similarity_within(torch.randn(20, 9, 6), 2).rows()
    with pytest.raises(
        MethodError, match=rf"frames {one} and {other} is not known: of the 20 frames .* at most 2 apart"
    ):
        rows[one][other]


def test_blocks_must_be_those_of_the_clip() -> None:
    with pytest.raises(MethodError, match=r"of 200 frames at most 5 apart must be \[4, 64, 64\], got \(200, 200\)"):
        FrameSimilarity(torch.zeros(200, 200), 200, 5)
    assert FrameSimilarity(torch.zeros(4, 64, 64), 200, 5).shape == (200, 200)
