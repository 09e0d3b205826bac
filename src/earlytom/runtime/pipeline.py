"""From a video file and a question to an answer: decoding, processor, compressed generation, and honest times."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from earlytom.errors import CompressionError, ModelError
from earlytom.methods import make_method
from earlytom.models import find_adapter
from earlytom.runtime.compress import compress
from earlytom.video import Sampling, Video, read_video

if TYPE_CHECKING:
    from earlytom.methods.base import Method
    from earlytom.trace import Trace
    from earlytom.video import Decoder, Source

__all__ = ["Answer", "VideoQA"]

_DEFAULT_FRAMES = 32


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer, and what it cost.

    Attributes:
        text: the answer.
        new_tokens: number of generated tokens.
        visual_tokens: visual tokens that went into the language model, newline embeddings not counted.
        visual_tokens_uncompressed: what they would have been without compression.
        prefill_tokens: tokens of the prefill, text included.
        frames: frames that were sampled.
        frames_left: frames that came out of the vision encoder.
        ttft: seconds from calling ``generate`` with everything on the device to the first token on the host (vision
            encoder included; video decoding and preprocessing excluded).
        generation: seconds of the whole ``generate`` call.
        decoding: seconds to read the video; preprocessing: seconds in the processor.
        trace: everything else (`earlytom.Trace`).
    """

    text: str
    new_tokens: int
    visual_tokens: int
    visual_tokens_uncompressed: int
    prefill_tokens: int
    frames: int
    frames_left: int
    ttft: float
    generation: float
    decoding: float
    preprocessing: float
    trace: Trace

    def to_dict(self) -> dict[str, object]:
        """Everything as plain data, for JSON; times in seconds."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "trace"}
        return plain | {"trace": self.trace.to_dict()}


class _Watch:
    """A stopping criterion that notes when the first token reached the host, and stops when it is told to."""

    def __init__(self, cancelled: threading.Event | None) -> None:
        self.time: float | None = None
        self._cancelled = cancelled

    def __call__(self, ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        if self.time is None:
            ids[:, -1].cpu()  # waits for the token
            self.time = time.perf_counter()
        stop = self._cancelled is not None and self._cancelled.is_set()
        return torch.full((ids.shape[0],), stop, dtype=torch.bool, device=ids.device)


class VideoQA:
    """A model and its processor, ready to answer questions about videos. Threads may share it; they take turns.

    Args:
        model: a supported stock model.
        processor: its processor.

    Raises:
        ModelError: the model is not supported.
    """

    def __init__(self, model: nn.Module, processor: Any) -> None:
        find_adapter(model)
        self.model, self.processor = model, processor
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str = "auto",
        dtype: str | torch.dtype = "auto",
        attention: str | None = None,
    ) -> Self:
        """Load a checkpoint by local path or hub id.

        Args:
            path: a folder or a hub id.
            device: ``"auto"`` (CUDA when there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
            dtype: a torch dtype or its name; ``"auto"``: the checkpoint's on CUDA, float32 on CPU.
            attention: transformers' attention implementation (``"sdpa"``, ``"flash_attention_2"``, ``"eager"``);
                its default if ``None``.

        Raises:
            ModelError: the checkpoint cannot be loaded or is not supported, or the device or dtype is not available.
        """
        from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

        place, kind = _device(device), _dtype(dtype)
        if kind is None:
            kind = torch.float32 if place.type == "cpu" else "auto"
        try:
            config = AutoConfig.from_pretrained(path)
            model = AutoModelForImageTextToText.from_pretrained(
                path, config=config, dtype=kind, attn_implementation=attention
            )
            processor = AutoProcessor.from_pretrained(path)
        except (OSError, ValueError, ImportError) as error:
            raise ModelError(f"cannot load a model from {str(path)!r}: {_first_line(error)}") from error
        return cls(model.to(place).eval(), processor)

    @property
    def default_frames(self) -> int:
        """Frames to sample when nothing else is asked for: the processor's number, or 32 (the paper's)."""
        return getattr(self.processor.video_processor, "num_frames", None) or _DEFAULT_FRAMES

    def read(self, video: Source | Video, sampling: Sampling | None = None, decoder: Decoder = "pyav") -> Video:
        """Read and sample a video (a `Video` passes through). Raises `VideoError`."""
        if isinstance(video, Video):
            return video
        return read_video(video, sampling or Sampling(frames=self.default_frames), decoder=decoder)

    def prepare_inputs(self, video: Video, question: str) -> dict[str, Any]:
        """The processor's output for one question about one video, on the model's device, pixels in its dtype."""
        conversation = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]
        for name in ("video_token", "image_token"):
            token = getattr(self.processor, name, None)
            if token and token in question:
                raise CompressionError(f"the question holds the model's own placeholder {token!r}; leave it out")
        text = self.processor.apply_chat_template(conversation, add_generation_prompt=True)
        inputs = self.processor(text=[text], videos=[video.frames], do_sample_frames=False, return_tensors="pt")
        first = next(self.model.parameters())
        return {
            key: value.to(first.device, first.dtype if value.is_floating_point() else None)
            for key, value in inputs.items()
        }

    def ask(
        self,
        video: Source | Video,
        question: str,
        *,
        method: Method | str = "earlytom",
        sampling: Sampling | None = None,
        decoder: Decoder = "pyav",
        on_text: Callable[[str], None] | None = None,
        cancelled: threading.Event | None = None,
        max_new_tokens: int = 64,
        **generation: Any,
    ) -> Answer:
        """Answer a question about a video.

        Args:
            video: path, bytes, file object, frames, images, or a `Video`.
            question: the question.
            method: a compression method, or its name and options as text; ``"none"`` for the plain model.
            sampling: which frames to look at; `default_frames` uniform ones if ``None``.
            decoder: ``"pyav"`` or ``"torchcodec"``.
            on_text: called with pieces of the answer as they come (not with beams).
            cancelled: set it from another thread to stop after the next token.
            max_new_tokens: most tokens to generate.
            **generation: further options of ``generate``; greedy unless ``do_sample`` is set.

        Raises:
            VideoError: the video cannot be read.
            MethodError: the method is unknown or does not fit the model.
            CompressionError: the question is empty, or compression could not run as promised.
        """
        if not question.strip():
            raise CompressionError("the question is empty")
        method = make_method(method)
        started = time.perf_counter()
        frames = self.read(video, sampling, decoder)
        decoded = time.perf_counter()
        inputs = self.prepare_inputs(frames, question)
        self._synchronize()
        watch = _Watch(cancelled)
        options = self._options(generation, watch, on_text) | {"max_new_tokens": max_new_tokens}
        preprocessed = time.perf_counter()
        with self._lock, compress(self.model, method) as trace:
            ready = time.perf_counter()
            output = self.model.generate(**inputs, **options)  # type: ignore[operator]
            self._synchronize()
            finished = time.perf_counter()
        sequences = output if isinstance(output, torch.Tensor) else output.sequences
        new = sequences[0, inputs["input_ids"].shape[1] :]
        clip = trace.videos[0]
        clip.source = _describe_source(frames)
        trace.last.outside.update(decoding=(decoded - started) * 1000, preprocessing=(preprocessed - decoded) * 1000)
        return Answer(
            text=self.processor.tokenizer.decode(new, skip_special_tokens=True).strip(),
            new_tokens=len(new),
            visual_tokens=clip.tokens,
            visual_tokens_uncompressed=clip.grid.tokens,
            prefill_tokens=trace.last.prefill_tokens,
            frames=clip.grid.frames,
            frames_left=clip.frames_left,
            ttft=(watch.time or finished) - ready,
            generation=finished - ready,
            decoding=decoded - started,
            preprocessing=preprocessed - decoded,
            trace=trace,
        )

    def stream(self, video: Source | Video, question: str, **options: Any) -> Iterator[str]:
        """Like `ask`, but yields the answer piece by piece; errors are raised in the caller's thread.

        Closing the iterator early stops the generation after its next token.
        """
        pieces: Queue[str | None] = Queue()
        failure: list[BaseException] = []
        cancelled = threading.Event()

        def run() -> None:
            try:
                self.ask(video, question, on_text=pieces.put, cancelled=cancelled, **options)
            except BaseException as error:  # handed over to the caller below
                failure.append(error)
            finally:
                pieces.put(None)

        thread = threading.Thread(target=run, name="earlytom-stream", daemon=True)
        thread.start()
        try:
            yield from iter(pieces.get, None)
        finally:
            cancelled.set()
            thread.join()
        if failure:
            raise failure[0]

    def _options(
        self, generation: dict[str, Any], watch: _Watch, on_text: Callable[[str], None] | None
    ) -> dict[str, Any]:
        """The caller's options of ``generate``, with the watch and, where text is wanted, a streamer."""
        from transformers import StoppingCriteriaList, TextStreamer

        criteria = [*(generation.get("stopping_criteria") or []), watch]
        options = {"do_sample": False, **generation, "stopping_criteria": StoppingCriteriaList(criteria)}
        if on_text is None:
            return options
        if (generation.get("num_beams") or 1) > 1:
            raise CompressionError("text cannot be streamed from beam search; leave num_beams or on_text out")
        streamer = TextStreamer(self.processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
        streamer.on_finalized_text = lambda text, stream_end=False: on_text(text) if text else None
        return options | {"streamer": streamer}

    def _synchronize(self) -> None:
        device = next(self.model.parameters()).device
        if device.type == "cuda":
            torch.cuda.synchronize(device)


def _describe_source(video: Video) -> dict[str, object]:
    return {
        "source": video.source,
        "decoder": video.decoder,
        "frame_indices": list(video.indices),
        "source_frames": video.source_frames,
        "source_fps": video.source_fps,
    }


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise ModelError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelError(f"device {name!r} was asked for, but torch sees {torch.cuda.device_count()} CUDA device(s)")
    return device


def _dtype(dtype: str | torch.dtype) -> torch.dtype | str | None:
    if isinstance(dtype, torch.dtype):
        return dtype
    named = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "auto": None}
    if dtype not in named:
        raise ModelError(f"dtype must be one of {', '.join(named)}, got {dtype!r}")
    return named[dtype]


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
