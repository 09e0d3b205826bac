"""A whole benchmark: all subjects in turns in one process, and what comes of their runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from earlytom.bench.accounting import paper_flops, tokens_per_layer
from earlytom.bench.clips import redundant_share
from earlytom.bench.inspection import Inspection
from earlytom.bench.measuring import Measurer, Timed
from earlytom.bench.paper_models import find_paper_model
from earlytom.bench.quartiles import Quartiles
from earlytom.bench.reading import ReadingTimes, measure_reading
from earlytom.bench.results import PARTS_OF_MEMORY, Flops, Result, Tokens
from earlytom.bench.rounds import in_rounds
from earlytom.bench.subjects import Subject
from earlytom.errors import EarlyTomError, shown
from earlytom.models import open_model
from earlytom.trace import CallTrace
from earlytom.video import Sampling

if TYPE_CHECKING:
    from earlytom.runtime.pipeline import VideoQA
    from earlytom.video import Video

__all__ = ["Findings", "flops_of", "run_bench", "steps_of", "tokens_of", "with_paper_flops"]

_SPLIT = ("ttft", "vision_encoding", "token_processing", "prefill", "overhead")


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a run found.

    Attributes:
        results: of the subjects that could be measured.
        left_out: name, frames that were asked for, and reason of those that could not.
        redundant_share: of the clip's frames, as most of them were sampled.
        question_tokens: tokens of that prompt that stand for no part of the video.
        deviation: seconds that these frames are off those asked for, ``mean`` and ``largest``; ``None`` where frames
            near them were not allowed.
    """

    results: Sequence[Result]
    left_out: Sequence[Mapping[str, Any]]
    redundant_share: float
    question_tokens: int
    deviation: Mapping[str, float] | None = None


@dataclass
class _Runs:
    """All runs of one subject."""

    timed: list[Timed] = field(default_factory=list)
    call: CallTrace | None = None
    inspection: Inspection | None = None
    failure: str | None = None


@dataclass
class _Clip:
    """The clip, sampled to so many frames, of which ``frames`` went into the model."""

    frames: int
    inputs: Mapping[str, Any]
    redundant_share: float
    deviation: Mapping[str, float] | None
    times: list[ReadingTimes] = field(default_factory=list)


def run_bench(
    qa: VideoQA,
    path: Path,
    subjects: Sequence[Subject],
    *,
    question: str,
    repeats: int,
    warm_ups: int = 1,
    new_tokens: int = 1,
    near: float = 0.0,
    max_tokens: int | None = None,
    on_run: Callable[[str], object] = lambda name: None,
) -> Findings:
    """Measure all subjects in turns.

    A round reads the video once for each number of frames, and then runs every subject once, another one first each
    time. Between the warm-ups and the rounds that count, every subject is inspected, once and untimed.

    Args:
        qa: the model.
        path: the video file.
        subjects: who is measured.
        question: asked about the video.
        repeats: rounds that count, at least 1.
        warm_ups: rounds before them.
        new_tokens: that every run makes, at least 1.
        near: how far off sampled frames may be (`earlytom.Sampling`).
        max_tokens: most visual tokens of the clip before it is compressed (`VideoQA.ask`).
        on_run: told the name of what runs next: `steps_of` times.

    Returns:
        The results. A subject that does not fit the model, or for which memory is too small, is left out, and so is a
        number of frames that cannot be read.

    Raises:
        EarlyTomError: a number is not allowed.
        VideoError: the video cannot be read, in whatever number of frames.
    """
    for name, value, least in (("repeats", repeats, 1), ("warm_ups", warm_ups, 0), ("new_tokens", new_tokens, 1)):
        if value < least:
            raise EarlyTomError(f"{name} must be at least {least}, got {shown(value)}")

    def read(frames: int) -> tuple[ReadingTimes, Video, dict[str, Any]]:
        return measure_reading(qa, path, question, Sampling(frames=frames, near=near), max_tokens)

    bench = _Bench(qa, read, subjects, new_tokens, on_run)
    with bench.measuring():
        bench.rounds(warm_ups, counting=False)
        bench.inspect()
        bench.rounds(repeats, counting=True)
    return bench.findings(find_paper_model(open_model(qa.model).config))


def steps_of(subjects: Sequence[Subject], repeats: int, warm_ups: int) -> int:
    """How often `run_bench` tells what runs next, where nothing is left out."""
    frames = len({subject.frames for subject in subjects})
    return (repeats + warm_ups) * (frames + len(subjects)) + len(subjects)


