"""The three sample videos: real H.264 files with questions that the shipped checkpoint answers rightly.

``python -m earlytom.testbed.samples`` draws them from seeds that neither training nor evaluation uses. Only clips whose
questions the checkpoint answers rightly through the file are kept, and of these only the questions that it also answers
rightly with EarlyTom at 25%. So they show what happens when it works, and a change that breaks it is seen; how often
the test model is right stands in ``metrics.json``.
"""

import argparse
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from transformers import PreTrainedModel, ProcessorMixin

from earlytom.runtime.pipeline import VideoQA
from earlytom.testbed.checkpoint import CHECKPOINT_FOLDER, FRAME_LIMIT, load_checkpoint
from earlytom.testbed.evaluate import answer
from earlytom.testbed.questions import SKILLS, Question, ask
from earlytom.testbed.scene_types import ByteArray, Truth
from earlytom.testbed.scenes import generate_clip

SAMPLES_FOLDER = CHECKPOINT_FOLDER.parent / "samples"
SAMPLE_SEED = 950_000_000
VIDEO_SIZE = 384
VIDEO_FRAMES = 96
FRAMES_PER_SECOND = 16
COMPRESSION = "earlytom:retention=0.25"


def write_video(path: Path, frames: ByteArray, preset: str = "slow") -> None:
    """Write frames, uint8 [T, H, W, 3], as H.264 at 16 frames a second, with a preset of x264."""
    # Without mbtree=0, x264 does not give the same file twice for pictures of 96 x 96 pixels.
    # Nor, for larger ones, with other numbers of threads.
    coding = {"crf": "24", "preset": preset, "threads": "1", "x264-params": "mbtree=0"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FRAMES_PER_SECOND), options=coding)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def read_video(path: Path, count: int = FRAME_LIMIT) -> ByteArray:
    """Decode a video and return ``count`` uniform frames, uint8 [count, H, W, 3]."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    chosen = np.linspace(0, len(frames) - 1, count).astype(np.int64)
    return np.stack([frames[int(index)] for index in chosen])


def _moving(truth: Truth) -> bool:
    """Tell whether the clip is one scene with at least two objects, one of them moving."""
    return int(truth.scene[-1]) == 0 and len(truth.objects) >= 2 and any(item.direction for item in truth.objects)


def _cut(truth: Truth) -> bool:
    """Tell whether the clip has two scenes or more and nothing brief."""
    return int(truth.scene[-1]) >= 1 and not any(item.brief for item in truth.objects)


def _brief(truth: Truth) -> bool:
    """Tell whether one object of the clip is brief."""
    return any(item.brief for item in truth.objects)


SAMPLES: dict[str, tuple[Callable[[Truth], bool], frozenset[str]]] = {
    "moving_objects.mp4": (_moving, frozenset({"colour", "shape", "direction", "count"})),
    "hard_cut.mp4": (_cut, frozenset({"colour", "direction", "count", "order", "position"})),
    "brief_appearance.mp4": (_brief, frozenset({"shape", "brief", "position"})),
}


def make_sample(
    name: str,
    first_seed: int,
    folder: Path,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    attempts: int = 60,
) -> tuple[list[Question], int]:
    """Write the first fitting video whose questions are all answered rightly; returns its questions and its seed."""
    fits, skills = SAMPLES[name]
    for seed in range(first_seed, first_seed + attempts):
        truth = generate_clip(seed)[1]
        questions = _one_per_skill(ask(truth, np.random.default_rng([seed, 5])))
        if not fits(truth) or not skills <= {question.skill for question in questions}:
            continue
        frames, _ = generate_clip(seed, VIDEO_FRAMES, VIDEO_SIZE, degrade=False)
        write_video(folder / name, frames)
        answers = answer(model, processor, read_video(folder / name), [question.text for question in questions])
        if answers == [question.answer for question in questions]:
            return questions, seed
    raise RuntimeError(f"no clip for {name} was answered rightly in {attempts} attempts from seed {first_seed}")


def _one_per_skill(questions: list[Question]) -> list[Question]:
    """Keep the first question of each skill, in the order of the skills."""
    first: dict[str, Question] = {}
    for question in questions:
        first.setdefault(question.skill, question)
    return [first[skill] for skill in SKILLS if skill in first]


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and write the sample videos and their questions."""
    parser = argparse.ArgumentParser(prog="python -m earlytom.testbed.samples", description="Make the sample videos.")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT_FOLDER, help="folder of the checkpoint")
    parser.add_argument("--folder", type=Path, default=SAMPLES_FOLDER, help="folder for the videos")
    options = parser.parse_args(arguments)
    torch.set_num_threads(2)
    options.folder.mkdir(parents=True, exist_ok=True)
    model, processor = load_checkpoint(options.checkpoint)
    compressed = VideoQA(model, processor)
    rows: list[dict[str, str | int]] = []
    for number, name in enumerate(SAMPLES):
        questions, seed = make_sample(name, SAMPLE_SEED + 1000 * number, options.folder, model, processor)
        for item in questions:
            reply = compressed.ask(options.folder / name, item.text, method=COMPRESSION)
            if reply.text != item.answer:
                continue
            row: dict[str, str | int] = {
                "video": name,
                "question": item.text,
                "answer": item.answer,
                "skill": item.skill,
                "seed": seed,
            }
            rows.append(row)
    text = json.dumps(rows, indent=1) + "\n"
    (options.folder / "questions.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
