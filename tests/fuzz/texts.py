"""Texts of the methods' grammar, right, nearly right and wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from random import Random

import earlytom
from earlytom.methods import METHODS, find_method
from fuzz.outcomes import ANSWER, FindingError, Trial

_VALUES = (
    *(
        "0",
        "1",
        "0.25",
        "-1",
        "1e999",
        "nan",
        "inf",
        "1e-400",
        "9" * 30,
        "9" * 5000,
        "1_0",
        "0x10",
        "٣",
        "",
        " ",
        "true",
    ),
    *("False", "none", "4/8/12", "1/", "/", "paper", "official", "clip", "mvbench", "None", "'", "é", "\0", "x" * 500),
)
_GOOD = ("retention=0.25", "retention=1", "visual_tokens=64", "retention=0.1", "retention=0")
_PIECES = (
    *":,=+@/. \n\t%{}[]()'\"\\",
    "encoder",
    "tokens",
    "llm",
    "retention=",
    "visual_tokens=",
    "\udcff",
    "1e+3",
    "++",
)
# Enough to be far above what an error may quote.
_MOST_CHARACTERS = 20_000


def trial(random: Random, folder: Path) -> Trial:
    """A text."""
    text = _text(random)
    for _ in range(random.choice((0, 0, 0, 1, 2, 6))):
        text = _changed(text, random)[:_MOST_CHARACTERS]
    return Trial(lambda: _parsed(text), given=text, error=earlytom.MethodError)


def _parsed(text: str) -> str:
    method = earlytom.parse_method(text)
    if not isinstance(method, earlytom.Method):
        raise FindingError(f"is read as a {type(method).__name__}")
    if earlytom.parse_method(text) != method:
        raise FindingError("is read in two ways")
    return ANSWER


def _text(random: Random) -> str:
    parts = [_part(random) for _ in range(random.choice((1, 1, 1, 2, 2, 3, 9)))]
    return "+".join(parts)


def _part(random: Random) -> str:
    name = random.choice((*METHODS, "earlytom", "visionzip"))
    stages = "/".join(
        random.choice(("encoder", "tokens", "llm", "x")) for _ in range(random.choice((0, 0, 0, 0, 0, 1, 2)))
    )
    knobs = [field.name for field in dataclasses.fields(find_method(name))]
    options = ",".join(_option(random, name, knobs) for _ in range(random.choice((0, 0, 1, 1, 2, 60))))
    return name + (f"@{stages}" if stages else "") + (f":{options}" if options else "")


def _option(random: Random, name: str, knobs: list[str]) -> str:
    if random.random() < 0.3:
        return random.choice(_GOOD)
    owner = random.choice(("", "", "", f"{name}.", "visionzip.", "."))
    return f"{owner}{random.choice((*knobs, *knobs, 'nothing'))}={random.choice(_VALUES)}"


def _changed(text: str, random: Random) -> str:
    at, upto = sorted(random.randrange(len(text) + 1) for _ in range(2))
    return random.choice(
        (
            text[:at] + random.choice(_PIECES) + text[at:],
            text[:at] + text[at + 1 :],
            text[:at] + text[upto:],
            text[:upto] + text[at:],
            text[:at] + chr(random.choice((random.randrange(128), random.randrange(0xD7FF)))) + text[at + 1 :],
            text[:at] + text[at:upto] * 50 + text[upto:],
        )
    )
