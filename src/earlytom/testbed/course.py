"""The course of the second stage: how clips grow, and how fast is learnt."""

from dataclasses import dataclass

MEANT_LAYER = 6


@dataclass(frozen=True)
class Phase:
    """One length of clip: its frames, clips and questions a step, new clips a step, share of clips with position gaps.

    A clip has at least one grid: of one frame that becomes two where a grid is a pair. Architectures whose tokens keep
    their positions have no gaps.

    It ends when ``until`` of the stage's time is used, or earlier once the mean accuracy of all skills is ``enough``.
    The first one has no video at all: what letters are for is learnt from texts, since beside video it is drowned.
    """

    frames: int
    clips: int
    questions: int
    additions: int
    gaps: float
    until: float
    enough: float


PHASES = (
    Phase(frames=0, clips=0, questions=0, additions=0, gaps=0.0, until=0.08, enough=0.93),
    Phase(frames=1, clips=20, questions=6, additions=1, gaps=0.75, until=0.25, enough=0.93),
    Phase(frames=4, clips=14, questions=8, additions=2, gaps=0.75, until=0.5, enough=0.93),
    Phase(frames=8, clips=10, questions=9, additions=2, gaps=0.4, until=0.72, enough=0.93),
    Phase(frames=16, clips=8, questions=10, additions=2, gaps=0.4, until=0.85, enough=0.97),
    Phase(frames=16, clips=8, questions=10, additions=2, gaps=0.75, until=1.0, enough=2.0),
)


@dataclass(frozen=True)
class Course:
    """The phases of the stage and how they are learnt.

    Attributes:
        phases: What is shown, in this order.
        readings: Texts without a video a step. They have an optimiser of their own: beside the gradients of the video
            theirs are drowned.
        reading_from: The first layer that learns from texts.
        read_well: Share of the texts read rightly from which on only every fourth step has any.
        rate: Scale of the learning rates for video.
        decay_from: Share of the stage's time after which the rates fall.
    """

    phases: tuple[Phase, ...]
    readings: int
    reading_from: int
    read_well: float
    rate: float
    decay_from: float


FROM_NOTHING = Course(PHASES, readings=48, reading_from=0, read_well=0.95, rate=1.0, decay_from=0.78)
# A model that has learnt to watch forgets it at the full rate, and with texts alone: these train the last layers only.
FROM_CHECKPOINT = Course(
    phases=(
        Phase(frames=0, clips=0, questions=0, additions=0, gaps=0.0, until=0.08, enough=0.85),
        Phase(frames=4, clips=14, questions=8, additions=2, gaps=0.75, until=0.62, enough=0.95),
        Phase(frames=8, clips=10, questions=9, additions=2, gaps=0.4, until=0.72, enough=0.95),
        Phase(frames=16, clips=8, questions=10, additions=2, gaps=0.5, until=1.0, enough=2.0),
    ),
    readings=48,
    reading_from=MEANT_LAYER,
    read_well=0.95,
    rate=0.4,
    decay_from=0.6,
)
# The language model of another architecture's checkpoint knows words, letters and what to look for, but has to learn
# to see with another encoder: clips grow as from nothing, texts only keep alive what is known of letters.
FROM_LANGUAGE_MODEL = Course(
    phases=(
        Phase(frames=1, clips=20, questions=6, additions=1, gaps=0.75, until=0.2, enough=0.93),
        Phase(frames=4, clips=14, questions=8, additions=2, gaps=0.75, until=0.42, enough=0.95),
        Phase(frames=8, clips=10, questions=9, additions=2, gaps=0.4, until=0.62, enough=0.95),
        Phase(frames=16, clips=8, questions=10, additions=2, gaps=0.5, until=1.0, enough=2.0),
    ),
    readings=48,
    reading_from=MEANT_LAYER,
    read_well=0.7,
    rate=0.5,
    decay_from=0.6,
)
