"""What a benchmark found, as plain data: the schema is told in docs/benchmark.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from earlytom.bench.quartiles import Quartiles

__all__ = ["PARTS_OF_MEMORY", "SCHEMA", "TIMES", "BenchResults", "Flops", "Result", "Tokens"]

SCHEMA = "earlytom.bench/1"
TIMES = (
    "ttft", "vision_encoding", "token_processing", "prefill", "overhead", "generate", "open", "decode", "preprocess",
    "to_device", "wait", "wait_open",
)  # fmt: skip
"""What is told in milliseconds."""
PARTS_OF_MEMORY = ("vision_encoding", "token_processing", "prefill", "decoding")


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Tokens at each stage.

    Attributes:
        uncompressed: visual tokens without compression, newlines not counted.
        visual: visual tokens that entered the language model.
        prefill: the whole prompt's, text and newlines included.
        average_per_layer: visual tokens that a layer of the language model worked on, mean over its layers.
        temporal_grids: what entered the vision encoder.
        grids_after: temporal grids that were left behind each layer of it where some merged.
        tokens_after: tokens of a grid that were left behind each layer of it where some merged.
        cells_after: cells of a grid that went on alone, behind the layer of it where the others left.
        inside: visual tokens that were left before each layer of the language model where some left.
    """

    uncompressed: int
    visual: int
    prefill: int
    average_per_layer: float
    temporal_grids: int
    grids_after: Mapping[int, int] = field(default_factory=dict)
    tokens_after: Mapping[int, int] = field(default_factory=dict)
    cells_after: Mapping[int, int] = field(default_factory=dict)
    inside: Mapping[int, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As plain data; layers become texts, as JSON has them."""
        layers = ("grids_after", "tokens_after", "cells_after", "inside")
        plain = {name: value for name, value in vars(self).items() if name not in layers}
        plain["average_per_layer"] = round(self.average_per_layer, 3)
        return plain | {name: {str(layer): left for layer, left in vars(self)[name].items()} for name in layers}


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Floating-point operations up to the first token, two for each multiply-add, counted on what really ran.

    Attributes:
        encoder: the vision encoder.
        projection: projector and pooling.
        decisions: scores, similarities, merging, selection, and what else is outside the others.
        prefill: the language model, methods that act inside it included.
        paper: the same call by the paper's own accounting, where that is known.
    """

    encoder: int
    projection: int
    decisions: int
    prefill: int
    paper: Mapping[str, Any] | None = None

    @property
    def total(self) -> int:
        """All that was counted."""
        return self.encoder + self.projection + self.decisions + self.prefill

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {**vars(self), "total": self.total, "paper": None if self.paper is None else dict(self.paper)}


@dataclass(frozen=True, kw_only=True)
class Result:
    """What was found of one subject.

    Attributes:
        name: one among those of as many frames.
        method: with all its options, in the grammar of `earlytom.methods.parse_method`.
        label: the method without how much it keeps.
        retention: the share of visual tokens that it keeps, where it goes by that.
        attention: transformers' attention implementation.
        frames: sampled frames that the model took.
        frames_asked: frames that were asked for, of which a short clip or a budget of tokens may leave fewer; ``None``:
            as many.
        milliseconds: by the names of `TIMES`.
        tokens_per_second: new tokens a second behind the first; ``None`` with a single one.
        throughput: new tokens a second of the whole ``generate``, as the paper has it.
        peak_bytes: by part (`PARTS_OF_MEMORY`, and ``all``), above what was in use before the call.
        tokens: at each stage.
        waits: of the host for the device up to the first token.
        operations: tensor operations up to the first token.
        flops: up to the first token; ``None`` where some were not seen.
    """

    name: str
    method: str
    label: str
    retention: float | None
    attention: str
    frames: int
    milliseconds: Mapping[str, Quartiles | None]
    tokens_per_second: Quartiles | None
    throughput: Quartiles | None
    peak_bytes: Mapping[str, int | None]
    tokens: Tokens
    waits: int | None
    operations: int | None
    flops: Flops | None
    frames_asked: int | None = None

    @property
    def asked(self) -> int:
        """Frames that were asked for, which results are told apart by."""
        return self.frames if self.frames_asked is None else self.frames_asked

    @property
    def is_reference(self) -> bool:
        """Whether it is the plain model."""
        return self.label == "none"

    @property
    def ttft(self) -> float:
        """Median time to first token, milliseconds."""
        return self.median("ttft") or 0.0

    def median(self, name: str) -> float | None:
        """The median of one of `TIMES`, milliseconds; ``None`` where it was not measured."""
        found = self.milliseconds.get(name)
        return None if found is None else found.median

    def to_dict(self) -> dict[str, Any]:
        """As plain data; what was not measured is ``None``."""
        return {
            "name": self.name,
            "method": self.method,
            "label": self.label,
            "retention": self.retention,
            "attention": self.attention,
            "frames": self.frames,
            "frames_asked": self.asked,
            "milliseconds": {name: _plain(self.milliseconds.get(name)) for name in TIMES},
            "tokens_per_second": _plain(self.tokens_per_second),
            "throughput": _plain(self.throughput),
            "peak_bytes": {name: self.peak_bytes.get(name) for name in (*PARTS_OF_MEMORY, "all")},
            "tokens": self.tokens.to_dict(),
            "device": {"waits": self.waits, "operations": self.operations},
            "flops": None if self.flops is None else self.flops.to_dict(),
        }


@dataclass(frozen=True, kw_only=True)
class BenchResults:
    """A whole run.

    Attributes:
        environment: see `earlytom.bench.environment.describe_environment`.
        settings: what was asked for.
        model: what was measured on.
        clip: what it looked at.
        results: of every subject, in their order.
        left_out: subjects that could not be measured, with the reason.
    """

    environment: Mapping[str, Any]
    settings: Mapping[str, Any]
    model: Mapping[str, Any]
    clip: Mapping[str, Any]
    results: Sequence[Result]
    left_out: Sequence[Mapping[str, Any]] = ()

    def reference(self, frames: int) -> Result | None:
        """The plain model, which speed-ups are over: with sdpa, or another attention where that could not run.

        Args:
            frames: that were asked for.
        """
        plain = [result for result in self.results if result.is_reference and result.asked == frames]
        return next((result for result in plain if result.attention == "sdpa"), plain[0] if plain else None)

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return {
            "schema": SCHEMA,
            "environment": dict(self.environment),
            "settings": dict(self.settings),
            "model": dict(self.model),
            "clip": dict(self.clip),
            "results": [result.to_dict() for result in self.results],
            "left_out": [dict(entry) for entry in self.left_out],
        }


def _plain(found: Quartiles | None) -> dict[str, object] | None:
    return None if found is None else found.to_dict()
