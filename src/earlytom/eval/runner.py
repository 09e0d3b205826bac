"""Does what is not done yet: every clip with every method, and keeps a record of each."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import earlytom
from earlytom.bench.rounds import take_turns
from earlytom.eval.answering import Answerer, ModelAnswerer, weights_fingerprint
from earlytom.eval.mixes import EVEN, check_mix
from earlytom.eval.records import Asked, Record, RecordFile, claim_folder
from earlytom.eval.summary import summarise
from earlytom.eval.tasks import CLIPS_PER_TIMED, Benchmark, Task, make_task
from earlytom.eval.variants import Variant
from earlytom.testbed.series import USUAL

if TYPE_CHECKING:
    from earlytom.eval.rows import Row
    from earlytom.runtime.pipeline import VideoQA

__all__ = ["evaluate", "run", "run_settings"]


def evaluate(
    qa: VideoQA,
    benchmark: Benchmark,
    variants: Sequence[Variant],
    clips: int,
    folder: Path,
    on_done: Callable[[], object] = lambda: None,
    mix: str = EVEN,
) -> list[Row]:
    """Measure methods on a model; what the folder holds already is not done again.

    Args:
        qa: the model.
        benchmark: which clips and questions.
        variants: the methods, `earlytom.eval.variants.BASELINE` among them.
        clips: how many clips.
        folder: where records are kept.
        on_done: called ``clips`` times for each variant.
        mix: how the skills are averaged (`earlytom.eval.mixes.MIXES`); records do not depend on it.

    Raises:
        EarlyTomError: the folder holds a run with other settings, a method does not fit the model, there is no such
            mix, or a call failed.
    """
    check_mix(mix)
    claim_folder(folder, run_settings(qa, benchmark))
    answerers = {variant: ModelAnswerer(qa, variant.method, benchmark.max_tokens) for variant in variants}
    return summarise(run(benchmark, clips, answerers, folder, on_done), mix=mix)


def run_settings(qa: VideoQA, benchmark: Benchmark) -> dict[str, Any]:
    """Everything that answers and times depend on, besides the method and the number of clips."""
    import torch
    import transformers

    first = next(qa.model.parameters())
    # The generator itself may change between versions of this package.
    questions = [(question.text, question.answer) for question in benchmark.questions(0)]
    asked = dataclasses.asdict(benchmark)
    if benchmark.max_tokens is None:
        del asked["max_tokens"]  # folders of runs from before there was such a limit go on
    if benchmark.clips_of == USUAL:
        del asked["clips_of"]  # likewise
    return asked | {
        "weights": weights_fingerprint(qa.model),
        "device": first.device.type,
        "dtype": str(first.dtype).removeprefix("torch."),
        "attention": getattr(qa.model.config, "_attn_implementation", None),
        "questions": hashlib.sha256(repr(questions).encode()).hexdigest()[:16],
        "earlytom": earlytom.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def run(
    benchmark: Benchmark,
    clips: int,
    answerers: Mapping[Variant, Answerer],
    folder: Path,
    on_done: Callable[[], object] = lambda: None,
) -> dict[Variant, list[Record]]:
    """Ask about the first ``clips`` clips; what a record is there for is not asked again.

    Args:
        benchmark: which clips and questions.
        clips: how many; later calls may ask for more.
        answerers: who answers, for each variant.
        folder: where records are kept.
        on_done: called ``clips`` times for each variant, at once for what is done already.

    Returns:
        The records of each variant, by ascending clip. A clip without questions has none.

    Raises:
        EarlyTomError: the folder cannot be used, or an answerer fails.
    """
    files = {variant: RecordFile(folder, variant.spec) for variant in answerers}
    for clip in range(clips):
        task: Task | None = None
        drawn = False
        # Another one goes first on every timed clip, so that a machine that gets slower or faster favours none.
        for variant in take_turns(list(answerers), clip // CLIPS_PER_TIMED):
            # Asked anew each time: another process may be at work on the same methods.
            if clip not in files[variant].records():
                task, drawn = (task if drawn else make_task(benchmark, clip)), True
                if task is not None:
                    files[variant].append(_record(task, answerers[variant]))
            on_done()
    return {
        variant: [record for clip, record in sorted(file.records().items()) if clip < clips]
        for variant, file in files.items()
    }


def _record(task: Task, answerer: Answerer) -> Record:
    reply = answerer.answer(task)
    return Record(
        clip=task.clip,
        seed=task.seed,
        asked=tuple(
            Asked(
                question=question.text,
                expected=question.answer,
                skill=question.skill,
                letters=question.letters,
                guess=question.guess,
                reply=text,
            )
            for question, text in zip(task.questions, reply.texts, strict=True)
        ),
        visual_tokens=reply.visual_tokens,
        tokens_per_layer=reply.tokens_per_layer,
        frames_left=reply.frames_left,
        ttft=reply.ttft,
    )
