"""``earlytom demo``: the main job on real files, with and without compression."""

from __future__ import annotations

import itertools
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from earlytom.cli import choices, options, session
from earlytom.cli.compare import Comparison, compare_methods, ratio
from earlytom.cli.display import cell, note, output, print_json, progress, status, table
from earlytom.errors import EarlyTomError, shortened
from earlytom.shipped import sample_questions

__all__ = ["Case", "Result", "demo"]

_DEFAULT_QUESTION = "How many objects are there?"
_MAX_NEW_TOKENS = 16


@dataclass(frozen=True, kw_only=True)
class Case:
    """A question to be asked; ``expected`` is ``None`` where nobody knows the answer."""

    video: Path
    question: str
    expected: str | None


@dataclass(frozen=True, kw_only=True)
class Result:
    """A case and what came of it."""

    case: Case
    comparison: Comparison

    def right(self, answer: str) -> bool:
        """Whether an answer is the expected one; what nobody can judge is not wrong."""
        expected = self.case.expected
        return expected is None or answer.strip(" .").lower() == expected.lower()

    @property
    def all_right(self) -> bool:
        """Whether both answers are right."""
        return all(self.right(run.answer.text) for run in (self.comparison.baseline, self.comparison.compressed))

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data."""
        head = {"video": str(self.case.video), "expected": self.case.expected}
        return (
            head | {"all_right": self.all_right if self.case.expected is not None else None} | self.comparison.to_dict()
        )


def demo(
    video: Annotated[
        Path | None,
        typer.Argument(metavar="VIDEO", help="A video of your own; without it: the sample videos.", show_default=False),
    ] = None,
    question: Annotated[
        str | None,
        typer.Argument(
            metavar="QUESTION", help=f"What to ask about it. Without it: '{_DEFAULT_QUESTION}'", show_default=False
        ),
    ] = None,
    retention: Annotated[
        float | None,
        typer.Option(
            "--retention",
            metavar="SHARE",
            help="Share of the visual tokens that EarlyTom keeps. Without it: 0.25.",
            show_default=False,
        ),
    ] = None,
    visual_tokens: Annotated[
        int | None,
        typer.Option(
            "--visual-tokens", metavar="N", help="Instead of --retention: how many it keeps.", show_default=False
        ),
    ] = None,
    device: options.DeviceOption = "auto",
    repeats: Annotated[int, typer.Option("--repeats", metavar="N", min=1, help="Measured runs of each question.")] = 3,
    as_json: options.JsonOption = False,
) -> None:
    """Ask the shipped test model about videos, with and without EarlyTom: answers, tokens, time to first token.

    Without a VIDEO: all questions about the generated sample videos, whose right answers are known; exit code 1 when
    an answer is wrong. The shipped model knows generated scenes only: about other videos its answers mean nothing,
    its tokens and times do.
    """
    method = choices.build_method("earlytom", retention, visual_tokens=visual_tokens)
    cases = _choose_cases(video, question)
    possible = [session.shipped_model_note(None, case.video) for case in cases[:1]]
    notes = [text for text in possible if text]
    qa = session.load_model(choices.ModelChoice(device=device))
    for text in notes:
        note(text)
    results: list[Result] = []
    console = output()
    total = 2 * (repeats * len(cases) + len({case.video for case in cases}))
    with progress() as bar:
        task = bar.add_task("asking", total=total)
        for path, group in itertools.groupby(cases, key=lambda case: case.video):
            found = _ask_all(qa, path, list(group), method, repeats, lambda: bar.advance(task))
            results += found
            if not as_json:
                console.print(_table(path, found))
    device_name = session.describe_device(qa)
    if as_json:
        document = {"device": device_name, "repeats": repeats, "ttft_scope": session.TTFT_SCOPE, "notes": notes}
        print_json(document | {"results": [result.to_dict() for result in results], "summary": _summary(results)})
    else:
        for line in _summary_lines(results, device_name):
            console.print(line)
    if not all(result.all_right for result in results):
        raise typer.Exit(1)


def _choose_cases(video: Path | None, question: str | None) -> list[Case]:
    """The sample questions, or those about one video."""
    try:
        known = [Case(video=q.video, question=q.question, expected=q.answer) for q in sample_questions()]
    except EarlyTomError:
        if video is None:
            raise
        known = []
    if video is None:
        return known
    if not os.path.exists(video):
        raise EarlyTomError(f"{shortened(video)}: no such file")
    about = [case for case in known if case.video.resolve() == video.resolve()]
    if question is None:
        return about or [Case(video=video, question=_DEFAULT_QUESTION, expected=None)]
    expected = next((case.expected for case in about if case.question == question), None)
    return [Case(video=video, question=question, expected=expected)]


def _ask_all(
    qa: Any, path: Path, cases: Sequence[Case], method: Any, repeats: int, on_run: Callable[[], object]
) -> list[Result]:
    """All questions about one video, which is read once and warmed up once."""
    with status(f"reading {path.name}"):
        video = qa.read(path)
    results = []
    for number, case in enumerate(cases):
        comparison = compare_methods(
            qa,
            video,
            case.question,
            method,
            repeats=repeats,
            max_new_tokens=_MAX_NEW_TOKENS,
            warm_up=number == 0,
            on_run=on_run,
        )
        results.append(Result(case=case, comparison=comparison))
    return results


def _table(path: Path, results: list[Result]) -> Any:
    columns = ["question", "expected", "plain model", "EarlyTom", "visual tokens", "TTFT, ms", "ratio"]
    made = table(columns, title=str(path.name), right=("visual tokens", "TTFT, ms", "ratio"))
    for result in results:
        plain, short = result.comparison.baseline, result.comparison.compressed
        answers = [cell(run.answer.text or "(empty)", _judgement(result, run.answer.text)) for run in (plain, short)]
        made.add_row(
            cell(result.case.question),
            cell(result.case.expected if result.case.expected is not None else "(not known)"),
            *answers,
            cell(f"{plain.answer.visual_tokens} -> {short.answer.visual_tokens}"),
            cell(f"{plain.ttft * 1000:.0f} -> {short.ttft * 1000:.0f}"),
            cell(ratio(result.comparison.speedup)),
        )
    return made


def _judgement(result: Result, text: str) -> str:
    if result.case.expected is None:
        return ""
    return "green" if result.right(text) else "bold red"


def _summary(results: list[Result]) -> dict[str, Any]:
    judged = [result for result in results if result.case.expected is not None]
    plain, short = [r.comparison.baseline for r in results], [r.comparison.compressed for r in results]
    return {
        "questions": len(results),
        "judged": len(judged),
        "right_plain": sum(result.right(result.comparison.baseline.answer.text) for result in judged),
        "right_earlytom": sum(result.right(result.comparison.compressed.answer.text) for result in judged),
        "same_answer": sum(a.answer.text == b.answer.text for a, b in zip(plain, short, strict=True)),
        "visual_tokens_plain": sum(run.answer.visual_tokens for run in plain),
        "visual_tokens_earlytom": sum(run.answer.visual_tokens for run in short),
        "ttft_ratio_median": statistics.median(result.comparison.speedup for result in results),
    }


def _summary_lines(results: list[Result], device: str) -> list[str]:
    found = _summary(results)
    lines = []
    if found["judged"]:
        lines.append(
            f"Right answers: {found['right_plain']} of {found['judged']} without compression, "
            f"{found['right_earlytom']} of {found['judged']} with EarlyTom."
        )
    kept, whole = found["visual_tokens_earlytom"], found["visual_tokens_plain"]
    lines.append(f"Visual tokens: {kept} of {whole} ({kept / whole:.1%}).")
    lines.append(f"Time to first token: {ratio(found['ttft_ratio_median'])} (median of the ratios) on {device}.")
    lines.append(session.TTFT_SCOPE)
    lines.append(
        "The model is tiny, so its ratio says nothing about a real one: fixed costs weigh more than tokens here."
    )
    return lines
