"""The same question with and without compression, in one process, and the table that shows it."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from earlytom.bench.rounds import in_rounds
from earlytom.cli.display import cell, table

if TYPE_CHECKING:
    from rich.table import Table

    from earlytom.methods.base import Method
    from earlytom.runtime.pipeline import Answer, VideoQA
    from earlytom.video import Video

__all__ = ["Comparison", "Run", "compare_methods", "comparison_table", "ratio"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """All runs of one method; ``ttfts`` in seconds, in the order they were measured."""

    method: str
    answer: Answer
    ttfts: tuple[float, ...]

    @property
    def ttft(self) -> float:
        """The median, in seconds."""
        return statistics.median(self.ttfts)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data; times in seconds."""
        return {"method": self.method, **self.answer.to_dict(), "ttft": self.ttft, "ttft_runs": list(self.ttfts)}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One question, answered by the plain model and with a method."""

    question: str
    baseline: Run
    compressed: Run

    @property
    def speedup(self) -> float:
        """Median time to first token without the method over that with it."""
        return self.baseline.ttft / self.compressed.ttft

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data; times in seconds."""
        runs = [self.baseline.to_dict(), self.compressed.to_dict()]
        return {"question": self.question, "runs": runs, "ttft_speedup": self.speedup}


def compare_methods(
    qa: VideoQA,
    video: Video,
    question: str,
    method: Method,
    *,
    repeats: int,
    max_new_tokens: int,
    max_tokens: int | None = None,
    warm_up: bool = True,
    on_run: Callable[[], object] = lambda: None,
) -> Comparison:
    """Ask with method ``none`` and with ``method``, in turns.

    Args:
        qa: the model.
        video: the frames.
        question: the question.
        method: the method.
        repeats: measured runs of each.
        max_new_tokens: most tokens to generate.
        max_tokens: most visual tokens of the clip before it is compressed (`earlytom.VideoQA.ask`).
        warm_up: run each once before measuring.
        on_run: called after each run.
    """
    from earlytom.methods.none import Uncompressed

    methods = (Uncompressed(), method)
    answers: dict[int, Answer] = {}
    ttfts: dict[int, list[float]] = {0: [], 1: []}
    for turn, which in in_rounds((0, 1), repeats=repeats, warm_ups=int(warm_up)):
        answers[which] = qa.ask(
            video, question, method=methods[which], max_new_tokens=max_new_tokens, max_tokens=max_tokens
        )
        if turn >= 0:
            ttfts[which].append(answers[which].ttft)
        on_run()
    baseline, compressed = (
        Run(method=methods[which].describe(), answer=answers[which], ttfts=tuple(ttfts[which])) for which in (0, 1)
    )
    # The baseline has one knob, which says nothing.
    return Comparison(
        question=question, baseline=dataclasses.replace(baseline, method=methods[0].name), compressed=compressed
    )


def comparison_table(comparison: Comparison) -> Table:
    """One column a method, one row a measure."""
    runs = (comparison.baseline, comparison.compressed)
    made = table(["", *(run.method for run in runs)])
    made.add_row(cell("answer"), *(cell(run.answer.text or "(empty)", "bold") for run in runs))
    made.add_row(cell("visual tokens"), *(cell(_tokens(run.answer)) for run in runs))
    made.add_row(
        cell("frames through the encoder"), *(cell(f"{run.answer.frames} -> {run.answer.frames_left}") for run in runs)
    )
    if any(run.answer.temporal_grids != run.answer.frames for run in runs):
        grids = (f"{run.answer.temporal_grids} -> {run.answer.temporal_grids_left}" for run in runs)
        made.add_row(cell("as temporal grids"), *map(cell, grids))
    made.add_row(cell("prefill tokens"), *(cell(run.answer.prefill_tokens) for run in runs))
    repeats = len(comparison.baseline.ttfts)
    measure = f"TTFT, median of {repeats}" if repeats > 1 else "TTFT, one run"
    made.add_row(cell(measure), *(cell(f"{run.ttft * 1000:.1f} ms") for run in runs))
    made.add_row(cell("speed-up of TTFT"), cell("1"), cell(ratio(comparison.speedup)))
    return made


def ratio(speedup: float) -> str:
    """A speed-up in words that do not hide a slow-down."""
    return f"{speedup:.2f}x" + (" (slower)" if speedup < 1 else "")


def _tokens(answer: Answer) -> str:
    kept, whole = answer.visual_tokens, answer.visual_tokens_uncompressed
    return f"{kept}" if kept == whole else f"{kept} of {whole} ({kept / whole:.1%})"
