"""Accuracy of the test model per skill, through the stock processor and the stock ``generate()``.

``python -m earlytom.testbed.evaluate`` asks about clips whose seeds training never uses, with the video, blind (grey
frames in its place) and in wordings that training never uses, and writes ``metrics.json``, or for the architecture X
that is not the default ``metrics_X.json``.
"""

import argparse
import json
import platform
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import PreTrainedModel, ProcessorMixin

from earlytom.testbed.architectures import ARCHITECTURES, DEFAULT_ARCHITECTURE, find_architecture, output_file
from earlytom.testbed.checkpoint import load_checkpoint, question_prompt
from earlytom.testbed.choices import mix_in_options
from earlytom.testbed.questions import SKILLS, Question, ask
from earlytom.testbed.scene_types import SLOT_COUNT, ByteArray
from earlytom.testbed.scenes import generate_clip
from earlytom.testbed.series import SERIES, USUAL, Series

EVALUATION_SEED = 900_000_000
GREY = 127
LETTERS_SHARE = 0.4
# As in the clips of the benchmark: every second frame of 16 a second.
_FRAMES_PER_SECOND = 8.0


def answer(model: PreTrainedModel, processor: ProcessorMixin, frames: ByteArray, questions: Sequence[str]) -> list[str]:
    """Ask about one video, uint8 [T, H, W, 3]; returns one answer a question, in lower case."""
    prompts = [question_prompt(processor, question) for question in questions]
    # Some architectures tell their model when frames were taken.
    times = {
        "total_num_frames": len(frames),
        "fps": _FRAMES_PER_SECOND,
        "duration": len(frames) / _FRAMES_PER_SECOND,
        "frames_indices": list(range(len(frames))),
    }
    inputs = processor(
        text=prompts,
        videos=[frames] * len(prompts),
        video_metadata=[times] * len(prompts),
        do_sample_frames=False,
        padding=True,
        return_tensors="pt",
    )
    # Only pixels are in the model's dtype: seconds between frames would lose their digits.
    inputs = {
        key: value.to(model.device, model.dtype if key.startswith("pixel_values") else None)
        for key, value in inputs.items()
    }
    with torch.no_grad():
        tokens = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    new = tokens[:, inputs["input_ids"].shape[1] :]
    texts = processor.batch_decode(new, skip_special_tokens=True)
    return [text.strip().lower() for text in texts]


def questions_of_clip(
    seed: int, letters_share: float = LETTERS_SHARE, paraphrase: bool = False, series: Series = SERIES[USUAL]
) -> tuple[ByteArray, list[Question]]:
    """Return the frames, uint8 [T, 96, 96, 3] (a slot each), of an evaluation clip and the questions asked about it.

    About a share ``letters_share`` of them are multiple choice; with ``paraphrase`` all are worded as in no training.
    """
    frames, truth = generate_clip(seed, series.slots, series=series)
    generator = np.random.default_rng([seed, 5])
    questions = ask(truth, generator, paraphrase=paraphrase)
    return frames, mix_in_options(questions, truth, generator, letters_share)


