"""A checksum of pixels: whole numbers, the same for the same clip, another for another."""

from __future__ import annotations

import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from earlytom.ops import fingerprint
from reference.strategies import quick


def naively(pixels: torch.Tensor) -> int:
    """Value by value, the upper half of each float32 after rounding, as Python whole numbers."""
    total, place = 0, 0
    for frame in pixels:
        values = frame.flatten()
        step = max(1, len(values) // 1024)
        for value in values[::step].to(torch.bfloat16).float().tolist():
            (bits,) = struct.unpack(">h", struct.pack(">f", value)[:2])
            total += bits * ((place * 40503 + 1) % 1048573)
            place += 1
    return total


@quick
@given(st.integers(1, 4), st.integers(1, 60), st.integers(0, 9))
def test_equals_whole_numbers_in_python(frames, values, seed) -> None:
    pixels = torch.randn(frames, values, generator=torch.Generator().manual_seed(seed))
    assert int(fingerprint(pixels)) == naively(pixels)


def test_large_frames_are_sampled() -> None:
    pixels = torch.randn(2, 3, 40, 40)
    assert int(fingerprint(pixels)) == naively(pixels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_clip_has_one_in_both_dtypes_and_others_have_others(dtype) -> None:
    clips = [torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(50)]
    found = [int(fingerprint(clip.to(dtype))) for clip in clips]
    assert found == [int(fingerprint(clip)) for clip in clips]
    assert len(set(found)) == 50
    assert int(fingerprint(clips[0].flip(0))) != found[0]


def test_extremes_are_numbers_too() -> None:
    for value in (float("nan"), float("inf"), 0.0, 3e38):
        fingerprint(torch.full((768, 3, 32, 32), value))
    largest = fingerprint(torch.full((768, 3, 32, 32), -float("inf")))
    assert -(2**62) < int(largest) < 2**62
