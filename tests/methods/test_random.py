"""Random selection against shuffling frame by frame."""

from __future__ import annotations

import binascii
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import earlytom
from conftest import batch, clip, tiny_model
from earlytom import MethodError, RandomSelection
from families import FAMILY_NAMES, family_case
from reference.selection import best_first
from reference.spacing import shares_naively
from reference.strategies import quick
from reference.token_clips import decide, shares, token_clips, visual_tokens


def drawn_naively(seed: int, fingerprint: int | None, frames: int, tokens: int, counts: list[int]) -> list[int]:
    """Every token draws a number on the host; in each frame the highest ones win."""
    start = binascii.crc32(f"{seed} {fingerprint}".encode())
    numbers = torch.rand(frames, tokens, generator=torch.Generator().manual_seed(start), dtype=torch.float64)
    return [
        frame * tokens + token
        for frame, count in enumerate(counts)
        for token in sorted(best_first(numbers[frame].tolist())[:count])
    ]


@quick
@given(token_clips(), shares, st.integers(0, 5), st.none() | st.integers(-(2**62), 2**62))
def test_equals_the_naive_draw_keeps_the_budget_and_the_order(tokens, retention, seed, fingerprint) -> None:
    tokens = replace(tokens, fingerprint=fingerprint)
    decision, reduction, budget = decide(RandomSelection(retention=retention, seed=seed), tokens)
    frames, per_frame = tokens.features.shape[:2]
    kept = reduction.source.tolist()
    assert kept == drawn_naively(seed, fingerprint, frames, per_frame, shares_naively(budget, frames))
    assert len(kept) == len(set(kept)) == budget
    assert reduction.weight is None
    assert decision.details["tokens_per_frame"] == shares_naively(budget, frames)


def test_the_draw_depends_on_seed_clip_and_shape_alone() -> None:
    method = RandomSelection(retention=0.5)
    first = decide(method, replace(visual_tokens(8, 5, 5, seed=1), fingerprint=7))[1].source
    torch.manual_seed(123)
    assert torch.equal(first, decide(method, replace(visual_tokens(8, 5, 5, seed=2), fingerprint=7))[1].source)
    other = decide(RandomSelection(retention=0.5, seed=1), replace(visual_tokens(8, 5, 5), fingerprint=7))[1].source
    assert not torch.equal(first, other)
    another = decide(method, replace(visual_tokens(8, 5, 5, seed=1), fingerprint=8))[1].source
    assert not torch.equal(first, another)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_each_clip_has_its_own_places_wherever_it_is_encoded(family) -> None:
    """Alone, beside others, in bfloat16, and in the next run; another clip of the same shape has others."""
    case = family_case(family)
    model, half = case.build(), case.build(dtype=torch.bfloat16)
    clips = [[case.clip(6, 0)], [case.clip(6, 1)]]

    def kept(model, inputs) -> list[list[tuple[int, int]]]:
        with torch.no_grad(), earlytom.compress(model, "random:retention=0.3") as trace:
            model(**inputs)
        return [clip.kept_tokens() for clip in trace.videos]

    together = kept(model, case.batch(clips))
    assert together[0] != together[1]
    assert kept(model, case.batch(clips)) == together
    assert kept(model, case.batch(clips[:1])) == together[:1]
    pixels = {
        name: value.bfloat16() if name.startswith("pixel") else value for name, value in case.batch(clips).items()
    }
    assert kept(half, pixels) == together
    with torch.no_grad(), earlytom.compress(model, "random:retention=0.3,seed=1") as trace:
        model(**case.batch(clips[:1]))
    assert trace.videos[0].kept_tokens() != together[0]


@pytest.mark.parametrize("method", ["random:retention=0.3", "earlytom:retention=0.3", "visionzip"])
def test_only_who_asks_pays_for_the_fingerprint(method, monkeypatch) -> None:
    from earlytom.stages import batch as sessions

    taken: list[int] = []
    original = sessions.fingerprint
    monkeypatch.setattr(sessions, "fingerprint", lambda pixels: taken.append(len(pixels)) or original(pixels))
    model = tiny_model()
    with earlytom.compress(model, method):
        model.generate(**batch([[clip(12, 0)]]), max_new_tokens=1)
    assert taken == ([12] if method.startswith("random") else [])


def test_the_draw_is_made_on_the_host_whatever_the_device_and_leaves_the_global_generator_alone() -> None:
    tokens = visual_tokens(4, 3, 3)
    before = torch.get_rng_state()
    meta = earlytom.types.VisualTokens(
        features=tokens.features.to("meta"), attention=None, grid=tokens.grid, origin=tokens.origin
    )
    expected = decide(RandomSelection(retention=0.5), tokens)[1].source
    assert torch.equal(decide(RandomSelection(retention=0.5), meta)[1].source, expected)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_place_is_equally_likely() -> None:
    hits = torch.zeros(16)
    for seed in range(500):
        kept = decide(RandomSelection(retention=0.25, seed=seed), visual_tokens(4, 4, 4))[1].source
        hits += torch.bincount(kept % 16, minlength=16)
    assert hits.sum() == 500 * 16
    assert float(hits.std()) < 35  # 500 expected in each place, standard deviation about 20


def test_retention_one_keeps_everything() -> None:
    assert decide(RandomSelection(retention=1.0), visual_tokens(3, 2, 2))[1].source.tolist() == list(range(12))


@pytest.mark.parametrize("seed", [-1, 1.5, True])
def test_the_seed_is_a_number_of_at_least_0(seed) -> None:
    with pytest.raises(MethodError, match=r"seed must be an integer of at least 0, got"):
        RandomSelection(seed=seed)


def test_end_to_end() -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    ids = []
    for _ in range(2):
        with earlytom.compress(model, "random:retention=0.25,seed=3") as trace:
            ids.append(model.generate(**inputs, max_new_tokens=5, do_sample=False))
        assert (trace.videos[0].tokens, trace.videos[0].budget) == (48, 48)
    assert torch.equal(*ids)
