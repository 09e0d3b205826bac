"""One look a method, in every plot of every run."""

from __future__ import annotations

from earlytom.eval.plot.looks import looks_of
from earlytom.methods import METHODS


def test_the_packages_methods_look_the_same_in_every_run() -> None:
    every = looks_of(METHODS)
    assert set(every) == set(METHODS) - {"none"}
    for run in (["none", "tome", "earlytom"], ["tome:preset=x", "tome", "other"], ["visionzip:ema=0.5", "tome"]):
        assert looks_of(run)["tome"] == every["tome"]
    assert looks_of(["fastvid:scores=received"])["fastvid:scores=received"] == every["fastvid"]


def test_no_two_methods_of_a_run_share_a_look() -> None:
    run = [*METHODS, "earlytom:preset=fast", "other", "earlytom+visionzip", "tome:options=1"]
    looks = looks_of(run)
    assert len({(look.colour, look.marker, look.hollow) for look in looks.values()}) == len(run) - 1
    assert len({(look.marker, look.hollow) for look in looks_of(METHODS).values()}) == len(METHODS) - 1


def test_the_plain_method_keeps_its_look_beside_its_variants() -> None:
    variants = looks_of(["earlytom:ema=0.5", "earlytom:preset=fast", "earlytom"])
    assert variants["earlytom"] == looks_of(["earlytom"])["earlytom"]
    assert len(set(variants.values())) == 3


def test_what_the_package_does_not_know_takes_colours_that_are_not_in_use() -> None:
    run = ["tome", "mine", "earlytom", "yours:option=1", "visionzip"]
    assert len({look.colour for look in looks_of(run).values()}) == len(run)


def test_controls_are_grey() -> None:
    for control in ("random", "uniform", "average-pooling"):
        red, green, blue = looks_of([control])[control].ink
        assert red == green == blue


def test_letters_are_darker_than_markers() -> None:
    look = looks_of(["visionzip"])["visionzip"]
    assert sum(look.ink) < sum(int(look.colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
