"""How methods look: one colour and one marker each, the same in every plot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from earlytom.eval.variants import BASELINE, CONTROLS
from earlytom.methods import METHODS
from earlytom.viz.palette import COLOURS, MARKERS

__all__ = ["CHANCE", "UNCOMPRESSED", "Look", "looks_of"]

UNCOMPRESSED, CHANCE = "no compression", "chance"
"""What legends call method ``none``, and answers without the video."""

_CONTROL_LOOKS = tuple(zip(("0.35", "0.5", "0.62"), ("x", "+", "d"), strict=True))
_COLOURS = (*COLOURS, "#882255", "#94B21E", "#7A5230", "#4B3F9E")
_DARKER = 0.7
_OWN = [name for name in METHODS if name != BASELINE and name not in CONTROLS]


@dataclass(frozen=True, kw_only=True)
class Look:
    """Colour and marker of one method."""

    colour: str
    marker: str
    hollow: bool = False

    def keywords(self) -> dict[str, Any]:
        """The look as matplotlib's lines take it."""
        return {
            "color": self.colour,
            "marker": self.marker,
            "markerfacecolor": "white" if self.hollow else self.colour,
        }

    @property
    def ink(self) -> tuple[float, float, float]:
        """The colour, dark enough for small letters."""
        from matplotlib.colors import to_rgb

        red, green, blue = (_DARKER * part for part in to_rgb(self.colour))
        return red, green, blue


def looks_of(methods: Iterable[str]) -> dict[str, Look]:
    """The look of each method but the baseline, by its label (`earlytom.eval.rows.Row.method`), in the given order.

    The package's own methods look the same in every run, with options too where the run has them in one form only, and
    controls are grey. All others take what is left, colours that are not in use first. Markers and fillings differ as
    well, as far as there are any, so that methods can be told apart without colour.
    """
    present = [method for method in dict.fromkeys(methods) if method != BASELINE]
    chosen = {label: _OWN.index(name) for name, label in _plainest(present).items() if name in _OWN}
    looks = {label: _control(name) for name, label in _plainest(present).items() if name in CONTROLS}
    looks |= {label: _look(number) for label, number in chosen.items()}
    free = [_look(number) for number in range(len(_OWN) + len(present)) if number not in chosen.values()]
    for method in (method for method in present if method not in looks):
        colours = Counter(look.colour for look in looks.values())
        looks[method] = min(free, key=lambda look: colours[look.colour])
        free.remove(looks[method])
    return {method: looks[method] for method in present}


def _plainest(methods: list[str]) -> dict[str, str]:
    """Of each method without its options, the label that stands for it: the plain one, or else the first."""
    found: dict[str, str] = {}
    for method in methods:
        name = method.partition(":")[0]
        if method == name or name not in found:
            found[name] = method
    return found


def _control(name: str) -> Look:
    colour, marker = _CONTROL_LOOKS[CONTROLS.index(name) % len(_CONTROL_LOOKS)]
    return Look(colour=colour, marker=marker, hollow=True)


def _look(number: int) -> Look:
    hollow = number // len(MARKERS) % 2 == 1
    return Look(colour=_COLOURS[number % len(_COLOURS)], marker=MARKERS[number % len(MARKERS)], hollow=hollow)
