"""Every method on every family: it runs and keeps its promise, or says why it cannot; and the docs say the same."""

from __future__ import annotations

import pytest

from contract.matrix import PAGE, documented, outcome, specifications, table
from families import FAMILY_NAMES


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("method", specifications())
def test_a_method_runs_or_says_why_not(method, family) -> None:
    reason = outcome(method, family)
    if reason is not None:
        assert method in ("tome", "fastvid", "fastv"), reason
        assert "vision encoder" in reason or "pooling head" in reason or "language model" in reason


def test_the_docs_hold_this_matrix() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert "<!-- matrix -->" in page
    assert documented(page, table()) == page, "run: python tests/contract/matrix.py"