class _Bench:
    """See `run_bench`."""

    def __init__(
        self,
        qa: VideoQA,
        read: Callable[[int], tuple[ReadingTimes, Video, dict[str, Any]]],
        subjects: Sequence[Subject],
        new_tokens: int,
        on_run: Callable[[str], object],
    ) -> None:
        self._read, self._on_run = read, on_run
        self._measurer = Measurer(qa.model, new_tokens)
        self._placeholders = _placeholders(open_model(qa.model).config)
        self._runs = {subject: _Runs() for subject in subjects}
        self._clips: dict[int, _Clip] = {}
        counts = list(dict.fromkeys(one.frames for one in subjects))
        for frames in counts:
            with self._leaving_out(frames, last=frames == counts[-1]):
                self._clips[frames] = self._clip(frames)

    def measuring(self) -> AbstractContextManager[None]:
        """Where everything is measured; on leaving the model has the attention that it had."""
        return self._measurer.attention_restored()

    def rounds(self, repeats: int, *, counting: bool) -> None:
        """Read the clip and run every subject, once a round."""
        last = -1
        for turn, subject in in_rounds(list(self._runs), repeats=repeats):
            if turn != last:
                self._read_all(counting=counting)
            last = turn
            self._attempt(subject, partial(self._time, counting=counting))

    def inspect(self) -> None:
        """Count what every subject does."""
        for subject in self._runs:
            self._attempt(subject, self._inspect)

    def findings(self, paper_model: str | None) -> Findings:
        """What has been found."""
        measured = {subject: runs for subject, runs in self._runs.items() if runs.failure is None}
        calls = [runs.call for runs in measured.values() if runs.call is not None]
        results = [_result(subject, runs, self._clips[subject.frames]) for subject, runs in measured.items()]
        most = self._clips[max(self._clips)]
        layers = calls[0].decoder_layers if calls else 0
        return Findings(
            results=results if paper_model is None else with_paper_flops(results, paper_model, layers),
            left_out=[
                {"name": subject.name, "frames": subject.frames, "reason": runs.failure}
                for subject, runs in self._runs.items()
                if runs.failure is not None
            ],
            redundant_share=most.redundant_share,
            question_tokens=sum(id_ not in self._placeholders for id_ in most.inputs["input_ids"].flatten().tolist()),
            deviation=most.deviation,
        )

    def _clip(self, frames: int) -> _Clip:
        _, video, inputs = self._read(frames)
        return _Clip(
            frames=len(video.frames),
            inputs=inputs,
            redundant_share=redundant_share(video.frames),
            deviation=_deviation(video),
        )

    def _read_all(self, *, counting: bool) -> None:
        for frames, clip in list(self._clips.items()):
            self._on_run(f"reading {frames} frames")
            with self._leaving_out(frames):
                times, _, _ = self._read(frames)
                if counting:
                    clip.times.append(times)

    @contextmanager
    def _leaving_out(self, frames: int, *, last: bool = True) -> Iterator[None]:
        """Where a number of frames is read: what fails costs its subjects, unless no other number is left."""
        try:
            yield
        except (EarlyTomError, MemoryError, RuntimeError) as error:
            reason = _failure(error)
            if reason is not None:
                self._clips.pop(frames, None)
            if reason is None or (last and not self._clips):
                raise
            for subject, runs in self._runs.items():
                if subject.frames == frames:
                    runs.failure = runs.failure or f"reading {frames} frames: {reason}"
            _give_back()

    def _time(self, subject: Subject, *, counting: bool) -> None:
        timed, call = self._measurer.timed(subject, self._clips[subject.frames].inputs)
        runs = self._runs[subject]
        if counting:
            runs.timed.append(timed)
            runs.call = call

    def _inspect(self, subject: Subject) -> None:
        self._runs[subject].inspection = self._measurer.inspected(subject, self._clips[subject.frames].inputs)

    def _attempt(self, subject: Subject, call: Callable[[Subject], object]) -> None:
        """Run a subject unless it has failed before; its failure is no failure of the others."""
        runs = self._runs[subject]
        if runs.failure is not None:
            return
        self._on_run(subject.name)
        try:
            call(subject)
        except (EarlyTomError, MemoryError, RuntimeError) as error:
            runs.failure = _failure(error)
            if runs.failure is None:
                raise
        if runs.failure is not None:
            _give_back()


def _failure(error: Exception) -> str | None:
    """Why there is nothing to measure, in words; ``None`` where an error is nobody's but this package's."""
    if isinstance(error, EarlyTomError):
        return str(error)
    if isinstance(error, torch.OutOfMemoryError):
        return "the device's memory is too small"
    # Of the host's memory torch tells by a plain RuntimeError.
    return "memory is too small" if isinstance(error, MemoryError) or "can't allocate memory" in str(error) else None


