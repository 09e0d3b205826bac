"""Packing for the language model: a clip as the prefix, its questions as blocks that see it and themselves."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from earlytom.testbed.labels import named_labels
from earlytom.testbed.pool import View
from earlytom.testbed.questions import FILLER_WORDS, SKILLS, Question, ask, comparison
from earlytom.testbed.scene_types import COLOURS, Truth

PREFIX_WORDS = 2
_UNKNOWN_SHARE = 0.03
_ASKED_MORE = {"colour": 1, "shape": 1, "count": 1, "order": 5}
_LOWEST_RATE = 0.08


@dataclass(frozen=True)
class PackedBatch:
    """B clips with their questions; P prefix tokens, L tokens in all.

    Attributes:
        features: float16 [B, T, 144, 128], the encoder's output.
        words: int64 [B, L - P], the tokens of the questions and answers.
        mask: bool [B, 1, L, L], True where a token may look.
        positions: int64 [B, L], the positions, with random gaps between video tokens.
        row, column: int64 [N], the tokens that predict an answer token, in ``[B, L]``.
        target: int64 [N], the answer tokens.
        question: int64 [N], the number of the question that each belongs to.
        skills: The skill number of each question.
        named: int64 [M, 4], the colour words inside questions: row and column in ``[B, L]``, then the scene and the
            motion of the object of that colour.
        compared: int64 [K, 3], the tokens that predict the answer of a comparison: row, column, and 0 where it asks for
            the first object or 1 for the last.
    """

    features: torch.Tensor
    words: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor
    row: torch.Tensor
    column: torch.Tensor
    target: torch.Tensor
    question: torch.Tensor
    skills: torch.Tensor
    named: torch.Tensor
    compared: torch.Tensor


class Packer:
    """Turns views into packed batches."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, tokens_per_frame: int) -> None:
        """Take the tokenizer and the number of tokens that a frame has in the language model."""
        self._tokenizer = tokenizer
        self._tokens_per_frame = tokens_per_frame
        self._fillers = np.array(tokenizer.convert_tokens_to_ids(list(FILLER_WORDS)))
        self._unknown = tokenizer.unk_token_id
        self._colours = {tokenizer.get_vocab()[colour]: colour for colour in COLOURS}
        self.opening: list[int] = tokenizer("<|im_start|>user").input_ids

    def pack(
        self, views: Sequence[View], questions_per_clip: int, generator: np.random.Generator, gaps: float
    ) -> PackedBatch:
        """Ask about each view and pack everything into one batch; a share ``gaps`` of the clips gets position gaps."""
        prefix = PREFIX_WORDS + len(views[0].features) * self._tokens_per_frame + 1
        asked = [ask(view.truth, generator, more=_ASKED_MORE)[:questions_per_clip] for view in views]
        blocks = self._tokenise([question for questions in asked for question in questions], generator)
        length = prefix + max(self._row_length(blocks, asked, row) for row in range(len(asked)))
        words = np.full((len(views), length - prefix), self._tokenizer.pad_token_id, dtype=np.int64)
        owner = np.full((len(views), length), -1, dtype=np.int64)
        owner[:, :prefix] = 0
        positions = np.zeros((len(views), length), dtype=np.int64)
        spots: list[tuple[int, int, int, int]] = []
        named: list[tuple[int, int, int, int]] = []
        compared: list[tuple[int, int, int]] = []
        number = 0
        for row, questions in enumerate(asked):
            positions[row, :prefix] = _prefix_positions(prefix, generator, gaps)
            start = prefix
            for index, item in enumerate(questions):
                tokens, answer_length = blocks[number]
                end = start + len(tokens)
                words[row, start - prefix : end - prefix] = tokens
                owner[row, start:end] = index + 1
                positions[row, start:end] = positions[row, prefix - 1] + 1 + np.arange(len(tokens))
                spots += [(row, end - back - 1, tokens[-back], number) for back in range(answer_length, 0, -1)]
                named += self._named(tokens[:-answer_length], row, start, views[row].truth)
                kind = comparison(item.text)
                compared += [] if kind is None else [(row, end - answer_length - 1, kind)]
                start, number = end, number + 1
        row_of, column_of, target, question = torch.tensor(spots, dtype=torch.int64).T
        return PackedBatch(
            features=torch.stack([view.features for view in views]),
            words=torch.from_numpy(words),
            mask=block_mask(torch.from_numpy(owner)),
            positions=torch.from_numpy(positions),
            row=row_of,
            column=column_of,
            target=target,
            question=question,
            skills=torch.tensor([SKILLS.index(item.skill) for questions in asked for item in questions]),
            named=torch.tensor(named, dtype=torch.int64).reshape(-1, 4),
            compared=torch.tensor(compared, dtype=torch.int64).reshape(-1, 3),
        )

    def _named(self, tokens: list[int], row: int, start: int, truth: Truth) -> list[tuple[int, int, int, int]]:
        """Return row, column, scene and motion for every colour word of a question that starts at column ``start``."""
        return [
            (row, start + offset, *named_labels(truth, self._colours[token]))
            for offset, token in enumerate(tokens)
            if token in self._colours
        ]

    @staticmethod
    def _row_length(blocks: list[tuple[list[int], int]], asked: list[list[Question]], row: int) -> int:
        """Return how many tokens the questions of one clip take."""
        first = sum(len(questions) for questions in asked[:row])
        return sum(len(tokens) for tokens, _ in blocks[first : first + len(asked[row])])

    def _tokenise(self, questions: list[Question], generator: np.random.Generator) -> list[tuple[list[int], int]]:
        """Return the tokens of each block and how many of them, at the end, are the answer and its end."""
        asked = [f"\n{question.text}<|im_end|><|im_start|>assistant\n" for question in questions]
        answered = [f"{question.answer}<|im_end|>" for question in questions]
        blocks: list[tuple[list[int], int]] = []
        pairs = zip(self._tokenizer(asked).input_ids, self._tokenizer(answered).input_ids, strict=True)
        for asked_tokens, answer_tokens in pairs:
            tokens = np.array(asked_tokens)
            unknown = np.isin(tokens, self._fillers) & (generator.random(len(tokens)) < _UNKNOWN_SHARE)
            tokens[unknown] = self._unknown
            blocks.append(([*tokens.tolist(), *answer_tokens], len(answer_tokens)))
        return blocks


def block_mask(owner: torch.Tensor) -> torch.Tensor:
    """Return bool [B, 1, L, L] from the block of each token, int64 [B, L]: 0 the prefix, 1 and up the questions."""
    length = owner.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    visible = (owner[:, None, :] == 0) | (owner[:, None, :] == owner[:, :, None])
    return (visible & causal)[:, None]


def _prefix_positions(prefix: int, generator: np.random.Generator, gaps: float) -> np.ndarray:
    """Return positions int64 [P] of the prefix.

    In a share ``gaps`` of the clips each video token moves on by one with a probability drawn for the clip, so that the
    meaning of a token cannot be read off its index, which changes as soon as tokens are dropped.
    """
    steps = np.ones(prefix, dtype=np.int64)
    steps[0] = 0
    if generator.random() < gaps:
        rate = generator.uniform(_LOWEST_RATE, 1.0)
        steps[PREFIX_WORDS : prefix - 1] = generator.random(prefix - 1 - PREFIX_WORDS) < rate
    return np.cumsum(steps)
