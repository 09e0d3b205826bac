"""Packing for the language model: a clip as the prefix, its questions as blocks that see it and themselves."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from earlytom.testbed.architectures import Architecture
from earlytom.testbed.checkpoint import TOKENS_PER_FRAME
from earlytom.testbed.choices import mix_in_options, option_ends, reading_question
from earlytom.testbed.labels import named_labels
from earlytom.testbed.pool import View
from earlytom.testbed.questions import FILLER_WORDS, Question, ask
from earlytom.testbed.scene_types import COLOURS, Truth

_UNKNOWN_SHARE = 0.03
_ASKED_MORE = {"colour": 1, "shape": 1, "count": 1, "order": 5}
_LETTERS_SHARE = 0.65


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """B clips with their questions; P prefix tokens, L tokens in all.

    Attributes:
        features: float16 [B, G, 144, 128], the encoder's output for the G grids of each clip.
        words: int64 [B, L - P], the tokens of the questions and answers.
        mask: bool [B, 1, L, L], True where a token may look.
        positions: int64 [B, L], or [A, B, L] where positions have A axes; every question goes on behind the prefix.
        row, column: int64 [N], the tokens that predict an answer token, in ``[B, L]``.
        target: int64 [N], the answer tokens.
        question: int64 [N], the number of the question that each belongs to.
        groups: What each question counts as: its skill, or ``letters`` if it has options.
        named: int64 [M, 4], the colour words inside questions: row and column in ``[B, L]``, then the scene and the
            motion of the object of that colour.
        compared: int64 [K, 3], the tokens that predict the answer of a comparison: row, column, and 0 where it asks for
            the first object or 1 for the last.
        options: int64 [R, 3], the last tokens of options: row, column, and the number of the option's letter.
        option_words: int64 [V, 3], the same tokens with each word of their option: row, column, word.
        meant: int64 [W, 3], the tokens that predict a letter: row, column, and a word of the answer that it stands for.
    """

    features: torch.Tensor
    words: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor
    row: torch.Tensor
    column: torch.Tensor
    target: torch.Tensor
    question: torch.Tensor
    groups: tuple[str, ...]
    named: torch.Tensor
    compared: torch.Tensor
    options: torch.Tensor
    option_words: torch.Tensor
    meant: torch.Tensor


@dataclass(frozen=True, eq=False)
class ReadingBatch:
    """Questions without a video.

    Attributes:
        words: int64 [B, L], the tokens of the questions and answers, padded on the right.
        answers: int64 [N, 3], the tokens that predict an answer token: row, column, and the answer token.
        options, option_words, meant: int64 [R, 3], [V, 3] and [W, 3], as in `PackedBatch`.
    """

    words: torch.Tensor
    answers: torch.Tensor
    options: torch.Tensor
    option_words: torch.Tensor
    meant: torch.Tensor


@dataclass(frozen=True, eq=False)
class _Block:
    """One question as tokens: the last ``answer_length`` are its answer.

    ``options`` are the places of the last token of each option, ``option_words`` these places with each word of the
    option, ``meant`` the words that the letter stands for.
    """

    question: Question
    tokens: list[int]
    answer_length: int
    options: list[int]
    option_words: list[tuple[int, int]]
    meant: list[int]


class Packer:
    """Turns views into packed batches."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, architecture: Architecture) -> None:
        """Take the tokenizer and the architecture that prompts are written for."""
        self._tokenizer = tokenizer
        self._architecture = architecture
        self._fillers = np.array(tokenizer.convert_tokens_to_ids(list(FILLER_WORDS)))
        self._unknown = tokenizer.unk_token_id
        self._colours = {tokenizer.get_vocab()[colour]: colour for colour in COLOURS}
        self.opening: list[int] = tokenizer("<|im_start|>user").input_ids
        self.before_clip: list[int] = tokenizer(architecture.opening).input_ids

    def pack(
        self,
        views: Sequence[View],
        questions_per_clip: int,
        generator: np.random.Generator,
        gaps: float,
    ) -> PackedBatch:
        """Ask about each view and pack everything into one batch.

        Args:
            views: The clips.
            questions_per_clip: How many questions each gets, at most.
            generator: Where chance comes from.
            gaps: Share of the clips that get position gaps, in architectures that have them.
        """
        grids = len(views[0].features)
        prefix = len(self.before_clip) + grids * TOKENS_PER_FRAME + 1
        rows = [self._blocks(view.truth, questions_per_clip, generator) for view in views]
        length = prefix + max(sum(len(block.tokens) for block in blocks) for blocks in rows)
        words = np.full((len(views), length - prefix), self._tokenizer.pad_token_id, dtype=np.int64)
        owner = np.full((len(views), length), -1, dtype=np.int64)
        owner[:, :prefix] = 0
        begun = [self._architecture.prefix_positions(grids, generator, gaps) for _ in views]
        positions = np.zeros((len(begun[0]), len(views), length), dtype=np.int64)
        spots: list[tuple[int, int, int, int]] = []
        named: list[tuple[int, int, int, int]] = []
        compared: list[tuple[int, int, int]] = []
        options: list[tuple[int, int, int]] = []
        option_words: list[tuple[int, int, int]] = []
        meant: list[tuple[int, int, int]] = []
        groups: list[str] = []
        for row, blocks in enumerate(rows):
            positions[:, row, :prefix] = begun[row]
            start = prefix
            for index, block in enumerate(blocks):
                tokens, last = block.tokens, block.answer_length
                end = start + len(tokens)
                words[row, start - prefix : end - prefix] = tokens
                owner[row, start:end] = index + 1
                # As in stock generation, whatever the clip's own positions reach up to.
                positions[:, row, start:end] = begun[row][:, -1:] + 1 + np.arange(len(tokens))
                spots += [(row, end - back - 1, tokens[-back], len(groups)) for back in range(last, 0, -1)]
                named += self._named(tokens[:-last], row, start, views[row].truth)
                if block.question.compares is not None:
                    compared.append((row, end - last - 1, block.question.compares))
                options += [(row, start + offset, letter) for letter, offset in enumerate(block.options)]
                option_words += [(row, start + offset, word) for offset, word in block.option_words]
                meant += [(row, end - last - 1, word) for word in block.meant]
                groups.append("letters" if block.question.letters else block.question.skill)
                start = end
        row_of, column_of, target, question = torch.tensor(spots, dtype=torch.int64).T
        return PackedBatch(
            features=torch.stack([view.features for view in views]),
            words=torch.from_numpy(words),
            mask=block_mask(torch.from_numpy(owner)),
            positions=torch.from_numpy(positions if len(positions) > 1 else positions[0]),
            row=row_of,
            column=column_of,
            target=target,
            question=question,
            groups=tuple(groups),
            named=torch.tensor(named, dtype=torch.int64).reshape(-1, 4),
            compared=torch.tensor(compared, dtype=torch.int64).reshape(-1, 3),
            options=torch.tensor(options, dtype=torch.int64).reshape(-1, 3),
            option_words=torch.tensor(option_words, dtype=torch.int64).reshape(-1, 3),
            meant=torch.tensor(meant, dtype=torch.int64).reshape(-1, 3),
        )

    def read(self, count: int, generator: np.random.Generator) -> ReadingBatch:
        """Return ``count`` questions without a video, whose answers stand in their texts."""
        blocks = self._tokenise([reading_question(generator) for _ in range(count)], generator)
        opening = len(self.opening)
        length = opening + max(len(block.tokens) for block in blocks)
        words = np.full((count, length), self._tokenizer.pad_token_id, dtype=np.int64)
        spots: list[tuple[int, int, int]] = []
        options: list[tuple[int, int, int]] = []
        option_words: list[tuple[int, int, int]] = []
        meant: list[tuple[int, int, int]] = []
        for row, block in enumerate(blocks):
            end = opening + len(block.tokens)
            words[row, :end] = [*self.opening, *block.tokens]
            spots += [(row, end - back - 1, block.tokens[-back]) for back in range(block.answer_length, 0, -1)]
            options += [(row, opening + offset, letter) for letter, offset in enumerate(block.options)]
            option_words += [(row, opening + offset, word) for offset, word in block.option_words]
            meant += [(row, end - block.answer_length - 1, word) for word in block.meant]
        return ReadingBatch(*map(torch.as_tensor, (words, spots, options, option_words, meant)))

    def _blocks(self, truth: Truth, count: int, generator: np.random.Generator) -> list[_Block]:
        """Return the questions about one clip."""
        questions = ask(truth, generator, more=_ASKED_MORE)[:count]
        return self._tokenise(mix_in_options(questions, truth, generator, _LETTERS_SHARE), generator)

    def _named(self, tokens: list[int], row: int, start: int, truth: Truth) -> list[tuple[int, int, int, int]]:
        """Return row, column, scene and motion for every colour word of a question that starts at column ``start``."""
        return [
            (row, start + offset, *named_labels(truth, self._colours[token]))
            for offset, token in enumerate(tokens)
            if token in self._colours
        ]

    def _tokenise(self, questions: list[Question], generator: np.random.Generator) -> list[_Block]:
        """Return the tokens of each question and its answer; some small words become unknown ones."""
        if not questions:
            return []
        asked = [f"\n{question.text}<|im_end|><|im_start|>assistant\n" for question in questions]
        answered = [f"{question.answer}<|im_end|>" for question in questions]
        coded = self._tokenizer(asked, return_offsets_mapping=True)
        blocks: list[_Block] = []
        for number, answer_tokens in enumerate(self._tokenizer(answered).input_ids):
            question, tokens = questions[number], np.array(coded.input_ids[number])
            unknown = np.isin(tokens, self._fillers) & (generator.random(len(tokens)) < _UNKNOWN_SHARE)
            # With options, "a" is a letter.
            unknown &= not question.letters
            tokens[unknown] = self._unknown
            ends = [end for _, end in coded.offset_mapping[number]]
            found = option_ends(question)
            options = [ends.index(end + 1) for end, _ in found]
            right = [option for option, (_, right) in zip(question.options, found, strict=True) if right]
            meant = self._tokenizer(right[0]).input_ids if right else []
            option_words = [
                (offset, word)
                for offset, option in zip(options, question.options, strict=True)
                for word in self._tokenizer(option).input_ids
            ]
            everything = [*tokens.tolist(), *answer_tokens]
            blocks.append(_Block(question, everything, len(answer_tokens), options, option_words, meant))
        return blocks


def block_mask(owner: torch.Tensor) -> torch.Tensor:
    """Return bool [B, 1, L, L] from the block of each token, int64 [B, L]: 0 the prefix, 1 and up the questions."""
    length = owner.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    visible = (owner[:, None, :] == 0) | (owner[:, None, :] == owner[:, :, None])
    return (visible & causal)[:, None]
