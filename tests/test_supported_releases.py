"""What is promised about releases is said in three places, and tested by `make test-oldest`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def promised() -> dict[str, Version]:
    """The lowest release of each package that the package itself, its extras or its tests name."""
    extras = PROJECT["optional-dependencies"]
    named = [*PROJECT["dependencies"], *(one for extra, listed in extras.items() if extra != "dev" for one in listed)]
    lowest = {}
    for requirement in map(Requirement, named):
        (bound,) = (part.version for part in requirement.specifier if part.operator == ">=")
        lowest[requirement.name] = Version(bound)
    return lowest


def test_the_oldest_releases_are_those_promised() -> None:
    lines = (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert {name: Version(version) for name, version in pinned.items()} == promised()


def test_the_documents_promise_the_same() -> None:
    lowest = promised()
    text, models = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/models.md"))
    for name in ("torch", "transformers"):
        (said,) = re.findall(rf"\b{name} >= ([\d.]+\d)", text)
        assert Version(said) == lowest[name]
    assert f"Python {PROJECT['requires-python'].replace('>=', '>= ')}" in text
    assert f"`transformers` ({lowest['transformers']} or newer)" in models
