"""From a video file and a question to an answer: decoding, processor, compressed generation, and honest times."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from torch import nn

from earlytom.errors import CompressionError, shown
from earlytom.methods import make_method
from earlytom.models import open_model
from earlytom.runtime.answer import Answer, describe_source, frames_left
from earlytom.runtime.asking import (
    check_no_placeholder,
    check_questions,
    conversation_prompt,
    generation_options,
    new_tokens,
)
from earlytom.runtime.compression import compress
from earlytom.runtime.devices import computing_devices, synchronize
from earlytom.runtime.loading import load_model
from earlytom.runtime.preprocessing import preprocess, to_model
from earlytom.runtime.shared_clip import share_clip
from earlytom.runtime.streaming import Cancellation, Watch, streamed
from earlytom.runtime.token_budget import Fitted, check_kept_to, check_max_tokens, fit
from earlytom.runtime.turns import turns_of
from earlytom.video import Limits, Sampling, Video, read_video

if TYPE_CHECKING:
    import torch

    from earlytom.methods.base import Method
    from earlytom.runtime.sessions import VideoSession
    from earlytom.trace import Trace, VideoTrace
    from earlytom.video import Decoder, Source

__all__ = ["Answer", "VideoQA", "load"]

_DEFAULT_FRAMES = 32
_LIMITS = Limits()


def load(path: str | Path, **options: Any) -> VideoQA:
    """Load a checkpoint by local path or hub id, ready to answer: `VideoQA.load`, which says what the options are."""
    return VideoQA.load(path, **options)


class VideoQA:
    """A model and its processor, ready to answer questions about videos. Threads may share it; they take turns.

    Args:
        model: a supported stock model.
        processor: its processor.

    Raises:
        ModelError: the model is not supported.
    """

    def __init__(self, model: nn.Module, processor: Any) -> None:
        self.model, self.processor = model, processor
        self._turns = turns_of(open_model(model).model)

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
        return cls(*load_model(path, device=device, dtype=dtype, attention=attention))

    @property
    def default_frames(self) -> int:
        """Frames to sample when nothing else is asked for: the processor's number, or 32 (the paper's)."""
        return getattr(self.processor.video_processor, "num_frames", None) or _DEFAULT_FRAMES

    def read(
        self,
        video: Source | Video,
        sampling: Sampling | None = None,
        decoder: Decoder = "pyav",
        *,
        limits: Limits = _LIMITS,
        damage_tolerance: float = 0.0,
    ) -> Video:
        """Read and sample a video.

        Args:
            video: path, bytes, file object, frames, images, or a `Video`, which passes through as it was read.
            sampling: which frames to look at; `default_frames` uniform ones if ``None``.
            decoder: ``"pyav"`` or ``"torchcodec"``.
            limits: how large pictures and clips may be.
            damage_tolerance: share of the video's frames, 0 to 1, that may be damaged (`read_video`).

        Raises:
            VideoError: the video cannot be read, or an argument is not allowed.
        """
        if isinstance(video, Video):
            return video
        return read_video(
            video,
            sampling or Sampling(frames=self.default_frames),
            decoder=decoder,
            limits=limits,
            damage_tolerance=damage_tolerance,
        )

    def prepare_inputs(self, video: Video, question: str, *, max_tokens: int | None = None) -> dict[str, Any]:
        """The processor's output for one question about one video, on the model's device, pixels in its dtype.

        ``max_tokens``: see `ask`.

        Raises:
            VideoError: the processor refuses the frames, such as a shape that it does not take.
            ModelError: the processor has no chat template, or one that fails.
            CompressionError: ``max_tokens`` is below what one temporal grid takes.
        """
        return to_model(self.host_inputs(video, question, max_tokens=max_tokens), self.model)

    def host_inputs(self, video: Video, question: str, *, max_tokens: int | None = None) -> Mapping[str, Any]:
        """The same as the processor makes it, still on the host. Raises like `prepare_inputs`."""
        return self._host_inputs(self._fit(video, question, max_tokens), question, max_tokens)

    def _fit(self, video: Video, question: str, max_tokens: int | None) -> Fitted:
        return fit(self.processor, self.model, lambda clip: self._prompt(question, clip), video, max_tokens)

    def _host_inputs(self, fitted: Fitted, question: str, max_tokens: int | None) -> Mapping[str, Any]:
        inputs = preprocess(self.processor, self._prompt(question, fitted.video), fitted.video, options=fitted.options)
        check_kept_to(self.model, inputs, max_tokens)
        return inputs

    def _prompt(self, question: str, video: Video) -> str:
        """What the chat template makes of one question about one video.

        A processor may offer ``instruction(video)``: text that its model expects before the question.
        """
        check_no_placeholder(self.processor, "question", question)
        instruction = getattr(self.processor, "instruction", None)
        question = question if instruction is None else instruction(video) + question
        conversation = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]
        return conversation_prompt(self.processor, conversation)

    def open(
        self,
        *videos: Source | Video,
        method: Method | str = "earlytom",
        sampling: Sampling | None = None,
        decoder: Decoder = "pyav",
        limits: Limits = _LIMITS,
        damage_tolerance: float = 0.0,
        max_tokens: int | None = None,
        system: str | None = None,
        max_history: int | None = None,
    ) -> VideoSession:
        """Open a conversation: the videos are read, encoded and prefilled here, each question prefills only itself.

        Args:
            videos: one or several, see `read`; the model sees them in this order.
            method: a compression method that acts before the language model, or its name and options as text.
            sampling, decoder, limits, damage_tolerance: how to read them, see `read`.
            max_tokens: of one video, see `ask`.
            system: the system prompt; ``None``: what the chat template has by itself.
            max_history: how many past questions, with their answers, stand before the next one; ``None``: all.

        Returns:
            The session, which ``with`` closes.

        Raises:
            VideoError: a video cannot be read.
            MethodError: the method is unknown, does not fit the model, or acts inside the language model.
            ModelError: the chat template fails, the language model forgets, or the model is inside an
                `earlytom.compress` block.
            CompressionError: no video is given, an argument is not allowed, the chat template writes what cannot be
                kept, or the context is too small.
        """
        from earlytom.runtime.sessions.opening import check_opening, open_session

        method = make_method(method)
        limited: dict[str, Any] = {"system": system, "max_history": max_history, "max_tokens": max_tokens}
        check_opening(self.model, self.processor, len(videos), method, **limited)
        started = time.perf_counter()
        frames = [
            self.read(video, sampling, decoder, limits=limits, damage_tolerance=damage_tolerance) for video in videos
        ]
        seconds = time.perf_counter() - started
        return open_session(self.model, self.processor, frames, method, **limited, seconds=seconds)

    def load_session(self, path: str | Path) -> VideoSession:
        """Go on with a conversation that `VideoSession.save` wrote. The file may come from anybody: it is only data.

        Raises:
            CompressionError: the file cannot be read, is damaged, or was written with another model or other weights.
        """
        from earlytom.runtime.sessions.files import read_session

        return read_session(Path(path), self.model, self.processor)

    def ask(
        self,
        video: Source | Video,
        question: str,
        *,
        method: Method | str = "earlytom",
        sampling: Sampling | None = None,
        decoder: Decoder = "pyav",
        limits: Limits = _LIMITS,
        damage_tolerance: float = 0.0,
        max_tokens: int | None = None,
        on_text: Callable[[str], None] | None = None,
        cancelled: Cancellation | None = None,
        max_new_tokens: int = 64,
        **generation: Any,
    ) -> Answer:
        """Answer a question about a video.

        Args:
            video: path, bytes, file object, frames, images, or a `Video`.
            question: the question.
            method: a compression method, or its name and options as text; ``"none"`` for the plain model.
            sampling, decoder, limits, damage_tolerance: how to read it, see `read`.
            max_tokens: most visual tokens that the clip may have before it is compressed: pictures become smaller (the
                Qwen families), or frames fewer (the others); ``None``: as many as it has.
            on_text: called with pieces of the answer as they come (not with beams).
            cancelled: set it from another thread to stop after the next token.
            max_new_tokens: most tokens to generate.
            **generation: further options of ``generate``; greedy unless ``do_sample`` is set.

        Raises:
            VideoError: the video cannot be read.
            MethodError: the method is unknown or does not fit the model.
            CompressionError: the question is empty, ``max_tokens`` is below what one temporal grid takes, or
                compression could not run as promised.
        """
        watch = Watch(cancelled)
        options = generation_options(self.processor, generation | {"max_new_tokens": max_new_tokens}, watch, on_text)
        read = partial(self.read, video, sampling, decoder, limits=limits, damage_tolerance=damage_tolerance)
        (answer,) = self._answer(read, [question], method, max_tokens, watch, options)
        return answer

    def ask_all(
        self,
        video: Source | Video,
        questions: Sequence[str],
        *,
        method: Method | str = "earlytom",
        sampling: Sampling | None = None,
        decoder: Decoder = "pyav",
        limits: Limits = _LIMITS,
        damage_tolerance: float = 0.0,
        max_tokens: int | None = None,
        cancelled: Cancellation | None = None,
        max_new_tokens: int = 64,
        **generation: Any,
    ) -> list[Answer]:
        """Answer several questions about one video in one batch; the video is read and encoded once.

        Args:
            video: path, bytes, file object, frames, images, or a `Video`.
            questions: the questions.
            method: a compression method, or its name and options as text; ``"none"`` for the plain model.
            sampling, decoder, limits, damage_tolerance: how to read it, see `read`.
            max_tokens: see `ask`.
            cancelled: set it from another thread to stop all answers after the next token.
            max_new_tokens: most tokens to generate for each question.
            **generation: further options of ``generate``; greedy unless ``do_sample`` is set.

        Returns:
            One answer a question, in their order. They share the trace; ``ttft``, ``generation`` and ``prefill_tokens``
            are those of the whole batch.

        Raises:
            VideoError: the video cannot be read.
            MethodError: the method is unknown or does not fit the model.
            CompressionError: a question is empty, ``max_tokens`` is below what one temporal grid takes, or compression
                could not run as promised.
        """
        if isinstance(questions, str):
            raise CompressionError(f"questions must be a list of texts, got one text: {shown(questions)}")
        if "on_text" in generation:
            raise CompressionError("several answers grow side by side and have no one text: ask one question to stream")
        if not questions:
            return []
        watch = Watch(cancelled)
        options = generation_options(self.processor, generation | {"max_new_tokens": max_new_tokens}, watch, None)
        read = partial(self.read, video, sampling, decoder, limits=limits, damage_tolerance=damage_tolerance)
        return self._answer(read, questions, method, max_tokens, watch, options)

    def _answer(
        self,
        read: Callable[[], Video],
        questions: Sequence[str],
        method: Method | str,
        max_tokens: int | None,
        watch: Watch,
        options: dict[str, Any],
    ) -> list[Answer]:
        """Answer one question, or several in a batch."""
        check_questions(self.processor, questions)
        check_max_tokens(max_tokens)
        method = make_method(method)
        started = time.perf_counter()
        taken = read()
        decoded = time.perf_counter()
        frames, inputs = self._shared_inputs(taken, questions, max_tokens)
        devices = computing_devices(self.model)
        synchronize(devices)
        preprocessed = time.perf_counter()
        with self._turns.take(), compress(self.model, method) as trace:
            ready = time.perf_counter()
            output = self.model.generate(**inputs, **options)  # type: ignore[operator]
            synchronize(devices)
            finished = time.perf_counter()
        for clip in trace.videos:
            clip.source = describe_source(frames)
        trace.last.outside.update(decoding=(decoded - started) * 1000, preprocessing=(preprocessed - decoded) * 1000)
        seconds = {
            "ttft": (watch.time or finished) - ready,
            "generation": finished - ready,
            "decoding": decoded - started,
            "preprocessing": preprocessed - decoded,
        }
        written = zip(new_tokens(self.model, output, inputs["input_ids"], options), trace.videos, strict=True)
        return [self._costed(new, frames, clip, trace, seconds) for new, clip in written]

    def _shared_inputs(
        self, video: Video, questions: Sequence[str], max_tokens: int | None
    ) -> tuple[Video, dict[str, Any]]:
        """The frames that fit, and one prompt a question about them, on the model's device."""
        fitted = self._fit(video, questions[0], max_tokens)
        inputs = to_model(self._host_inputs(fitted, questions[0], max_tokens), self.model)
        if len(questions) > 1:
            prompts = [self._prompt(question, fitted.video) for question in questions]
            inputs = share_clip(self.processor, inputs, prompts)
        return fitted.video, inputs

    def _costed(
        self, new: Sequence[int], frames: Video, clip: VideoTrace, trace: Trace, seconds: Mapping[str, float]
    ) -> Answer:
        """New tokens of one prompt as an answer, with what it cost; ``seconds`` by the answer's fields."""
        return Answer(
            text=self.processor.tokenizer.decode(new, skip_special_tokens=True).strip(),
            new_tokens=len(new),
            visual_tokens=clip.tokens,
            visual_tokens_uncompressed=clip.grid.tokens,
            prefill_tokens=trace.last.prefill_tokens,
            frames=len(frames.frames),
            frames_left=frames_left(len(frames.frames), clip),
            temporal_grids=clip.grid.frames,
            temporal_grids_left=clip.frames_left,
            trace=trace,
            **seconds,
        )

    def stream(
        self,
        video: Source | Video,
        question: str,
        *,
        on_text: Callable[[str], None] | None = None,
        cancelled: Cancellation | None = None,
        **options: Any,
    ) -> Iterator[str]:
        """Like `ask`, but yields the answer piece by piece; errors are raised in the caller's thread.

        Closing the iterator early stops the generation after its next token. So does ``cancelled``, behind which the
        iterator ends with what there is. ``on_text`` gets the same pieces, in the thread that generates.
        """
        return streamed(partial(self.ask, video, question, **options), on_text, cancelled)
