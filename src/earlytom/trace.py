"""What compression did: temporal grids, tokens, decisions and times, for people, tests and pictures."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from earlytom.errors import EarlyTomError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from earlytom.reduction import Reduction
    from earlytom.types import FrameGrid

__all__ = ["CallTrace", "LanguageReduction", "MergeRecord", "Stopwatch", "TokenMergeRecord", "Trace", "VideoTrace"]


@dataclass(frozen=True, kw_only=True)
class MergeRecord:
    """One merge layer.

    Attributes:
        layer: the 0-based encoder layer after which temporal grids merged.
        grids_before: temporal grids that came to the layer.
        grids_after: temporal grids that were left behind it.
        details: what the method says about it (segments, threshold).
    """

    layer: int
    grids_before: int
    grids_after: int
    details: Mapping[str, object] = field(default_factory=dict)

    @property
    def frames_before(self) -> int:
        """`grids_before`, under its former name."""
        return self.grids_before

    @property
    def frames_after(self) -> int:
        """`grids_after`, under its former name."""
        return self.grids_after


@dataclass(frozen=True, kw_only=True)
class TokenMergeRecord:
    """One encoder layer in which tokens merged: tokens of each temporal grid before and after."""

    layer: int
    tokens_before: int
    tokens_after: int


# eq=False, here as everywhere: a generated __eq__ would ask tensors for one truth value.
@dataclass(kw_only=True, eq=False)
class VideoTrace:
    """What happened to one clip.

    What the vision encoder takes as one is a temporal grid: one sampled frame, or a pair of them in the Qwen families.
    A trace counts in temporal grids; sampled frames are called so.

    Attributes:
        grid: the uncompressed clip.
        budget: visual tokens that were promised to the language model.
        stepped_aside: why the clip was left alone, or ``None``.
        merges: the merge layers, in order.
        token_merges: the encoder layers in which tokens merged inside their temporal grid, in order.
        origin: from the B input grids to the N that are left.
        selection: from the N * P pooled tokens to the kept ones; ``None`` when all were kept.
        attention: [N, P] attention received, pooled, as selection saw it; ``None`` when it was not needed.
        details: what the method says about selection (refined segments, dynamic grids, tokens of each grid).
        source: where the frames came from: file, decoder, frame indices (filled in by `earlytom.VideoQA`).
    """

    grid: FrameGrid
    budget: int
    stepped_aside: str | None
    origin: Reduction
    merges: list[MergeRecord] = field(default_factory=list)
    token_merges: list[TokenMergeRecord] = field(default_factory=list)
    selection: Reduction | None = None
    attention: Tensor | None = None
    details: Mapping[str, object] = field(default_factory=dict)
    source: Mapping[str, object] = field(default_factory=dict)

    @property
    def temporal_grids_left(self) -> int:
        """N, the temporal grids that came out of the encoder."""
        return self.origin.outputs

    @property
    def frames_left(self) -> int:
        """The same as `temporal_grids_left`, under its former name."""
        return self.temporal_grids_left

    @property
    def sampled_frames(self) -> int | None:
        """How many frames were sampled; ``None`` where ``source`` does not tell."""
        indices = self.source.get("frame_indices")
        return len(indices) if isinstance(indices, Sized) else None

    @property
    def tokens(self) -> int:
        """Visual tokens that went into the language model (newline embeddings not counted)."""
        merged = self.temporal_grids_left * self.grid.tokens_per_frame
        return merged if self.selection is None else self.selection.outputs

    def kept_tokens(self) -> list[tuple[int, int]]:
        """(temporal grid among those left, token in raster order) of every kept token."""
        per_frame = self.grid.tokens_per_frame
        indices = range(self.tokens) if self.selection is None else self.selection.survivors().tolist()
        return [divmod(index, per_frame) for index in indices]

    def sources(self) -> list[list[int]]:
        """For each temporal grid that is left the input grids it was made of."""
        return [[source for source, _ in row] for row in self.origin.to_rows()]

    def frames_of_grids(self, frames: int) -> list[list[int]]:
        """The sampled frames, from 0, that the encoder took as each input grid.

        Args:
            frames: how many were sampled.

        Returns:
            Equally many for each grid. Where there were too few for the last one its processor repeated the last
            frame, and so does this.

        Raises:
            EarlyTomError: so many sampled frames do not make the grids of this clip.
        """
        grids, known = self.grid.temporal_grids, self.sampled_frames
        if known not in (None, frames):
            raise EarlyTomError(f"the trace is of {known} sampled frames, got {frames}")
        each = -(-frames // grids)
        if each < 1 or -(-frames // each) != grids:
            raise EarlyTomError(
                f"the trace is of {grids} temporal grids, got {frames} sampled frames, which do not make so many"
            )
        return [[min(frame, frames - 1) for frame in range(each * grid, each * (grid + 1))] for grid in range(grids)]

    def sampled_sources(self, frames: int) -> list[list[int]]:
        """For each temporal grid that is left the sampled frames, from 0, that it was made of, ascending.

        Args:
            frames: how many were sampled.

        Raises:
            EarlyTomError: so many sampled frames do not make the grids of this clip.
        """
        shown = self.frames_of_grids(frames)
        return [sorted({frame for grid in grids for frame in shown[grid]}) for grids in self.sources()]


@dataclass(frozen=True, kw_only=True)
class LanguageReduction:
    """Visual tokens of each sample before and after a reduction inside the language model."""

    layer: int
    tokens_before: tuple[int, ...]
    tokens_after: tuple[int, ...]


class Stopwatch:
    """Times of stages.

    On one CUDA device events are recorded always and read only when asked for. Events of several devices cannot be
    compared: there every border of a stage waits until all of them are done, and the host's clock is read. So it is on
    a CPU, without waiting.

    Args:
        devices: on which the model computes.
    """

    def __init__(self, *devices: torch.device) -> None:
        self._cuda = tuple(dict.fromkeys(device for device in devices if device.type == "cuda"))
        self._events = len(self._cuda) == 1
        self._open: dict[str, Any] = {}
        self._inside: list[str] = []
        self._spans: list[tuple[str, Any, Any]] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what runs inside."""
        start = self._now()
        self._inside.append(name)
        try:
            yield
        finally:
            self._inside.pop()
            self._spans.append((name, start, self._now()))

    def start(self, name: str) -> None:
        """Begin a stage that ends elsewhere."""
        self._open[name] = self._now()

    def stop(self, name: str) -> None:
        """End a stage that `start` began; nothing happens when it has ended already."""
        if name in self._open:
            self._spans.append((name, self._open.pop(name), self._now()))

    def seen(self, name: str) -> bool:
        """Whether a stage has been timed."""
        return any(span[0] == name for span in self._spans)

    @property
    def running(self) -> str | None:
        """The stage that is being timed, the innermost one; else what `start` began last; ``None`` where nothing is."""
        return next(reversed(self._inside or self._open), None)

    def _now(self) -> Any:
        if not self._events:
            self._wait()
            return time.perf_counter()
        import torch

        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._cuda[0]))
        return event

    def _wait(self) -> None:
        """Until all devices have done what was queued."""
        if not self._cuda:
            return
        import torch

        for device in self._cuda:
            torch.cuda.synchronize(device)

    def milliseconds(self) -> dict[str, float]:
        """Milliseconds of each stage, summed over its spans; waits for the device on CUDA."""
        self._wait()
        totals: dict[str, float] = {}
        for name, start, end in self._spans:
            spent = start.elapsed_time(end) if self._events else (end - start) * 1000
            totals[name] = totals.get(name, 0.0) + spent
        return totals


