"""Accuracy of the test model per skill, through the stock processor and the stock ``generate()``.

``python -m earlytom.testbed.evaluate`` asks about clips whose seeds training never uses, once with the video and once
blind, with grey frames in its place, and writes ``metrics.json``.
"""

import argparse
import json
import platform
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor

from earlytom.testbed.checkpoint import CHECKPOINT_FOLDER, load_checkpoint, question_prompt
from earlytom.testbed.questions import SKILLS, Question, ask
from earlytom.testbed.scene_types import SLOT_COUNT, ByteArray
from earlytom.testbed.scenes import generate_clip

EVALUATION_SEED = 900_000_000
METRICS_FILE = CHECKPOINT_FOLDER.parent / "metrics.json"
GREY = 127


def answer(
    model: LlavaOnevisionForConditionalGeneration,
    processor: LlavaOnevisionProcessor,
    frames: ByteArray,
    questions: Sequence[str],
) -> list[str]:
    """Ask about one video, uint8 [T, H, W, 3]; returns one answer a question, in lower case."""
    prompts = [question_prompt(processor, question) for question in questions]
    inputs = processor(text=prompts, videos=[frames] * len(prompts), padding=True, return_tensors="pt")
    inputs = inputs.to(model.device, model.dtype)
    with torch.no_grad():
        tokens = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    new = tokens[:, inputs["input_ids"].shape[1] :]
    texts = processor.batch_decode(new, skip_special_tokens=True)
    return [text.strip().lower() for text in texts]


def questions_of_clip(seed: int) -> tuple[ByteArray, list[Question]]:
    """Return the frames, uint8 [16, 96, 96, 3], of an evaluation clip and the questions asked about it."""
    frames, truth = generate_clip(seed)
    return frames, ask(truth, np.random.default_rng([seed, 5]))


def evaluate(
    model: LlavaOnevisionForConditionalGeneration,
    processor: LlavaOnevisionProcessor,
    clips: int,
    blind_clips: int,
    first_seed: int = EVALUATION_SEED,
) -> dict[str, Any]:
    """Return n, accuracy, blind accuracy and the best constant answer's accuracy, per skill and on average."""
    seen: dict[str, list[bool]] = defaultdict(list)
    blind: dict[str, list[bool]] = defaultdict(list)
    truths: dict[str, Counter[str]] = defaultdict(Counter)
    for number in tqdm(range(clips), desc="evaluate", unit="clip"):
        frames, questions = questions_of_clip(first_seed + number)
        _mark(seen, questions, answer(model, processor, frames, [question.text for question in questions]))
        for question in questions:
            truths[question.skill][question.answer] += 1
        if number < blind_clips:
            grey = np.full_like(frames, GREY)
            _mark(blind, questions, answer(model, processor, grey, [question.text for question in questions]))
    skills = {
        skill: {
            "n": len(seen[skill]),
            "accuracy": _mean(seen[skill]),
            "blind_n": len(blind[skill]),
            "blind": _mean(blind[skill]),
            "best_constant": round(max(truths[skill].values()) / max(len(seen[skill]), 1), 4),
        }
        for skill in SKILLS
        if seen[skill]
    }
    return {
        "average": round(float(np.mean([row["accuracy"] for row in skills.values()])), 4),
        "blind_average": round(float(np.mean([row["blind"] for row in skills.values()])), 4),
        "questions": sum(len(rows) for rows in seen.values()),
        "skills": skills,
        "seeds": {"first": first_seed, "clips": clips, "blind_clips": blind_clips},
        "frames": SLOT_COUNT,
    }


def _mark(marks: dict[str, list[bool]], questions: Sequence[Question], answers: Sequence[str]) -> None:
    """Record which questions were answered rightly, by skill."""
    for question, text in zip(questions, answers, strict=True):
        marks[question.skill].append(text == question.answer)


def _mean(values: Sequence[bool]) -> float:
    """Return the share of true values with four decimals; 0 if there are none."""
    return round(float(np.mean(values)), 4) if values else 0.0


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, evaluate, write the metrics."""
    parser = argparse.ArgumentParser(prog="python -m earlytom.testbed.evaluate", description="Evaluate the test model.")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT_FOLDER, help="folder of the checkpoint")
    parser.add_argument("--output", type=Path, default=METRICS_FILE, help="where to write the metrics")
    parser.add_argument("--clips", type=int, default=120, help="clips to ask about")
    parser.add_argument("--blind-clips", type=int, default=60, help="clips to ask about with grey frames")
    parser.add_argument("--training", default="", help="how the checkpoint was trained, kept in the metrics as it is")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    model, processor = load_checkpoint(options.checkpoint)
    metrics = evaluate(model, processor, options.clips, options.blind_clips)
    metrics["dtype"] = str(model.dtype).removeprefix("torch.")
    metrics["versions"] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    metrics["command"] = (
        f"python -m earlytom.testbed.evaluate --clips {options.clips} --blind-clips {options.blind_clips}"
    )
    if options.training:
        metrics["training"] = options.training
    options.output.write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
