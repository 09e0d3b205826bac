"""Packed batches: what every label points at."""

import numpy as np
import pytest
import torch

from earlytom.testbed.checkpoint import build_processor
from earlytom.testbed.packing import PackedBatch, Packer
from earlytom.testbed.pool import View
from earlytom.testbed.scenes import generate_clip

PREFIX = 2 + 4 * 36 + 1


@pytest.fixture(scope="module")
def packed() -> tuple[PackedBatch, Packer]:
    """Return a batch of three clips of four frames."""
    packer = Packer(build_processor().tokenizer, 36)
    views = []
    for seed in range(943_000_000, 943_000_003):
        truth = generate_clip(seed, degrade=False)[1].select([1, 6, 9, 14])
        views.append(View(torch.zeros(4, 144, 128, dtype=torch.float16), truth))
    return packer.pack(views, 8, np.random.default_rng(1), gaps=0.5), packer


def words(batch: PackedBatch, row: int, column: int, back: int = 1) -> list[str]:
    """Return the words that end at a column."""
    tokenizer = build_processor().tokenizer
    tokens = batch.words[row, column - PREFIX - back + 1 : column - PREFIX + 1]
    return tokenizer.convert_ids_to_tokens(tokens.tolist())


def test_options_end_at_their_last_words_and_one_of_each_question_is_right(packed: tuple[PackedBatch, Packer]) -> None:
    batch, _ = packed
    assert len(batch.options) > 8
    names = {"red", "green", "blue", "yellow", "purple", "white", "circle", "square", "triangle", "cross", "none"}
    names |= {"left", "right", "up", "down", "one", "two", "three", "four"}
    for row, column, _, _ in batch.options.tolist():
        assert words(batch, row, column)[0] in names
    questions = batch.groups.count("letters")
    assert int(batch.options[:, 2].sum()) == questions
    assert int((batch.options[:, 3] == 0).sum()) == questions
    answers = [
        "abcd".index(words(batch, row, column + 1)[0])
        for row, column, number in zip(batch.row.tolist(), batch.column.tolist(), batch.question.tolist(), strict=True)
        if batch.groups[number] == "letters" and words(batch, row, column + 1)[0] in "abcd"
    ]
    assert sorted(answers) == sorted(batch.options[batch.options[:, 2] == 1][:, 3].tolist())


def test_reading_questions_end_with_their_letters(packed: tuple[PackedBatch, Packer]) -> None:
    batch = packed[1].read(9, np.random.default_rng(2))
    tokenizer = build_processor().tokenizer
    assert len(batch.answers) == 18
    for (row, column, target), place in zip(batch.answers.tolist(), range(18), strict=True):
        assert int(batch.words[row, column + 1]) == target
        assert tokenizer.convert_ids_to_tokens(target) in ("abcd" if place % 2 == 0 else "<|im_end|>")
    right = batch.options[batch.options[:, 2] == 1]
    letters = tokenizer.convert_ids_to_tokens(batch.answers[::2, 2].tolist())
    assert ["abcd"[number] for number in right[:, 3].tolist()] == letters


def test_answer_tokens_come_right_after_the_tokens_that_predict_them(packed: tuple[PackedBatch, Packer]) -> None:
    batch, _ = packed
    for row, column, target in zip(batch.row.tolist(), batch.column.tolist(), batch.target.tolist(), strict=True):
        assert int(batch.words[row, column + 1 - PREFIX]) == target


def test_a_question_sees_the_video_and_itself_only(packed: tuple[PackedBatch, Packer]) -> None:
    batch, _ = packed
    mask = batch.mask[0, 0]
    ends = batch.column[(batch.row == 0)].tolist()
    first, last = ends[0], ends[-1]
    assert mask[last, :PREFIX].all()
    assert not mask[last, first]
    assert not mask[first, first + 1 :].any()


def test_letters_are_never_hidden(packed: tuple[PackedBatch, Packer]) -> None:
    batch, packer = packed
    unknown = packer._tokenizer.unk_token_id
    for row, column, _, _ in batch.options.tolist():
        before = batch.words[row, column - 3 - PREFIX : column + 1 - PREFIX]
        assert unknown not in before.tolist()