@dataclass(kw_only=True)
class CallTrace:
    """One call of ``generate`` or ``forward``: its clips, and where its time went.

    Attributes:
        videos: the clips, in order; empty for a prompt without video.
        language: reductions inside the language model.
        prompt_tokens: length of the prompt as the user wrote it.
        prefill_tokens: length of what was prefilled.
        visual_tokens: visual tokens of each sample that entered the language model, newline embeddings counted.
        decoder_layers: layers of the language model.
        outside: milliseconds that were spent before the call (``decoding``, ``preprocessing``), where known.
    """

    videos: list[VideoTrace] = field(default_factory=list)
    language: list[LanguageReduction] = field(default_factory=list)
    prompt_tokens: int = 0
    prefill_tokens: int = 0
    visual_tokens: tuple[int, ...] = ()
    decoder_layers: int = 0
    outside: dict[str, float] = field(default_factory=dict)
    stopwatch: Stopwatch | None = field(default=None, repr=False)

    @property
    def clock(self) -> Stopwatch:
        """The stopwatch of a call that is being timed. Raises `LookupError` where there is none."""
        if self.stopwatch is None:
            raise LookupError("this call has not been timed")
        return self.stopwatch

    @property
    def average_visual_tokens(self) -> float:
        """Visual tokens that a layer of the language model works on at prefill: mean over its layers, all samples.

        What methods that act inside the language model are to be compared by; newline embeddings are counted.
        """
        total, tokens, start = 0, sum(self.visual_tokens), 0
        for step in self.language:
            total += tokens * (step.layer - start)
            tokens, start = sum(step.tokens_after), step.layer
        total += tokens * (self.decoder_layers - start)
        return total / max(1, self.decoder_layers)

    @property
    def layer_share(self) -> float:
        """The share of the visual tokens entering the language model that a layer works on: mean over its layers."""
        return self.average_visual_tokens / max(1, sum(self.visual_tokens))

    @cached_property
    def milliseconds(self) -> dict[str, float]:
        """Milliseconds per stage, in detail.

        ``encoder`` (with what follows inside it), of that ``attention`` (the scores) and ``merging``; then
        ``projection``, ``selection``, ``assembly``, ``prefill``; ``ttft`` is all of it.
        """
        return {} if self.stopwatch is None else self.stopwatch.milliseconds()

    def split(self) -> dict[str, float]:
        """Milliseconds as the paper splits them; the first four add up to ``ttft``.

        ``vision_encoding`` (the encoder's own layers), ``token_processing`` (scores, merging, projector, pooling,
        selection, assembly), ``prefill`` of the language model, ``overhead`` (the rest up to the first token),
        ``ttft``, and ``decoding`` and ``preprocessing`` of the video, which come before, where known.
        """
        spent = self.milliseconds
        if "ttft" not in spent:
            return dict(self.outside)
        inside = spent.get("attention", 0.0) + spent.get("merging", 0.0)
        parts = {
            "vision_encoding": spent.get("encoder", 0.0) - inside,
            "token_processing": inside + sum(spent.get(name, 0.0) for name in ("projection", "selection", "assembly")),
            "prefill": spent.get("prefill", 0.0),
        }
        overhead = spent["ttft"] - sum(parts.values())
        return parts | {"overhead": overhead, "ttft": spent["ttft"]} | self.outside


