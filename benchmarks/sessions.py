"""Conversations: the second question's time to first token, over that of the first and of a text of its own length.

Runs take turns in one process: a text without a video, and the second question of a session of each length. The first
question's time is that of opening the session (encoder to prefill, once) and of its own first token.

    python benchmarks/sessions.py --model tiny --frames 4 8
    python benchmarks/sessions.py --frames 8 16 32 64 --output benchmarks/results/sessions_cpu.json
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _harness import environment, synchronise, write_json
from _models import build_clip
from earlytom import VideoQA, VideoSession
from earlytom.bench.configurations import build_video_qa, configuration_names
from earlytom.bench.processors import made_up_question
from earlytom.bench.quartiles import Quartiles
from earlytom.bench.rounds import in_rounds
from earlytom.bench.tables import plain_table

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# What happens to the video before the language model has it.
OPENING = ("encoder", "projection", "selection", "assembly", "prefill")
WORDS = 24


def question(number: int) -> str:
    """Words that mean nothing; another number, another question."""
    return " ".join(made_up_question(0, WORDS * (number + 1)).split(" ")[-WORDS:])


def open_after_one_question(qa: VideoQA, frames: int, method: str) -> tuple[VideoSession, float]:
    """A session in which one question has been asked, and milliseconds to that one's first token."""
    clip = build_clip(frames, qa.model.config.vision_config.image_size, "mixed")
    pictures = ((clip - clip.min()) / (clip.max() - clip.min()) * 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    session = qa.open(np.ascontiguousarray(pictures), method=method)
    spent = session.trace.last.milliseconds
    opening = sum(spent.get(stage, 0.0) for stage in OPENING)
    return session, opening + session.ask(question(0), max_new_tokens=1).ttft * 1000


def text_first_token(qa: VideoQA, length: int, device: torch.device) -> float:
    """Milliseconds to the first token behind a text of so many tokens."""
    ids = torch.randint(2, 200, (1, length), device=device)
    synchronise(device)
    started = time.perf_counter()
    qa.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=1)
    synchronise(device)
    return (time.perf_counter() - started) * 1000


def measure(qa: VideoQA, arguments: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """One entry for each number of frames."""
    sessions, first = {}, {}
    method = f"earlytom:retention={arguments.retention}"
    open_after_one_question(qa, 2, method)  # what only a first call takes
    for frames in arguments.frames:
        sessions[frames], first[frames] = open_after_one_question(qa, frames, method)
        print(f"{frames} frames: first token after {first[frames] / 1000:.1f} s", file=sys.stderr, flush=True)
    asked = {frames: session.fork().ask(question(1), max_new_tokens=1) for frames, session in sessions.items()}
    texts: list[float] = []
    seconds: dict[int, list[float]] = {frames: [] for frames in sessions}
    for turn, frames in in_rounds([0, *sessions], repeats=arguments.rounds, warm_ups=1):
        if frames:
            spent = sessions[frames].fork().ask(question(1), max_new_tokens=1).ttft * 1000
        else:
            spent = text_first_token(qa, asked[arguments.frames[0]].prefill_tokens, device)
        if turn >= 0:
            (seconds[frames] if frames else texts).append(spent)
    text = Quartiles(tuple(texts))
    return [
        {
            "frames": frames,
            "visual_tokens": session.visual_tokens,
            "cache_bytes": session.memory,
            "prefilled_for_the_second": asked[frames].prefill_tokens,
            "first_question_ms": first[frames],
            "second_question_ms": Quartiles(tuple(seconds[frames])).to_dict(),
            "text_ms": text.to_dict(),
            "second_over_first": Quartiles(tuple(seconds[frames])).median / first[frames],
            "second_over_text": Quartiles(tuple(a / b for a, b in zip(seconds[frames], texts, strict=True))).to_dict(),
        }
        for frames, session in sessions.items()
    ]


def main(given: list[str] | None = None) -> None:
    """Measure and print; ``--output`` keeps it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=configuration_names(), default="llava-onevision-0.5b")
    parser.add_argument("--frames", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--retention", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtype", choices=list(DTYPES), default="bfloat16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args(given)
    device = torch.device(arguments.device)
    qa = build_video_qa(arguments.model, device=device, dtype=DTYPES[arguments.dtype])
    results = measure(qa, arguments, device)
    rows = [
        [str(one["frames"]), str(one["visual_tokens"]), f"{one['first_question_ms']:.0f}",
         f"{one['second_question_ms']['median']:.1f}", f"{one['second_over_first']:.4f}",
         f"{one['text_ms']['median']:.1f}", f"{one['second_over_text']['median']:.2f}",
         f"{one['cache_bytes'] / 1e6:.1f}"]
        for one in results
    ]  # fmt: skip
    columns = ["frames", "tokens", "first, ms", "second, ms", "second/first", "text, ms", "second/text", "cache, MB"]
    print(plain_table(columns, rows))
    if arguments.output is not None:
        settings = {name: value for name, value in vars(arguments).items() if name != "output"}
        write_json(arguments.output, {"environment": environment(device), "settings": settings, "results": results})


if __name__ == "__main__":
    main()
