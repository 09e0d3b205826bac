"""The loop of ``earlytom chat``: questions and commands in, answers and what they cost out."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from earlytom.cli.choices import build_method
from earlytom.cli.display import fail, note, status, timing
from earlytom.cli.session import describe_device, read_clip
from earlytom.errors import CompressionError, EarlyTomError, shown

if TYPE_CHECKING:
    from earlytom.cli.choices import Clip
    from earlytom.methods.base import Method
    from earlytom.runtime.pipeline import VideoQA
    from earlytom.runtime.sessions import VideoSession
    from earlytom.video import Video

__all__ = ["Chat"]


@dataclass(kw_only=True)
class Chat:
    """A conversation on the command line.

    Attributes:
        qa: the model.
        clip: how videos are read; ``source`` is the current one.
        video: the current one.
        method: the current one.
        opening: further arguments of `VideoQA.open`.
        max_new_tokens: of an answer.
        as_json: answers as JSON documents, one a line.
        interactive: whether somebody types the questions.
    """

    qa: VideoQA
    clip: Clip
    video: Video
    method: Method
    opening: Mapping[str, Any]
    max_new_tokens: int
    as_json: bool
    interactive: bool
    _session: VideoSession = field(init=False)
    _turn: int = field(init=False, default=0)

    def run(self, lines: TextIO) -> None:
        """Answer line by line until they end or ``/quit``.

        Raises:
            EarlyTomError: something went wrong, and nobody is there to go on.
        """
        self._session = self._opened(self.video, self.method)
        if self.interactive:
            note(f"ask away, one question a line; {_HELP}")
        for line in self._lines(lines):
            if line in ("/quit", "/exit"):
                return
            try:
                self._serve(line)
            except EarlyTomError as error:
                if not self.interactive:
                    raise
                fail(str(error))
            except KeyboardInterrupt:
                if not self.interactive:
                    raise
                note("stopped; the conversation is as it was before this line")

    def _lines(self, lines: TextIO) -> Iterator[str]:
        while True:
            if self.interactive:
                sys.stderr.write("> ")
                sys.stderr.flush()
            line = lines.readline()
            if not line:
                return
            if line.strip():
                yield line.strip()

    def _serve(self, line: str) -> None:
        if not line.startswith("/"):
            self._ask(line)
            return
        name, _, argument = line.partition(" ")
        commands = {"/video": self._change_video, "/method": self._change_method, "/save": self._save}
        if name == "/help":
            note(_HELP)
        elif name not in commands or not argument.strip():
            raise CompressionError(f"no command of this chat: {shown(line)}; {_HELP}")
        else:
            commands[name](argument.strip())

    def _ask(self, question: str) -> None:
        streamed = self.interactive and not self.as_json
        answer = self._session.ask(question, on_text=_write if streamed else None, max_new_tokens=self.max_new_tokens)
        memory = self._session.memory
        self._turn += 1
        if self.as_json:
            _write(json.dumps({"question": question, **answer.to_dict(), "memory": memory}, default=str) + "\n")
            return
        _write("\n" if streamed else f"{answer.text}\n")
        timing(
            f"turn {self._turn}: TTFT {answer.ttft * 1000:.0f} ms, prefill {answer.prefill_tokens} tokens, "
            f"{answer.new_tokens} new tokens in {answer.generation * 1000:.0f} ms, cache {_megabytes(memory)}"
        )

    def _change_video(self, path: str) -> None:
        clip = dataclasses.replace(self.clip, source=path)
        video = read_clip(self.qa, clip)
        self._go_over(video, self.method)
        self.clip = clip

    def _change_method(self, text: str) -> None:
        self._go_over(self.video, build_method(text))

    def _save(self, path: str) -> None:
        self._session.save(path)
        note(f"saved to {path}")

    def _go_over(self, video: Video, method: Method) -> None:
        """Begin anew; where that fails, the conversation goes on as it was."""
        session = self._opened(video, method)
        self._session.close()
        self._session, self.video, self.method, self._turn = session, video, method, 0

    def _opened(self, video: Video, method: Method) -> VideoSession:
        with status("encoding"):
            session = self.qa.open(video, method=method, **self.opening)
        spent = session.trace.last.milliseconds
        timing(
            f"{session.method}: {session.visual_tokens} visual tokens, encoder {spent['encoder'] / 1000:.2f} s, "
            f"prefill {spent['prefill'] / 1000:.2f} s, cache {_megabytes(session.memory)} [{describe_device(self.qa)}]"
        )
        return session


_HELP = "/video PATH, /method METHOD (both begin anew), /save FILE, /help, /quit"


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
