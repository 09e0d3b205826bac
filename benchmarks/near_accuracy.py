"""What frames taken near those asked for cost in answers: the test model, on generated clips read exactly and near.

    python benchmarks/near_accuracy.py --output benchmarks/results/near_accuracy.json

A clip is longer than the ones of `earlytom eval testbed`: 16 frames of the file for one that is sampled, and a
keyframe after every 10, seldom one that is asked for. All readings are asked the same questions.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

import earlytom
from _harness import Progress, environment, write_json
from earlytom.bench.tables import plain_table
from earlytom.eval.judging import is_right
from earlytom.eval.statistics import mcnemar
from earlytom.eval.tasks import Benchmark
from earlytom.testbed.questions import Question
from earlytom.testbed.scenes import generate_clip
from earlytom.video import Sampling, Video, read_video

STEP = 16
KEYFRAME = 10
SIZE = 96
RATE = 16


def main() -> None:
    arguments = _arguments()
    qa = earlytom.VideoQA.load(earlytom.shipped_model(), device="cpu")
    method = earlytom.EarlyTom(retention=arguments.retention)
    benchmark = Benchmark(seed=arguments.seed)
    start = environment(torch.device("cpu"))
    answers: dict[float, list[bool]] = {share: [] for share in (0.0, *arguments.near)}
    videos: dict[float, list[Video]] = {share: [] for share in answers}
    progress = Progress(arguments.clips)
    with tempfile.TemporaryDirectory(prefix="earlytom-near-") as folder:
        for clip in range(arguments.clips):
            progress.show(f"clip {clip + 1} of {arguments.clips}")
            path, questions = Path(folder) / "clip.mp4", benchmark.questions(clip)
            _write(path, generate_clip(benchmark.clip_seed(clip), STEP * (benchmark.frames - 1) + 1, SIZE)[0])
            for share, right in answers.items():
                video = read_video(path, Sampling(frames=benchmark.frames, near=share))
                videos[share].append(video)
                right += _right(qa, video, questions, method)
    progress.close()
    readings = {f"near {share:g}" if share else "exact": _summary(videos[share], answers, share) for share in answers}
    settings = {name: getattr(arguments, name) for name in ("clips", "seed", "near", "retention")}
    settings |= {"frames": benchmark.frames, "frames_between": STEP, "keyframe_every": KEYFRAME}
    if arguments.output:
        write_json(arguments.output, {"environment": start, "settings": settings, "readings": readings})
    print(_report(readings))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=60, help="clips (60)")
    parser.add_argument("--seed", type=int, default=0, help="which series of clips (0)")
    parser.add_argument("--near", type=float, nargs="+", default=[0.25, 0.5], help="shares to try")
    parser.add_argument("--retention", type=float, default=0.25, help="of EarlyTom (0.25)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    return parser.parse_args()


def _write(path: Path, frames: Sequence[np.ndarray[Any, np.dtype[np.uint8]]]) -> None:
    """H.264 with a keyframe after every ``KEYFRAME`` frames, and B-frames."""
    options = {"crf": "24", "preset": "veryfast", "g": str(KEYFRAME), "bf": "3", "sc_threshold": "0", "threads": "1"}
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=RATE, options=options)
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _right(qa: earlytom.VideoQA, video: Video, questions: Sequence[Question], method: earlytom.EarlyTom) -> list[bool]:
    replies = qa.ask_all(video, [question.text for question in questions], method=method, max_new_tokens=8)
    return [
        is_right(reply.text, question.answer, letters=question.letters)
        for reply, question in zip(replies, questions, strict=True)
    ]


def _summary(videos: Sequence[Video], answers: Mapping[float, list[bool]], share: float) -> dict[str, Any]:
    right, exact = answers[share], answers[0.0]
    off = [abs(seconds) for video in videos for seconds in video.deviations or [0.0] * len(video.indices)]
    gained = sum(now and not before for before, now in zip(exact, right, strict=True))
    lost = sum(before and not now for before, now in zip(exact, right, strict=True))
    return {
        "questions": len(right),
        "accuracy": round(sum(right) / len(right), 4),
        "gained": gained,
        "lost": lost,
        "mcnemar_p": round(mcnemar(gained, lost), 4),
        "decoded_mean": round(sum(video.decoded or 0 for video in videos) / len(videos), 1),
        "seconds_off_mean": round(sum(off) / len(off), 4),
        "seconds_between_frames": STEP / RATE,
    }


def _report(readings: Mapping[str, Mapping[str, Any]]) -> str:
    columns = ("accuracy", "gained", "lost", "mcnemar_p", "decoded_mean", "seconds_off_mean")
    rows = [[name, *(str(values[column]) for column in columns)] for name, values in readings.items()]
    return plain_table(["reading", *columns], rows)


if __name__ == "__main__":
    main()
