"""Writes prompts by chat templates in a process of its own, one JSON line for each that comes in.

It imports of transformers what renders, and no torch. Whoever starts it kills it when a prompt takes too long; memory
it limits by itself.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["serve"]


def serve(memory: int, longest: int) -> None:
    """Render until standard input ends; the first line out, of nothing, says that it is ready.

    Args:
        memory: bytes that a prompt may take, beyond what the imports have taken (on Linux).
        longest: characters that a prompt may have.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # whatever is printed is no answer
    from transformers.utils.chat_template_utils import render_jinja_template

    _limit_memory(memory)
    print(file=answers, flush=True)
    for line in sys.stdin:
        try:
            answer = _rendered(render_jinja_template, json.loads(line), longest)
        except MemoryError:
            answer = {"refused": f"needs more than {memory >> 20} MiB of memory"}
        except Exception as error:  # whatever a template raises, or makes its renderer raise
            answer = {"kind": type(error).__name__, "error": str(error)[:longest]}
        print(json.dumps(answer), file=answers, flush=True)


def _rendered(render: Any, request: dict[str, Any], longest: int) -> dict[str, str]:
    prompts, _ = render(
        conversations=[request["conversation"]],
        chat_template=request["template"],
        add_generation_prompt=True,
        **request["variables"],
    )
    if len(prompts[0]) > longest:
        return {"refused": f"writes {len(prompts[0]):,} characters; allowed: {longest:,}"}
    return {"prompt": prompts[0]}


def _limit_memory(memory: int) -> None:
    with suppress(ImportError, OSError, ValueError):  # no Linux: the limit of time remains
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
