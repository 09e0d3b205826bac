"""Labels of points that cover neither points nor one another.

Every label tries places around its point, near ones first, and takes the one that costs least: farther is dearer, to
cross lines is dearer still, to cover a point or another label is what only a full plot makes it do. Then all try again,
since those that came first did not know of the others. What stands apart is tied to its point by a thin line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Label", "place_labels"]

Floats = npt.NDArray[np.float64]

# All in points (1/72 inch).
_RADIUS = 3.0  # of a marker
_GAP = 1.2  # that stays free around markers and labels
_DISTANCES = (1.5, 4.0, 7.0, 11.0, 16.0, 22.0, 29.0, 37.0, 46.0, 56.0, 67.0, 80.0, 95.0, 112.0, 130.0)
_SAME = 0.1  # points that are nearer to one another are one
_TIED = 5.0  # labels farther from their points than this are tied to them
_DIRECTIONS = 16
_STEP = 1.5  # between the places at which a line is felt
_STEPS_OF_A_TIE = 24
# In points of distance, what it costs to cover a point of a line, to need a tie, to run a tie through a marker or
# another tie, and to cover a marker or a label.
_LINE, _BOUND, _TIE, _COVERED = 1.0, 4.0, 15.0, 1e5
_ROUNDS = 4


@dataclass(frozen=True, kw_only=True)
class Label:
    """A text that belongs to a point, in the coordinates of the data."""

    text: str
    x: float
    y: float
    colour: Any


def place_labels(
    axes: Axes,
    labels: Sequence[Label],
    points: Sequence[tuple[float, float]],
    lines: Sequence[Sequence[Any]],
    **font: Any,
) -> None:
    """Write labels beside their points.

    The figure is laid out first, so everything else must be in place, limits of the axes included.

    Args:
        axes: where the points are drawn.
        labels: what is written.
        points: [N, 2] every point that no label may cover, in the coordinates of the data.
        lines: polylines [K, 2] each, that labels avoid where they can: connections, intervals.
        font: how texts look, as ``Axes.annotate`` takes it.
    """
    if not labels:
        return
    field = _Field.measure(axes, points, lines)
    origins = field.in_points([(label.x, label.y) for label in labels])
    places = _settle(field, origins, field.sizes([label.text for label in labels], font))
    for label, place in zip(labels, places, strict=True):
        _write(axes, label, place, font)


def _write(axes: Axes, label: Label, place: _Place, font: Mapping[str, Any]) -> None:
    corner, size = place.box[:2], place.box[2:] - place.box[:2]
    start = tuple((place.tie[-1] - corner) / size)  # where the tie meets the box, as a share of its width and height
    tie = {
        "arrowstyle": "-", "color": label.colour, "linewidth": 0.5, "shrinkA": 0, "shrinkB": _RADIUS, "relpos": start,
    }  # fmt: skip
    text = axes.annotate(
        label.text, (label.x, label.y), tuple(place.centre - place.origin), textcoords="offset points", ha="center",
        va="center", color=label.colour, zorder=5, arrowprops=tie if place.tied else None, **font,
    )  # fmt: skip
    text.set_in_layout(False)  # it stands in the axes, which must not move any more


@dataclass(frozen=True, kw_only=True)
class _Place:
    """One of the places around a point: a box, and the line that ties it to the point."""

    origin: Floats  # [2]
    centre: Floats  # [2]
    box: Floats  # [4]: left, bottom, right, top
    tie: Floats  # [_STEPS_OF_A_TIE, 2]
    tied: bool


@dataclass(frozen=True, kw_only=True)
class _Field:
    """What labels meet inside the axes, in points: boxes of markers [N, 4], places on lines [S, 2], the frame [4]."""

    axes: Axes
    scale: float
    markers: Floats
    felt: Floats
    frame: Floats

    @classmethod
    def measure(cls, axes: Axes, points: Sequence[Any], lines: Sequence[Sequence[Any]]) -> _Field:
        """Lay the figure out and find where everything is."""
        figure: Any = axes.get_figure()
        figure.draw_without_rendering()
        scale = 72.0 / figure.dpi
        at = scale * axes.transData.transform(np.asarray(points, dtype=float).reshape(-1, 2))
        felt = [
            _along(scale * axes.transData.transform(np.asarray(line, dtype=float))) for line in lines if len(line) > 1
        ]
        return cls(
            axes=axes,
            scale=scale,
            markers=_boxes(at, np.full_like(at, 2 * _RADIUS)),
            felt=np.concatenate([np.empty((0, 2)), *felt]),
            frame=scale * np.asarray(axes.get_window_extent().extents),
        )

    def in_points(self, at: Sequence[tuple[float, float]]) -> Floats:
        """[N, 2] of the data's coordinates, in points."""
        return self.scale * self.axes.transData.transform(np.asarray(at, dtype=float))

    def is_nearer_to_others(self, box: Floats, origin: Floats, away: float) -> bool:
        """Whether a box is nearer to the centre of another marker than to the point that it is ``away`` from."""
        centres = (self.markers[:, :2] + self.markers[:, 2:]) / 2
        distances = np.hypot(*(np.clip(centres, box[:2], box[2:]) - centres).T)
        others = np.hypot(*(centres - origin).T) > _SAME
        return bool((others & (distances < away)).any())

    def sizes(self, texts: Sequence[str], font: Mapping[str, Any]) -> Floats:
        """[N, 2] widths and heights of texts, with the gap that stays free around them."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        figure: Any = self.axes.get_figure()
        renderer = FigureCanvasAgg(figure).get_renderer()
        found = []
        for text in texts:
            tried = figure.text(0, 0, text, **font)
            box = tried.get_window_extent(renderer)
            found.append((box.width, box.height))
            tried.remove()
        return self.scale * np.array(found) + 2 * _GAP


def _settle(field: _Field, origins: Floats, sizes: Floats) -> list[_Place]:
    """The place of each label: the cheapest beside those of all others, in a few rounds."""
    chosen: dict[int, _Place] = {}
    around = [_around(field, origin, size) for origin, size in zip(origins, sizes, strict=True)]
    alone = [_cost_alone(field, places) for places in around]
    for _ in range(_ROUNDS):
        before = dict(chosen)
        for number, places in enumerate(around):
            others = [place for other, place in chosen.items() if other != number]
            cost = alone[number] + _cost_among(places, others)
            chosen[number] = places[int(cost.argmin())]
        if all(before.get(number) is place for number, place in chosen.items()):
            break
    return [chosen[number] for number in range(len(around))]


def _around(field: _Field, origin: Floats, size: Floats) -> list[_Place]:
    """The places around a point, near ones first."""
    angles = 2 * np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
    made = []
    for distance in _DISTANCES:
        for way in np.stack([np.cos(angles), np.sin(angles)], axis=1):
            centre = origin + way * (_RADIUS + distance + size / 2)
            box = np.concatenate([centre - size / 2, centre + size / 2])
            near = np.clip(origin, box[:2], box[2:])
            tie = origin + np.linspace(0.0, 1.0, _STEPS_OF_A_TIE)[:, None] * (near - origin)
            away = np.hypot(*(near - origin))
            tied = bool(away > _RADIUS + _TIED or field.is_nearer_to_others(box, origin, away))
            made.append(_Place(origin=origin, centre=centre, box=box, tie=tie, tied=tied))
    return made


def _cost_alone(field: _Field, places: Sequence[_Place]) -> Floats:
    """[P] what each place costs before any other label is there."""
    boxes, ties = np.stack([place.box for place in places]), np.stack([place.tie for place in places])
    outside = (boxes[:, :2] < field.frame[:2]).any(axis=1) | (boxes[:, 2:] > field.frame[2:]).any(axis=1)
    covered = _overlap(boxes, field.markers).sum(axis=1) + 10 * outside
    lines = _STEP * _inside(field.felt[None], boxes)[0].sum(axis=0)
    # Its own marker is among those that a tie runs into.
    crossed = (_inside(ties, field.markers).any(axis=1).sum(axis=1) - 1).clip(min=0)
    tied = np.array([place.tied for place in places])
    distance = np.array([np.hypot(*(place.tie[-1] - place.origin)) for place in places])
    return distance + _BOUND * tied + _COVERED * covered + _LINE * lines + _TIE * tied * crossed


def _cost_among(places: Sequence[_Place], others: Sequence[_Place]) -> Floats:
    """[P] what each place costs more since other labels are there."""
    if not others:
        return np.zeros(len(places))
    boxes, ties = np.stack([place.box for place in places]), np.stack([place.tie for place in places])
    their_boxes, their_ties = np.stack([place.box for place in others]), np.stack([place.tie for place in others])
    tied = np.array([place.tied for place in places])[:, None]
    they_tied = np.array([place.tied for place in others])[:, None]
    covered = _overlap(boxes, their_boxes)
    struck = tied & _inside(ties, their_boxes).any(axis=1)
    strikes = (they_tied & _inside(their_ties, boxes).any(axis=1)).T
    crossing = _cross(ties[:, None, 0], ties[:, None, -1], their_ties[:, 0], their_ties[:, -1]) & tied & they_tied.T
    return _COVERED * (covered | struck | strikes).sum(axis=1) + _TIE * crossing.sum(axis=1)


def _boxes(centres: Floats, sizes: Floats) -> Floats:
    return np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)


def _along(line: Floats) -> Floats:
    """Places along a polyline, evenly apart."""
    lengths = np.hypot(*np.diff(line, axis=0).T)
    parts = [
        start + np.linspace(0.0, 1.0, max(2, int(length / _STEP)), endpoint=False)[:, None] * (end - start)
        for start, end, length in zip(line[:-1], line[1:], lengths, strict=True)
    ]
    return np.concatenate(parts)


def _overlap(boxes: Floats, others: Floats) -> npt.NDArray[np.bool_]:
    """[P, N] whether boxes [P, 4] and [N, 4] overlap."""
    one, other = boxes[:, None], others[None]
    return np.logical_and.reduce((one[..., :2] < other[..., 2:]) & (one[..., 2:] > other[..., :2]), axis=-1)


def _inside(at: Floats, boxes: Floats) -> npt.NDArray[np.bool_]:
    """[P, S, N] whether places [P, S, 2] lie in boxes [N, 4]."""
    place, box = at[:, :, None], boxes[None, None]
    return np.logical_and.reduce((place > box[..., :2]) & (place < box[..., 2:]), axis=-1)


def _cross(start: Floats, end: Floats, other_start: Floats, other_end: Floats) -> npt.NDArray[np.bool_]:
    """Whether line segments cross; all [..., 2], broadcast against one another."""

    def side(one: Floats, two: Floats, three: Floats) -> Floats:
        """On which side of the line through ``one`` and ``two`` is ``three``?"""
        return (two[..., 0] - one[..., 0]) * (three[..., 1] - one[..., 1]) - (two[..., 1] - one[..., 1]) * (
            three[..., 0] - one[..., 0]
        )

    parted = side(start, end, other_start) * side(start, end, other_end) < 0
    return parted & (side(other_start, other_end, start) * side(other_start, other_end, end) < 0)
