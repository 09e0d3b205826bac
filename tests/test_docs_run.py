"""The Python in the documents runs as it stands."""

from __future__ import annotations

import re
import runpy
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "document",
    [
        "README.md",
        "CONTRIBUTING.md",
        "docs/concepts.md",
        "docs/evaluation.md",
        "docs/video.md",
        "docs/benchmark.md",
        "docs/sessions.md",
    ],
)
def test_python_blocks_run(document, monkeypatch, tmp_path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / document).read_text(encoding="utf-8"), re.M | re.S)
    assert blocks
    module = types.ModuleType("documentation")
    monkeypatch.chdir(tmp_path)  # for what they write
    monkeypatch.setitem(sys.modules, "documentation", module)  # dataclasses look their module up
    for block in blocks:
        exec(compile(block, document, "exec"), module.__dict__)


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "examples").glob("*.py")))
def test_examples_run(script, capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", [script])
    runpy.run_path(str(ROOT / "examples" / script), run_name="__main__")
    assert capsys.readouterr().out.strip()
    assert len((ROOT / "examples" / script).read_text(encoding="utf-8").splitlines()) <= 40
