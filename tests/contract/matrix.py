"""Which method runs on which family, tried on tiny models; ``python tests/contract/matrix.py`` writes the docs."""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path

import torch

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"
_BLOCK = re.compile(r"(<!-- matrix -->\n).*?(<!-- end of matrix -->)", re.S)
# In its default form FastVID needs a head that video LLM checkpoints leave out; this one runs.
EXTRA = {"fastvid:scores=received": "fastvid"}


@cache
def _built(family: str) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    from families import family_case

    case = family_case(family)
    return case.build(), case.batch([[case.clip(6, 0)], [case.clip(6, 1)]])


def outcome(method: str, family: str) -> str | None:
    """``None`` when the method answers and keeps its promise on the family, otherwise the reason it gives."""
    import earlytom

    model, inputs = _built(family)
    try:
        with earlytom.compress(model, method) as trace:
            output = model.generate(**inputs, do_sample=False, max_new_tokens=3)
    except (earlytom.MethodError, earlytom.ModelError) as error:
        return str(error)
    if output.shape[1] != inputs["input_ids"].shape[1] + 3 or len(trace.videos) != 2:
        raise AssertionError(f"{method} on {family}: {output.shape}, {len(trace.videos)} clips traced")
    return None


def specifications() -> list[str]:
    """Every method in its default form, and further forms worth a row."""
    from earlytom.methods import METHODS

    return [*METHODS, *EXTRA]


def table() -> str:
    """The matrix in Markdown; footnotes give the reasons."""
    from families import FAMILY_NAMES

    reasons: dict[str, int] = {}
    lines = [f"| method | {' | '.join(FAMILY_NAMES)} |", "|---|" + "---|" * len(FAMILY_NAMES)]
    for method in specifications():
        cells = []
        for family in FAMILY_NAMES:
            reason = outcome(method, family)
            cells.append("yes" if reason is None else f"no [{reasons.setdefault(reason, len(reasons) + 1)}]")
        lines.append(f"| `{method}` | {' | '.join(cells)} |")
    lines.append("")
    lines += [f"{number}. {reason}" for reason, number in reasons.items()]
    return "\n".join(lines) + "\n"


def documented(page: str, matrix: str) -> str:
    """The page with the matrix in its place."""
    return _BLOCK.sub(lambda match: f"{match[1]}{matrix}{match[2]}", page)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    PAGE.write_text(documented(PAGE.read_text(encoding="utf-8"), table()), encoding="utf-8")
