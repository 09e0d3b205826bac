"""Named series of clips: the usual one, which the test models are trained on, and ones that grow harder.

All are drawn by the same generator; a series is what it is told. A clip of ``lettering`` is the usual clip of its seed
but for the marks, and is asked the same; clips of other series have nothing to do with the usual ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from earlytom.errors import EarlyTomError, shown
from earlytom.testbed.questions import SKILLS
from earlytom.testbed.scene_types import SLOT_COUNT


@dataclass(frozen=True, kw_only=True)
class Series:
    """What the clips of a series are like; every default is that of the usual series.

    Attributes:
        about: What is hard about them, in a few words.
        slots: How long a clip is, in slots.
        scene_counts: How likely one scene is, two, and so on; they sum to one.
        shortest_scene: Slots that every scene lasts at least.
        radius: Least and greatest radius of an object, in units of a 96th of the picture's side.
        still: Share of the scenes in which camera, background and light stand still.
        moving: Share of the objects that move, of those that are not brief.
        brief: Share of the clips in which one object is seen for one or two slots only, where a scene is long enough.
        noise: Greatest standard deviation of the sensor's noise, of 255.
        flicker: Greatest standard deviation of the light from frame to frame.
        lettering: Share of the scenes with lines of small marks behind the objects.
        skills: The skills at which a test model is clearly above chance without compression; others can be asked for.
    """

    about: str
    slots: int = SLOT_COUNT
    scene_counts: tuple[float, ...] = (0.35, 0.4, 0.25)
    shortest_scene: int = 4
    radius: tuple[float, float] = (8.5, 15.5)
    still: float = 0.25
    moving: float = 0.6
    brief: float = 0.5
    noise: float = 8.0
    flicker: float = 0.03
    lettering: float = 0.0
    skills: tuple[str, ...] = SKILLS

    def frames(self, usual: int) -> int:
        """Return how many frames a model gets that usually gets ``usual``: a slot each of longer clips, else those."""
        return self.slots if self.slots > SLOT_COUNT else usual


def _all_but(left_out: str) -> tuple[str, ...]:
    return tuple(skill for skill in SKILLS if skill != left_out)


USUAL = "usual"
"""The series that is meant where none is named."""

SERIES: Mapping[str, Series] = {
    USUAL: Series(about="one to three scenes, what the test models were trained on"),
    "scenes": Series(
        about="as long as usual, but three to five scenes",
        scene_counts=(0.0, 0.0, 0.3, 0.4, 0.3),
        shortest_scene=2,
        skills=_all_but("brief"),  # nearly all scenes are too short for a brief object
    ),
    "long": Series(about="twice as long, two to four scenes", slots=32, scene_counts=(0.0, 0.4, 0.3, 0.3)),
    "longer": Series(
        about="four times as long, three to five scenes", slots=64, scene_counts=(0.0, 0.0, 0.4, 0.3, 0.3)
    ),
    "events": Series(
        about="twice as long, nothing moves, and one object comes and goes",
        slots=32,
        scene_counts=(0.6, 0.4),
        still=1.0,
        moving=0.0,
        brief=1.0,
        noise=3.0,
        flicker=0.01,
        # Nothing moves: "none" would be the answer to every question after a direction.
        skills=_all_but("direction"),
    ),
    "small": Series(about="objects of six tenths of the usual size", radius=(6.0, 8.5)),
    "lettering": Series(about="small marks like text behind the objects", lettering=1.0),
}


def find_series(name: str) -> Series:
    """Return a series by its name.

    Raises:
        EarlyTomError: there is none of this name.
    """
    if name not in SERIES:
        raise EarlyTomError(f"series of clips must be one of {', '.join(SERIES)}, got {shown(name)}")
    return SERIES[name]
