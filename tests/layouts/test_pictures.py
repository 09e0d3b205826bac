"""Clips told from images by the text between pictures, from ids alone; whole calls: models/test_internvl_prompts.py."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from earlytom.errors import CompressionError
from earlytom.layouts.pictures import Pictures, read_pictures, tiles
from families import PAD
from families.internvl import CONTEXT, END_IMG, IMG, LINE_BREAK, TOKENS, label, picture, video
from reference.strategies import quick

GROWN = [16321, 36434, 68403, 91008]
"""The first label's word behind a space, a full stop, an underscore and a bracket."""


def read(*rows: list[int]) -> tuple[torch.Tensor, Pictures]:
    """Left-padded prompts, and what they hold."""
    length = max(map(len, rows))
    ids = torch.tensor([[PAD] * (length - len(row)) + row for row in rows])
    return ids, read_pictures(ids, CONTEXT, TOKENS)


part = st.tuples(st.sampled_from(["clip", "image", "grown"]), st.integers(1, 12))
samples = st.lists(st.lists(part, max_size=4), min_size=1, max_size=3)


def written(kind: str, count: int) -> list[int]:
    if kind == "image":
        return picture(count)
    return [GROWN[count % 4], *video(count)[1:]] if kind == "grown" else video(count)


@quick
@given(samples)
def test_clips_and_images_are_found_in_the_order_of_their_pictures(prompts) -> None:
    rows = [[7, *(word for part in sample for word in [LINE_BREAK, *written(*part), 8])] for sample in prompts]
    ids, pictures = read(*rows)
    parts = [(row, kind, count) for row, sample in enumerate(prompts) for kind, count in sample]
    clips, images, tile = [], [], 0
    for row, kind, count in parts:
        numbers = list(range(tile, tile + count))
        (images if kind == "image" else clips).append((row, numbers))
        tile += count
    assert [(clip[0].row, tiles(clip)) for clip in pictures.clips] == clips
    assert [(run.row, tiles([run])) for run in pictures.images] == images
    assert [[run.number for run in clip] for clip in pictures.clips] == [
        list(range(1, len(numbers) + 1)) for _, numbers in clips
    ]
    places = pictures.is_video(ids)
    assert [int(row.sum()) for row in places] == [
        TOKENS * sum(count for row, kind, count in parts if row == number and kind != "image")
        for number in range(len(rows))
    ]
    assert (ids[places] == CONTEXT).all()


@quick
@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.booleans())
@example([0, 2, 0, 1, 0], False)
@example([0, 0, 2, 0, 1], True)
@example([0, 0], True)
def test_what_stays_is_the_clip_written_anew(counts, grown) -> None:
    words = written("grown" if grown else "clip", len(counts))
    ids, pictures = read([7, LINE_BREAK, *words, LINE_BREAK, 8])
    expected: list[int] = []
    for number, count in enumerate(counts, 1):
        # The label of a first frame that has grown together with the user's text cannot leave.
        stays = count or (grown and number == 1)
        text = words[:4] if grown and number == 1 else label(number)
        broken = [LINE_BREAK] if expected else []
        expected += [*broken, *text, IMG, *[CONTEXT] * count, END_IMG] if stays else []
    assert ids[pictures.keep(ids, [counts])].tolist() == [7, LINE_BREAK, *expected, LINE_BREAK, 8]


@pytest.mark.parametrize("word", GROWN)
def test_only_the_first_word_may_have_grown_together_with_other_text(word) -> None:
    _, pictures = read([7, word, *video(2)[1:], 8])
    assert [run.label is None for run in pictures.clips[0]] == [True, False]
    with pytest.raises(CompressionError, match=r"picture 1 of the prompt \(16 placeholder tokens in sample 0\)"):
        read([7, *video(1), word, *label(2)[1:], *picture()])


def test_a_prompt_without_pictures_holds_none() -> None:
    ids, pictures = read([7, 8], [9])
    assert (pictures.clips, pictures.images) == ([], [])
    assert not pictures.is_video(ids).any()
    assert pictures.keep(ids, []).all()
