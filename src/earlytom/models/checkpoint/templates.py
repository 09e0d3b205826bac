"""Prompts by chat templates: programs that came with a checkpoint, which may run forever or fill the memory.

transformers renders them in Jinja's sandbox, which keeps them from files and from Python, not from loops inside loops,
``'x' * 10**10`` or powers of powers (some of it computed when a template is compiled). So they are rendered in a
process that can be killed: one for all, started when the first template is met that is not known, and kept.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Any, cast

from earlytom.errors import ModelError

__all__ = ["start_renderer", "write_prompt"]

# SHA-256 of the templates that come with this package, which need not be guarded.
_KNOWN = frozenset(
    {
        "87862ac4d814da0e0a0b41b1b7360896def9a244798792521ac59b2e0cbf293f",  # the test models, LLaVA-OneVision's kind
        "25777165b9e33e8772a614b07f8b4b9735960950b1baf8616c7acd6139b54320",  # and Qwen2.5-VL's
        "18c051b0dcb782ac0ae9a247505d87c8fa6afe4c32965fa80edda6bd9800ee9d",  # LLaVA-Video, converted
    }
)
_SECONDS = 10.0
# Starting takes half a second; on a busy machine, more.
_STARTING = 60.0
_MEMORY = 512 << 20
_LONGEST = 1 << 24
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from earlytom.models.checkpoint.rendering import serve; serve(int(sys.argv[2]), int(sys.argv[3]))"
)


def write_prompt(processor: Any, conversation: Sequence[dict[str, Any]]) -> str:
    """What a processor's chat template makes of a conversation, up to where the answer begins.

    Args:
        processor: of a model. One with an ``apply_chat_template`` of its own is asked itself.
        conversation: messages, plain data.

    Raises:
        ModelError: the template takes too long, or too much memory, or writes too much.
        Exception: under the name that it had where it was raised: the template fails.
    """
    from transformers import ProcessorMixin

    template = getattr(processor, "chat_template", None)
    if isinstance(template, dict):
        template = template.get("default")
    own = getattr(type(processor), "apply_chat_template", None) is not ProcessorMixin.apply_chat_template
    if own or not isinstance(template, str) or _is_known(template):
        return _unguarded(processor, conversation)
    variables = dict(processor.tokenizer.special_tokens_map)
    # As transformers hands them to a template: plain data, and a word for what is none.
    request = json.dumps(
        {"template": template, "conversation": conversation, "variables": variables},
        default=lambda value: f"<{type(value).__name__}>",
    )
    answer = _RENDERER.ask(request)
    if answer is None:
        return _unguarded(processor, conversation)
    if "refused" in answer:
        raise ModelError(f"the chat template (chat_template.jinja) {answer['refused']}")
    if "error" in answer:
        raise type(answer["kind"], (Exception,), {})(answer["error"])
    return answer["prompt"]


def _unguarded(processor: Any, conversation: Sequence[dict[str, Any]]) -> str:
    prompt: str = processor.apply_chat_template(conversation, add_generation_prompt=True)
    return prompt


def start_renderer(template: str) -> None:
    """Start what renders, without waiting for it, if a template will need it."""
    if not _is_known(template):
        _RENDERER.start()


def _is_known(template: str) -> bool:
    return hashlib.sha256(template.encode(errors="replace")).hexdigest() in _KNOWN


class _Renderer:
    """The process, and whose turn it is to ask it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._ready = False
        # Of Python inside another program, or packed into one, nothing says how to start another one.
        self._possible = bool(sys.executable) and not getattr(sys, "frozen", False)

    def start(self) -> None:
        """Start it, unless it runs."""
        with self._lock:
            self._start()

    def ask(self, request: str) -> dict[str, str] | None:
        """Its answer to one request; ``None`` where there can be no such process, with a warning once."""
        with self._lock:
            process = self._start()
            if process is None or not (self._ready or self._reply(process, None, _STARTING)):
                if self._possible:
                    warnings.warn("no process can be started for chat templates: they have no limits", stacklevel=3)
                self._possible = False
                return None
            self._ready = True
            started = time.monotonic()
            line = self._reply(process, request, _SECONDS)
            if line:
                answer: dict[str, str] = json.loads(line)
                return answer
            late = time.monotonic() - started >= _SECONDS
            return {"refused": f"takes longer than {_SECONDS:g} s" if late else "ends the process that renders it"}

    def _reply(self, process: subprocess.Popen[str], request: str | None, seconds: float) -> str:
        """A line from the process in time, or nothing: then it is ended."""
        timer = threading.Timer(seconds, process.kill)
        timer.daemon = True
        timer.start()
        line = ""
        try:
            if request is not None:
                _stream(process.stdin).write(request + "\n")
                _stream(process.stdin).flush()
            line = _stream(process.stdout).readline()
        except BrokenPipeError:
            pass  # it has ended, which is told by the caller
        finally:
            timer.cancel()
            if not line.endswith("\n"):  # an interrupt of the caller too: no answer may be taken for the next one's
                line = ""
                self.stop()
        return line

    def stop(self) -> None:
        """End it."""
        process, self._process, self._ready = self._process, None, False
        if process is None:
            return
        process.kill()
        for stream in (process.stdin, process.stdout):
            with suppress(BrokenPipeError):
                _stream(stream).close()
        process.wait()

    def forget(self) -> None:
        """In a fork: the process is the parent's to ask, and the lock may be held by a thread that is not here."""
        self.__init__()  # type: ignore[misc]

    def _start(self) -> subprocess.Popen[str] | None:
        if not self._possible:
            return None
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.stop()
        arguments = [json.dumps(sys.path), str(_MEMORY), str(_LONGEST)]
        try:
            self._process = subprocess.Popen(
                # Safe path: nothing is imported from the folder that somebody happens to be in.
                [sys.executable, "-P", "-c", _PROGRAM, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="ascii",
                start_new_session=True,  # the terminal's interrupts are for this process alone
            )
        except OSError:
            return None  # told when it is asked
        return self._process


def _stream(stream: IO[str] | None) -> IO[str]:
    """A pipe of a process that was started with pipes, which mypy cannot know."""
    return cast("IO[str]", stream)


_RENDERER = _Renderer()
atexit.register(_RENDERER.stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_RENDERER.forget)
