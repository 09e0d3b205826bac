"""CONTRIBUTING.md names the interface that there is."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from earlytom.models import FAMILIES, load_host_class, open_model
from earlytom.models.base import Host, Tower, VideoCall
from families import FAMILY_NAMES, family_case

TEXT = (Path(__file__).resolve().parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
NEEDED, OPTIONAL = TEXT.split("These have an answer already")
KINDS = (Host, Tower, VideoCall)
SWITCHES = {f"Host.{name}" for name in inspect.get_annotations(Host)}


def written(text: str) -> dict[str, list[str] | None]:
    """Members that a table names, with their parameters."""
    rows = re.findall(r"^\| `(\w+\.\w+)(\([^`]*?\))?(?:: | -> )[^`]+` \|", text, re.M)
    return {name: re.findall(r"\w+", parameters) if parameters else None for name, parameters in rows}


def members(kind: type, *, abstract: bool) -> dict[str, list[str] | None]:
    """Methods of a kind, those that must be written or the others that may be."""
    needed = kind.__abstractmethods__
    methods = inspect.getmembers(kind, inspect.isfunction)
    return {
        f"{kind.__name__}.{name}": list(inspect.signature(method).parameters)[1:]
        for name, method in methods
        if not name.startswith("_") and (name in needed) == abstract
    }


def test_the_table_of_a_family_is_what_must_be_written() -> None:
    found = {name: parameters for kind in KINDS for name, parameters in members(kind, abstract=True).items()}
    assert written(NEEDED) == found
    assert len(found) == 10
    assert "Ten members are needed" in NEEDED


def test_the_second_table_is_what_may_be_written_besides() -> None:
    found = {name: parameters for kind in KINDS for name, parameters in members(kind, abstract=False).items()}
    assert written(OPTIONAL) == found | dict.fromkeys(SWITCHES)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_every_family_answers_fewer_members_than_fifteen(family) -> None:
    """Fifteen were needed when a family was one class that got the model in every call."""
    case = family_case(family)
    host = open_model(case.build())
    call = host.open(case.batch([[case.clip(4, 0)]]))
    parts = zip(KINDS, (host, host.tower(call.grids[0]), call), strict=True)
    interface = {name for kind in KINDS for name in (*members(kind, abstract=True), *members(kind, abstract=False))}
    answered = {
        f"{kind.__name__}.{name}"
        for kind, part in parts
        for maker in type(part).__mro__[: type(part).__mro__.index(kind)]
        for name in vars(maker)
    }
    own = answered & (interface | SWITCHES)
    assert len(written(NEEDED)) <= len(own) < 15, own


def test_the_family_to_begin_with_is_the_shortest_that_has_an_encoder_of_its_own() -> None:
    sources = {
        name: Path(inspect.getfile(load_host_class(name)))
        for name in FAMILIES
        if Host in load_host_class(name).__bases__
    }
    shortest = min(sources, key=lambda name: len(sources[name].read_text(encoding="utf-8").splitlines()))
    assert f"`models/{sources[shortest].name}` is the\nshortest" in TEXT