# A service that keeps a block open for long must not keep every call's tensors.
_CALLS_KEPT = 64


@dataclass
class Trace:
    """What happened inside one `earlytom.compress` block: its newest 64 calls."""

    method: str = ""
    calls: deque[CallTrace] = field(default_factory=lambda: deque(maxlen=_CALLS_KEPT), repr=False)

    @property
    def last(self) -> CallTrace:
        """The newest call.

        Raises:
            LookupError: no call has succeeded yet.
        """
        if not self.calls:
            raise LookupError("the trace is empty: no call of the model has succeeded inside this compress block yet")
        return self.calls[-1]

    @property
    def videos(self) -> list[VideoTrace]:
        """The clips of the newest call."""
        return self.last.videos

    def to_dict(self) -> dict[str, object]:
        """The newest call as plain data, for JSON."""
        call = self.last
        return {
            "method": self.method,
            "prompt_tokens": call.prompt_tokens,
            "prefill_tokens": call.prefill_tokens,
            "average_visual_tokens": round(call.average_visual_tokens, 3),
            "split_milliseconds": {name: round(value, 3) for name, value in call.split().items()},
            "milliseconds": {name: round(value, 3) for name, value in call.milliseconds.items()},
            "videos": [_video_to_dict(video) for video in call.videos],
            "language": [
                {"layer": step.layer, "tokens_before": step.tokens_before, "tokens_after": step.tokens_after}
                for step in call.language
            ],
        }


def _video_to_dict(video: VideoTrace) -> dict[str, object]:
    return {
        "sampled_frames": video.sampled_frames,
        "temporal_grids": video.grid.temporal_grids,
        "temporal_grids_left": video.temporal_grids_left,
        # Grids too, here and below, under the names that they had before.
        "frames": video.grid.temporal_grids,
        "frames_left": video.temporal_grids_left,
        "tokens_uncompressed": video.grid.tokens,
        "tokens": video.tokens,
        "budget": video.budget,
        "stepped_aside": video.stepped_aside,
        "merges": [
            {
                "layer": merge.layer,
                "grids_before": merge.grids_before,
                "grids_after": merge.grids_after,
                "frames_before": merge.grids_before,
                "frames_after": merge.grids_after,
                **merge.details,
            }
            for merge in video.merges
        ],
        "token_merges": [
            {"layer": merge.layer, "tokens_before": merge.tokens_before, "tokens_after": merge.tokens_after}
            for merge in video.token_merges
        ],
        "selection": dict(video.details),
        "sources": video.sources(),
        "source": dict(video.source),
    }
