"""One run of a subject: timed, or inspected."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from earlytom.bench.inspection import Inspection, inspect_call
from earlytom.errors import ModelError, shown, shown_cause
from earlytom.runtime.compression import compress
from earlytom.runtime.devices import computing_devices, input_device, synchronize
from earlytom.trace import CallTrace

if TYPE_CHECKING:
    from earlytom.bench.subjects import Subject

__all__ = ["Measurer", "Timed"]


@dataclass(frozen=True, kw_only=True)
class Timed:
    """One timed run.

    Attributes:
        split: milliseconds as `CallTrace.split` gives them.
        generate: milliseconds of the whole ``generate``.
        new_tokens: that it made.
    """

    split: Mapping[str, float]
    generate: float
    new_tokens: int

    @property
    def tokens_per_second(self) -> float | None:
        """New tokens a second behind the first; ``None`` where there is only that one."""
        seconds = (self.generate - self.split["ttft"]) / 1000
        return (self.new_tokens - 1) / seconds if self.new_tokens > 1 and seconds > 0 else None

    @property
    def throughput(self) -> float:
        """New tokens a second of the whole ``generate``."""
        return self.new_tokens / self.generate * 1000


class Measurer:
    """Runs subjects on one model.

    Args:
        model: a supported stock model.
        new_tokens: how many every run makes, whatever the model would rather do.

    Raises:
        ModelError: the model is not supported.
    """

    def __init__(self, model: nn.Module, new_tokens: int) -> None:
        self._model: Any = model
        self._new_tokens = new_tokens
        self._devices = computing_devices(model)

    def timed(self, subject: Subject, inputs: Mapping[str, Any]) -> tuple[Timed, CallTrace]:
        """Time one run.

        Args:
            subject: who runs.
            inputs: the processor's output, on the model's device.

        Raises:
            EarlyTomError: the subject cannot run on this model.
        """
        self._set_attention(subject.attention)
        gc.collect()
        synchronize(self._devices)
        start = time.perf_counter()
        call = self._run(subject, inputs, self._new_tokens)
        synchronize(self._devices)
        spent = (time.perf_counter() - start) * 1000
        return Timed(split=call.split(), generate=spent, new_tokens=self._new_tokens), call

    def inspected(self, subject: Subject, inputs: Mapping[str, Any]) -> Inspection:
        """Count what one run does; arguments and errors as of `timed`."""
        self._set_attention(subject.attention)
        gc.collect()
        return inspect_call(
            lambda: self._run(subject, inputs, self._new_tokens),
            lambda: self._run(subject, inputs, 1),
            input_device(self._model),
        )

    @contextmanager
    def attention_restored(self) -> Iterator[None]:
        """On leaving, the model has the attention implementation that it had."""
        before = self._model.config._attn_implementation
        try:
            yield
        finally:
            self._model.set_attn_implementation(before)

    def _run(self, subject: Subject, inputs: Mapping[str, Any], new_tokens: int) -> CallTrace:
        with compress(self._model, subject.method) as trace:
            self._model.generate(**inputs, do_sample=False, min_new_tokens=new_tokens, max_new_tokens=new_tokens)
        return trace.last

    def _set_attention(self, name: str) -> None:
        try:
            self._model.set_attn_implementation(name)
        except (ValueError, ImportError) as error:
            raise ModelError(f"attention {shown(name)} cannot be used: {shown_cause(error)}") from error
