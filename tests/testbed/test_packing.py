"""Packed batches: what every label points at."""

import numpy as np
import pytest
import torch

from earlytom.testbed.architecture_llava_onevision import LlavaOnevisionArchitecture, build_processor
from earlytom.testbed.packing import PackedBatch, Packer
from earlytom.testbed.pool import View
from earlytom.testbed.scene_types import Truth
from earlytom.testbed.scenes import generate_clip

PREFIX = 2 + 4 * 36 + 1


@pytest.fixture(scope="module")
def packed() -> tuple[PackedBatch, Packer]:
    """Return a batch of three clips of four frames."""
    packer = Packer(build_processor().tokenizer, LlavaOnevisionArchitecture())
    views = []
    for seed in range(943_000_000, 943_000_003):
        truth = generate_clip(seed, degrade=False)[1].select([1, 6, 9, 14])
        views.append(View(torch.zeros(4, 144, 128, dtype=torch.float16), truth))
    return packer.pack(views, 8, np.random.default_rng(1), gaps=0.5), packer


def spots(batch: PackedBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return where answer tokens are predicted, and which."""
    return batch.row, batch.column, batch.target


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
    for row, column, _ in batch.options.tolist():
        assert words(batch, row, column)[0] in names
    questions = batch.groups.count("letters")
    assert int((batch.options[:, 2] == 0).sum()) == questions


def test_a_letter_means_the_option_that_it_stands_before(packed: tuple[PackedBatch, Packer]) -> None:
    batch, _ = packed
    tokenizer = build_processor().tokenizer
    answers = {
        (row, column): target for row, column, target in zip(*map(torch.Tensor.tolist, spots(batch)), strict=True)
    }
    assert len(batch.meant) >= batch.groups.count("letters")
    for row, column, word in batch.meant.tolist():
        letter = "abcd".index(tokenizer.convert_ids_to_tokens(answers[row, column]))
        ends = [option for option in batch.options.tolist() if option[0] == row and option[1] < column]
        end = [option[1] for option in ends if option[2] == letter][-1]
        assert tokenizer.convert_ids_to_tokens(word) in words(batch, row, end, back=2)


def test_reading_questions_end_with_their_letters(packed: tuple[PackedBatch, Packer]) -> None:
    batch = packed[1].read(9, np.random.default_rng(2))
    tokenizer = build_processor().tokenizer
    assert len(batch.answers) == 18
    for (row, column, target), place in zip(batch.answers.tolist(), range(18), strict=True):
        assert int(batch.words[row, column + 1]) == target
        assert tokenizer.convert_ids_to_tokens(target) in ("abcd" if place % 2 == 0 else "<|im_end|>")
    assert set(batch.meant[:, 0].tolist()) == set(range(9))


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
    for row, column, _ in batch.options.tolist():
        before = batch.words[row, column - 3 - PREFIX : column + 1 - PREFIX]
        assert unknown not in before.tolist()


def test_a_clip_that_nothing_can_be_asked_about_is_packed_beside_others() -> None:
    packer = Packer(build_processor().tokenizer, LlavaOnevisionArchitecture())
    truth = generate_clip(943_000_000, degrade=False)[1].select([1])
    empty = Truth(truth.objects, truth.scene, np.zeros_like(truth.visible), truth.centres, truth.coverage)
    views = [View(torch.zeros(1, 144, 128, dtype=torch.float16), item) for item in (empty, truth)]
    seeds = range(40)
    batches = [packer.pack(views, 6, np.random.default_rng(seed), gaps=0.0) for seed in seeds]
    assert any(set(batch.row.tolist()) == {1} for batch in batches)
