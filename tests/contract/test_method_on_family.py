"""Every method on every family: it runs and keeps its promise, or says why it cannot; and the docs say the same."""

from __future__ import annotations

import pytest

import earlytom
from contract.matrix import PAGE, documented, outcome, specifications, table
from earlytom import parse_method
from families import FAMILY_NAMES, family_case

# Clips with much to merge along time may keep fewer tokens than they could.
AT_MOST = ("holitom", "prunevid")


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("method", specifications())
def test_a_method_runs_or_says_why_not(method, family) -> None:
    reason = outcome(method, family)
    if reason is not None:
        assert method in ("tome", "fastvid", "fastv"), reason
        assert "vision encoder" in reason or "pooling head" in reason or "language model" in reason


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("method", [text for text in specifications() if parse_method(text).no_visual_tokens is None])
def test_a_number_of_tokens_holds_for_every_clip_that_has_more(method, family) -> None:
    if outcome(method, family) is not None:
        pytest.skip("does not run on this family")
    case, model = family_case(family), family_case(family).build()
    clips = [case.batch([[case.clip(frames, 0)], [case.clip(frames, 1)]]) for frames in (6, 2, 1)]
    whole = [tokens[0] for tokens in kept(model, clips, "none")]
    for wanted in (whole[1] + 3, whole[2] + 2):
        found = kept(model, clips, parse_method(method, {"visual_tokens": wanted}))
        for tokens, all_of_them in zip(found, whole, strict=True):
            exact = [min(wanted, all_of_them)] * 2
            assert tokens == exact or (method in AT_MOST and all(map(int.__le__, tokens, exact)))


def kept(model, calls, method) -> list[list[int]]:
    """Visual tokens of each clip of each call, as many as promised where the method promises an exact number."""
    made = []
    for inputs in calls:
        with earlytom.compress(model, method) as trace:
            model.generate(**inputs, do_sample=False, max_new_tokens=2)
        made.append([clip.tokens for clip in trace.videos])
    return made


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_one_small_frame_shrinks_to_a_number_of_tokens(family) -> None:
    case, model = family_case(family), family_case(family).build()
    with earlytom.compress(model, "earlytom:visual_tokens=3") as trace:
        model.generate(**case.batch([[case.clip(1, 0)]]), do_sample=False, max_new_tokens=2)
    assert [clip.tokens for clip in trace.videos] == [3]


def test_the_docs_hold_this_matrix() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert "<!-- matrix -->" in page
    assert documented(page, table()) == page, "run: python tests/contract/matrix.py"
