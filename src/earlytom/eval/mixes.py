"""How much each skill weighs in the accuracy over all skills.

``even`` is the mean of the skills. ``benchmarks`` weighs them as the four benchmarks of the EarlyTom paper (MVBench,
EgoSchema, LongVideoBench, Video-MME) ask. Its weights follow from what these benchmarks say they ask, and from the
definitions of the skills (`earlytom.testbed.questions`), not from any result: they were written down before a result
was averaged with them, and are not to be changed after one.

What was counted: the kinds of question by which each benchmark divides itself, 20 tasks of MVBench, one of EgoSchema,
17 categories of LongVideoBench, 12 types of Video-MME; each kind was put to the skill that is nearest to it, all kinds
of a benchmark count alike, and so do the four benchmarks.

=============  =======  =========  ==============  =========  =======
share, %       MVBench  EgoSchema  LongVideoBench  Video-MME  mean
=============  =======  =========  ==============  =========  =======
what              45       100           59            58       66
in what order     30         0           41            17       22
how many          10         0            0             8        5
which way         10         0            0             0        2
where              5         0            0            17        5
=============  =======  =========  ==============  =========  =======

- *What* (things, attributes, actions, texts, what all of it is about): of MVBench action prediction, fine-grained and
  unexpected action, object existence and interaction, moving attribute, fine-grained pose, episodic reasoning and
  counterfactual inference; EgoSchema; of LongVideoBench the eight of what is seen at a moment (S2E, S2O, S2A, E2O, O2E,
  T2E, T2O, T2A) and changes of attributes (SAA, TAA); of Video-MME recognition of and reasoning about objects and
  actions, attributes, OCR and synopsis.
- *In what order*: action sequence, antonym and localization, scene transition, state change, character order;
  E3E, O3O, T3E, T3O, SSS, SOS, TOS; temporal perception and reasoning.
- *How many*: action count, moving count; counting.
- *Which way*: moving direction, egocentric navigation.
- *Where*: object shuffle; spatial perception and reasoning.
"""

from __future__ import annotations

from collections.abc import Mapping

from earlytom.errors import EarlyTomError, shown
from earlytom.testbed.questions import SKILLS

__all__ = ["EVEN", "MIXES", "check_mix", "describe_mix"]

EVEN = "even"
"""The mix that is meant where none is named: the mean of the skills."""

MIXES: Mapping[str, Mapping[str, float]] = {
    EVEN: dict.fromkeys(SKILLS, 1.0),
    # Whole numbers near the shares above; the smallest is 1, so that no skill is left out.
    "benchmarks": {
        "colour": 5.0,  # what: an attribute of a thing that is there for long, as in most of these questions
        "shape": 5.0,  # what: which kind of thing it is; nothing says that kinds are asked more often than attributes
        "brief": 3.0,  # what, at one moment of a long clip: LongVideoBench's 59% alone, a quarter of which is 15%
        "order": 4.0,  # in what order: 22%
        "count": 2.0,  # how many: 5%, up to 10% where it is asked at all
        "direction": 1.0,  # which way something moves: 2%, only in MVBench
        "position": 1.0,  # where something is: 5%, and mostly beside what else, seldom at which place of the picture
    },
}
"""Weights of the skills by the names of mixes; only their ratios matter."""


def check_mix(name: str) -> None:
    """Raise `EarlyTomError` when there is no mix of this name."""
    if name not in MIXES:
        raise EarlyTomError(f"mix must be one of {', '.join(MIXES)}, got {shown(name)}")


def describe_mix(name: str) -> str:
    """The mix in words: its name, and the weights of the skills where these differ."""
    weights = MIXES[name]
    if len(set(weights.values())) == 1:
        return f"{name}, the mean of the skills"
    return f"{name}, weights {', '.join(f'{skill} {weight:g}' for skill, weight in weights.items())}"
