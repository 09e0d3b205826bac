"""Second stage: the projector and the language model learn to answer, on the frozen encoder's cached output.

First what letters are for, from texts alone; then the clip grows from 1 over 4 and 8 to 16 frames. Next to the answers,
dense labels of every video token are learnt in the middle of the language model: the words of the object's colour,
shape and place after layer 2; motion, place, scene, frame and number of objects after layer 4; after layer 5, scene and
motion of the objects that a question names, at its own words, and whether a comparison asks for the first or the last
object; at the end of each option its letter after layer 4 and its words after layer 6; and, after layer 6, where a
letter is to come, the words of the answer that it stands for, so that the last layers only have to look up its letter.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from earlytom.testbed.architectures import Architecture
from earlytom.testbed.choices import LETTERS
from earlytom.testbed.course import FROM_NOTHING, MEANT_LAYER, Course, Phase
from earlytom.testbed.event_heads import EventHeads, event_labels, mean_loss
from earlytom.testbed.labels import IGNORED, TOKEN_GRID
from earlytom.testbed.optimiser import JointOptimiser, schedule, split_parameters
from earlytom.testbed.packing import PackedBatch, Packer, ReadingBatch
from earlytom.testbed.pool import ClipPool, View
from earlytom.testbed.progress import RunningMean, StageRecord
from earlytom.testbed.questions import SKILLS
from earlytom.testbed.scene_types import COLOURS, SHAPES, SLOT_COUNT

_POOL_CAPACITY = 4000
_FIRST_CLIPS = 160
_WORD_LAYER = 2
_EVENT_LAYER = 4
_QUESTION_LAYER = 5
_AUXILIARY_WEIGHT = 0.4
_MEANT_WEIGHT = 5.0
_OPTION_WEIGHT = 3.0
_READING_INTERVAL = 4
_WEIGHTS = {"order": 2.0}


class LanguageTrainer:
    """The model's forms that only training needs: packed questions, dense labels, accuracies."""

    def __init__(
        self,
        architecture: Architecture,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        device: torch.device,
    ) -> None:
        """Take the model, whose encoder is left alone."""
        self.architecture = architecture
        self.model = model
        self.device = device
        self.packer = Packer(tokenizer, architecture)
        self._language_model = architecture.language_model(model)
        self._embedding = self._language_model.embed_tokens
        self._width = self._embedding.weight.shape[1]
        self.heads = EventHeads(self._width).to(device)
        self._opening = torch.tensor(self.packer.before_clip, device=device)
        words = {"colour": tuple(COLOURS), "shape": SHAPES, "top": ("top", "bottom"), "left": ("left", "right")}
        self._letters = torch.tensor(tokenizer.convert_tokens_to_ids(list(LETTERS)), device=device)
        self._kinds = torch.tensor(tokenizer.convert_tokens_to_ids(["first", "last"]), device=device)
        self._words = {
            name: torch.tensor(tokenizer.convert_tokens_to_ids(list(choices)), device=device)
            for name, choices in words.items()
        }

    def optimiser(self, rate: float) -> JointOptimiser:
        """Return the optimiser of all but the encoder, heads included; ``rate`` scales its rates."""
        projector = self.architecture.projector(self.model)
        matrices, others = split_parameters(projector, self._language_model, self.heads)
        return JointOptimiser(matrices, [*others, *self.architecture.lone_parameters(self.model)], rate)

    def text_optimiser(self, first_layer: int) -> JointOptimiser:
        """Return the optimiser of the language model's layers from ``first_layer`` on, for texts."""
        language_model = self._language_model
        if first_layer == 0:
            return JointOptimiser(*split_parameters(language_model))
        layers = nn.ModuleDict({"layers": nn.ModuleList(language_model.layers[first_layer:])})
        matrices, others = split_parameters(layers)
        return JointOptimiser(matrices, [*others, language_model.norm.weight])

    def hidden_states(self, batch: PackedBatch) -> tuple[torch.Tensor, ...]:
        """Return the hidden states of the language model, one [B, L, 192] per layer and the embedding."""
        clips = len(batch.features)
        video = self.architecture.clip_embeddings(self.model, batch.features.to(self.device).float())
        opening = self._embedding(self._opening).expand(clips, -1, -1)
        closing = self.architecture.closing_embedding(self.model).expand(clips, 1, -1)
        words = self._embedding(batch.words.to(self.device))
        output = self._language_model(
            inputs_embeds=torch.cat([opening, video, closing, words], dim=1),
            attention_mask=batch.mask.to(self.device),
            position_ids=batch.positions.to(self.device),
            output_hidden_states=True,
            use_cache=False,
        )
        return tuple(output.hidden_states)

    def answer_logits(self, hidden: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        """Return the logits [N, vocabulary] at the answer tokens from the last hidden state [B, L, 192]."""
        chosen = hidden[batch.row.to(self.device), batch.column.to(self.device)]
        logits: torch.Tensor = self.model.lm_head(chosen)
        return logits

    def loss(self, views: Sequence[View], batch: PackedBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the total loss and the running values: answer loss, dense loss, accuracy per skill."""
        states = self.hidden_states(batch)
        logits = self.answer_logits(states[-1], batch)
        target = batch.target.to(self.device)
        weights = torch.tensor([_WEIGHTS.get(group, 1.0) for group in batch.groups])
        weight = weights[batch.question].to(self.device)
        answer = (functional.cross_entropy(logits, target, reduction="none") * weight).sum() / weight.sum()
        labels = {name: values.to(self.device) for name, values in event_labels(views).items()}
        first = len(self.packer.before_clip)
        video = slice(first, first + labels["frame"].shape[1])
        dense = self.heads.loss(states[_EVENT_LAYER][:, video], labels)
        dense = dense + self._word_loss(states[_WORD_LAYER][:, video], labels)
        dense = dense + self.heads.named_loss(states[_QUESTION_LAYER], batch.named.to(self.device))
        dense = dense + self._comparison_loss(states[_EVENT_LAYER], batch.compared.to(self.device))
        values = {"loss": float(answer.detach()), "dense": float(dense.detach())}
        if len(batch.options):
            options, values["meant"] = self._letter_loss(states, batch)
            dense = dense + options
        right = (logits.argmax(-1) == target).cpu()
        return answer + _AUXILIARY_WEIGHT * dense, values | group_accuracy(right, batch)

    def reading_loss(self, batch: ReadingBatch) -> tuple[torch.Tensor, float]:
        """Return the loss of naming the letter of an answer that stands in the text, and the share of right ones."""
        words, answers = batch.words.to(self.device), batch.answers.to(self.device)
        output = self._language_model(input_ids=words, output_hidden_states=True, use_cache=False)
        logits = self.model.lm_head(output.last_hidden_state[answers[:, 0], answers[:, 1]])
        loss = functional.cross_entropy(logits, answers[:, 2])
        dense, _ = self._letter_loss(output.hidden_states, batch)
        # The first of the two answer tokens is the letter, the other one ends it.
        right = (logits.argmax(-1) == answers[:, 2])[::2]
        return loss + _AUXILIARY_WEIGHT * dense, float(right.float().mean())

    def _word_loss(self, hidden: torch.Tensor, labels: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss of naming colour, shape and place of objects through the tied embedding, [B, G * 36, 192]."""
        hidden = functional.rms_norm(hidden, (self._width,))
        embedding = self._embedding.weight
        nothing = labels["colour"] == IGNORED
        targets = {
            "colour": labels["colour"],
            "shape": labels["shape"],
            "top": (labels["row"] >= TOKEN_GRID // 2).long().masked_fill(nothing, IGNORED),
            "left": (labels["column"] >= TOKEN_GRID // 2).long().masked_fill(nothing, IGNORED),
        }
        total = hidden.new_zeros(())
        for name, words in self._words.items():
            total = total + mean_loss(hidden @ embedding[words].T, targets[name])
        return total

    def _letter_loss(
        self, states: tuple[torch.Tensor, ...], batch: PackedBatch | ReadingBatch
    ) -> tuple[torch.Tensor, float]:
        """Return the loss of knowing each option's letter and what the answer's letter stands for.

        Args:
            states: Hidden states [B, L, 192] of every layer.
            batch: Where to look.

        Returns:
            The loss, and the share of the words that letters stand for which are the first guess (of the two words of
            one answer only one can be).
        """
        embedding = self._embedding.weight
        options, meant = batch.options.to(self.device), batch.meant.to(self.device)
        ends = functional.rms_norm(states[_EVENT_LAYER][options[:, 0], options[:, 1]], (self._width,))
        total = _OPTION_WEIGHT * mean_loss(ends @ embedding[self._letters].T, options[:, 2])
        total = total + _OPTION_WEIGHT * self._naming_loss(states, batch.option_words.to(self.device))[0]
        meaning, words = self._naming_loss(states, meant)
        total = total + _MEANT_WEIGHT * meaning
        return total, float((words.argmax(-1) == meant[:, 2]).float().mean())

    def _naming_loss(self, states: tuple[torch.Tensor, ...], places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss of naming a word at a place, [N, 3] row, column, word, and the logits [N, vocabulary]."""
        embedding = self._embedding.weight
        logits = functional.rms_norm(states[MEANT_LAYER][places[:, 0], places[:, 1]], (self._width,)) @ embedding.T
        return mean_loss(logits, places[:, 2]), logits

    def _comparison_loss(self, hidden: torch.Tensor, compared: torch.Tensor) -> torch.Tensor:
        """Return the loss of knowing, before the answer, whether a comparison asks for first or last, [B, L, 192]."""
        chosen = functional.rms_norm(hidden[compared[:, 0], compared[:, 1]], (self._width,))
        words = self._embedding.weight[self._kinds]
        return mean_loss(chosen @ words.T, compared[:, 2])


def group_accuracy(right: torch.Tensor, batch: PackedBatch) -> dict[str, float]:
    """Return the share of questions of each group whose answer tokens are all right, from ``right`` bool [N]."""
    whole = torch.ones(len(batch.groups), dtype=torch.int64)
    whole = whole.scatter_reduce(0, batch.question, right.long(), reduce="amin")
    found: dict[str, list[int]] = {}
    for group, correct in zip(batch.groups, whole.tolist(), strict=True):
        found.setdefault(group, []).append(correct)
    return {group: float(np.mean(found[group])) for group in sorted(found)}


def train_language(
    architecture: Architecture,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    minutes: float,
    resume: bool,
    device: torch.device,
    export: Callable[[], None],
    course: Course = FROM_NOTHING,
) -> list[dict[str, Any]]:
    """Train projector and language model in place for ``minutes``; ``export`` is called after every phase."""
    record = StageRecord("language", folder, minutes)
    torch.manual_seed(1)
    trainer = LanguageTrainer(architecture, model, tokenizer, device)
    optimiser = trainer.optimiser(course.rate)
    text_optimiser = trainer.text_optimiser(course.reading_from)
    phase_number, first_clip = 0, 0
    saved = record.load() if resume else None
    if saved is not None:
        model.load_state_dict(saved[0]["model"])
        trainer.heads.load_state_dict(saved[0]["heads"])
        optimiser.load_state_dict(saved[0]["optimiser"])
        text_optimiser.load_state_dict(saved[0]["text_optimiser"])
        phase_number, first_clip = saved[0]["phase"], saved[0]["next_clip"]
    encoder = architecture.encoder(model).eval().requires_grad_(False)
    architecture.projector(model).requires_grad_(True)
    pool = ClipPool(lambda frames: architecture.encode(encoder, frames, device), _POOL_CAPACITY, first_clip)
    means = RunningMean()

    def state() -> dict[str, Any]:
        parts = {"model": model.state_dict(), "heads": trainer.heads.state_dict(), "optimiser": optimiser.state_dict()}
        parts |= {"text_optimiser": text_optimiser.state_dict()}
        return parts | {"phase": phase_number, "next_clip": pool.next_clip}

    while record.progress < 1.0:
        phase = course.phases[phase_number]
        if phase.frames:
            pool.add(phase.additions if len(pool) >= _FIRST_CLIPS else _FIRST_CLIPS)
        values: dict[str, float] = {}
        if means.values.get("reading", 0.0) < course.read_well or record.step % _READING_INTERVAL == 0:
            values |= _read_step(trainer, text_optimiser, course, record)
        if phase.frames:
            values |= _train_step(trainer, optimiser, pool, phase, course, record)
        means.update(values)
        record.advance(means.values)
        if record.step % 25 == 0:
            record.note({"frames": phase.frames, "clips": pool.next_clip, **means.rounded()})
        if phase is not course.phases[-1] and _phase_is_over(phase, record, means):
            record.note({"frames": phase.frames, "phase": "finished", **means.rounded()})
            phase_number, means = phase_number + 1, RunningMean()
            record.save(state())
            export()
        record.save_if_due(state())
    record.note({"frames": course.phases[phase_number].frames, "phase": "finished", **means.rounded()})
    record.save(state(), finished=True)
    record.close()
    export()
    return record.history


def _phase_is_over(phase: Phase, record: StageRecord, means: RunningMean) -> bool:
    """Tell whether the clip should grow now."""
    wanted = SKILLS if phase.frames else ("reading",)
    known = [means.values[skill] for skill in wanted if skill in means.values]
    good = record.step % 25 == 0 and len(known) >= min(4, len(wanted)) and float(np.mean(known)) >= phase.enough
    return good or record.progress >= phase.until


def _read_step(
    trainer: LanguageTrainer, optimiser: JointOptimiser, course: Course, record: StageRecord
) -> dict[str, float]:
    """Train on one batch of texts."""
    batch = trainer.packer.read(course.readings, np.random.default_rng([48, record.step]))
    with optimiser.alone(trainer.model):
        loss, known = trainer.reading_loss(batch)
        torch.autograd.backward(loss)
    optimiser.step(schedule(record.progress, record.step, warm_up=60, decay_from=course.decay_from))
    return {"reading": known}


def _train_step(
    trainer: LanguageTrainer,
    optimiser: JointOptimiser,
    pool: ClipPool,
    phase: Phase,
    course: Course,
    record: StageRecord,
) -> dict[str, float]:
    """Train on one batch; in the last phase every fifth batch has 8 frames, so that shorter clips stay known."""
    generator = np.random.default_rng([47, record.step])
    shorter = phase.frames == SLOT_COUNT and record.step % 5 == 4
    frames, clips = (SLOT_COUNT // 2, 2 * phase.clips) if shorter else (phase.frames, phase.clips)
    views = pool.draw(clips, frames, generator)
    batch = trainer.packer.pack(views, phase.questions, generator, phase.gaps)
    loss, values = trainer.loss(views, batch)
    torch.autograd.backward(loss)
    optimiser.step(schedule(record.progress, record.step, warm_up=60, decay_from=course.decay_from))
    return values