def evaluate(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    clips: int,
    blind_clips: int,
    first_seed: int = EVALUATION_SEED,
) -> dict[str, Any]:
    """Return the accuracy per skill and on average: free answers, letters, paraphrased, blind, chance.

    Args:
        model: The model.
        processor: Its processor.
        clips: How many clips are asked about.
        blind_clips: How many of them are asked about again with grey frames, and how many again in other words.
        first_seed: Seed of the first clip.
    """
    seen, blind, paraphrased = _Marks(), _Marks(), _Marks()
    for number in tqdm(range(clips), desc="evaluate", unit="clip"):
        frames, questions = questions_of_clip(first_seed + number)
        texts = [question.text for question in questions]
        seen.add(questions, answer(model, processor, frames, texts))
        if number < blind_clips:
            blind.add(questions, answer(model, processor, np.full_like(frames, GREY), texts))
            others = questions_of_clip(first_seed + number, letters_share=0.0, paraphrase=True)[1]
            paraphrased.add(others, answer(model, processor, frames, [question.text for question in others]))
    skills = {
        skill: {
            "n": len(seen.of(skill)),
            "accuracy": seen.accuracy(skill),
            "free_n": len(seen.of(skill, letters=False)),
            "free": seen.accuracy(skill, letters=False),
            "letters_n": len(seen.of(skill, letters=True)),
            "letters": seen.accuracy(skill, letters=True),
            "paraphrased_n": len(paraphrased.of(skill)),
            "paraphrased": paraphrased.accuracy(skill),
            "blind_n": len(blind.of(skill)),
            "blind_free": blind.accuracy(skill, letters=False),
            "blind_letters": blind.accuracy(skill, letters=True),
            "chance_free": seen.chance(skill, letters=False),
            "chance_letters": seen.chance(skill, letters=True),
        }
        for skill in SKILLS
    }
    names = (
        *("accuracy", "free", "letters", "paraphrased"),
        *("blind_free", "blind_letters", "chance_free", "chance_letters"),
    )
    averages = {name: round(float(np.mean([row[name] for row in skills.values()])), 4) for name in names}
    return {
        "average": averages,
        "questions": len(seen.rows),
        "skills": skills,
        "seeds": {"first": first_seed, "clips": clips, "blind_and_paraphrased_clips": blind_clips},
        "frames": SLOT_COUNT,
    }


class _Marks:
    """Which questions were answered rightly."""

    def __init__(self) -> None:
        """Start empty."""
        self.rows: list[tuple[Question, bool]] = []

    def add(self, questions: Sequence[Question], answers: Sequence[str]) -> None:
        """Mark the answers to the questions about one clip."""
        self.rows += [(item, text == item.answer) for item, text in zip(questions, answers, strict=True)]

    def of(self, skill: str, letters: bool | None = None) -> list[bool]:
        """Return the marks of a skill, of both forms or of one."""
        return [right for item, right in self.rows if item.skill == skill and letters in (None, item.letters)]

    def accuracy(self, skill: str, letters: bool | None = None) -> float:
        """Return the share of right answers with four decimals; 0 if nothing was asked."""
        marks = self.of(skill, letters)
        return round(float(np.mean(marks)), 4) if marks else 0.0

    def chance(self, skill: str, letters: bool) -> float:
        """Return the share of the questions of a skill and form that can be had blind.

        That of the best constant answer, or of guessing among the answers that the questions name, whichever is higher.
        """
        asked = [item for item, _ in self.rows if item.skill == skill and item.letters == letters]
        constant = max(Counter(item.answer for item in asked).values(), default=0)
        return round(max(constant, sum(item.guess for item in asked)) / max(len(asked), 1), 4)


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, evaluate, write the metrics."""
    parser = argparse.ArgumentParser(prog="python -m earlytom.testbed.evaluate", description="Evaluate the test model.")
    parser.add_argument(
        "--architecture",
        choices=list(ARCHITECTURES),
        default=DEFAULT_ARCHITECTURE,
        help="which checkpoint, if none given",
    )
    parser.add_argument(
        "--checkpoint", type=Path, help="folder of the checkpoint; the one in this package if not given"
    )
    parser.add_argument("--output", type=Path, help="where to write the metrics; into this package if not given")
    parser.add_argument("--clips", type=int, default=120, help="clips to ask about")
    parser.add_argument(
        "--blind-clips", type=int, default=60, help="clips to ask about with grey frames, and in other words"
    )
    parser.add_argument("--training", default="", help="how the checkpoint was trained, kept in the metrics as it is")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    model, processor = load_checkpoint(options.checkpoint or find_architecture(options.architecture).folder)
    metrics = evaluate(model, processor, options.clips, options.blind_clips)
    metrics["dtype"] = str(model.dtype).removeprefix("torch.")
    metrics["versions"] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    which = "" if options.architecture == DEFAULT_ARCHITECTURE else f" --architecture {options.architecture}"
    metrics["command"] = (
        f"python -m earlytom.testbed.evaluate{which} --clips {options.clips} --blind-clips {options.blind_clips}"
    )
    if options.training:
        metrics["training"] = options.training
    output = options.output or output_file("metrics", model.config.model_type)
    output.write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