def _give_back() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _placeholders(config: Any) -> set[int]:
    """Ids of tokens that stand for pictures and videos in a prompt."""
    found = (getattr(config, name, None) for name in ("video_token_id", "image_token_id"))
    return {id_ for id_ in found if id_ is not None}


def _deviation(video: Video) -> dict[str, float] | None:
    off = [abs(seconds) for seconds in video.deviations]
    return {"mean": round(sum(off) / len(off), 4), "largest": round(max(off), 4)} if off else None


def _result(subject: Subject, runs: _Runs, clip: _Clip) -> Result:
    call, inspection = runs.call, runs.inspection
    if call is None or inspection is None:
        raise LookupError(f"{subject.name} has not been measured")
    return Result(
        name=subject.name,
        method=subject.method.describe(),
        label=subject.label,
        retention=subject.retention,
        attention=subject.attention,
        frames=clip.frames,
        frames_asked=subject.frames,
        milliseconds=_milliseconds(runs.timed, clip.times),
        tokens_per_second=Quartiles.of(run.tokens_per_second for run in runs.timed),
        throughput=Quartiles.of(run.throughput for run in runs.timed),
        peak_bytes={name: inspection.peak_of(name) for name in PARTS_OF_MEMORY} | {"all": inspection.peak},
        tokens=tokens_of(call),
        waits=inspection.waits,
        operations=inspection.operations,
        flops=flops_of(inspection),
    )


def _milliseconds(timed: Sequence[Timed], reading: Sequence[ReadingTimes]) -> dict[str, Quartiles | None]:
    """Times of the parts; those before the model are of the same rounds, and the same for all subjects."""
    parts: dict[str, Iterable[float]] = {name: [run.split[name] for run in timed] for name in _SPLIT}
    parts["generate"] = [run.generate for run in timed]
    for name in ("open", "decode", "preprocess", "to_device"):
        parts[name] = [getattr(times, name) for times in reading]
    pairs = list(zip(reading, timed, strict=True))
    parts["wait"] = [times.all + run.split["ttft"] for times, run in pairs]
    parts["wait_open"] = [times.opened + run.split["ttft"] for times, run in pairs]
    return {name: Quartiles.of(values) for name, values in parts.items()}


def tokens_of(call: CallTrace) -> Tokens:
    """The tokens of a call with one clip, at each stage."""
    (clip,) = call.videos
    return Tokens(
        uncompressed=clip.grid.tokens,
        visual=clip.tokens,
        prefill=call.prefill_tokens,
        average_per_layer=call.average_visual_tokens,
        temporal_grids=clip.grid.temporal_grids,
        grids_after={merge.layer: merge.grids_after for merge in clip.merges},
        tokens_after={merge.layer: merge.tokens_after for merge in clip.token_merges},
        cells_after={} if clip.cells is None else {clip.cells.layer: clip.cells.cells_after},
        inside={step.layer: sum(step.tokens_after) for step in call.language},
    )


def flops_of(inspection: Inspection) -> Flops | None:
    """The floating-point operations up to the first token; ``None`` where kernels of others hid some."""
    if any(work.uncounted for work in inspection.work.values()):
        return None
    flops = {stage: work.flops for stage, work in inspection.work.items() if stage != "decoding"}
    apart = ("encoder", "projection", "prefill")
    return Flops(
        encoder=flops.get("encoder", 0),
        projection=flops.get("projection", 0),
        decisions=sum(count for stage, count in flops.items() if stage not in apart),
        prefill=flops.get("prefill", 0),
    )


def with_paper_flops(results: Sequence[Result], model: str, layers: int) -> list[Result]:
    """The results with the paper's accounting beside what was counted, where the paper has a table for the model.

    Args:
        results: the plain model's among them, which tells what share of the encoder's work the others do.
        model: its name in the paper's tables.
        layers: of its language model.
    """
    plain = [result for result in reversed(results) if result.is_reference]
    encoders = {result.asked: result.flops.encoder for result in plain if result.flops is not None}
    return [_with_paper(result, model, layers, encoders.get(result.asked)) for result in results]


def _with_paper(result: Result, model: str, layers: int, whole: int | None) -> Result:
    if result.flops is None or not whole:
        return result
    tokens = tokens_per_layer(result.tokens.visual, layers, result.tokens.inside)
    counted = paper_flops(
        model,
        tokens,
        frames=result.tokens.temporal_grids,  # a grid is a frame in the families whose table goes by frames
        uncompressed=result.tokens.uncompressed,
        encoder_share=result.flops.encoder / whole,
    )
    return replace(result, flops=replace(result.flops, paper=None if counted is None else counted.to_dict()))
