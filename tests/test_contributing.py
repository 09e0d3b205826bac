"""CONTRIBUTING.md names the interface that there is."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from earlytom.models.base import ModelAdapter

TEXT = (Path(__file__).resolve().parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_table_of_a_family_is_the_adapter_s_interface() -> None:
    written = re.findall(r"^\| `(\w+)(\([^`]*?\))?(?:: | -> )[^`]+` \|", TEXT, re.M)
    described = {name: re.findall(r"\w+", parameters) if parameters else None for name, parameters in written}
    interface = {name: None for name in inspect.get_annotations(ModelAdapter)} | {
        name: list(inspect.signature(member).parameters)[1:]
        for name, member in inspect.getmembers(ModelAdapter, inspect.isfunction)
        if not name.startswith("_")
    }
    assert described == interface
