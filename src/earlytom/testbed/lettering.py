"""Lines of marks that look like small text, behind the objects: detail that attracts attention and answers nothing.

The marks are no letters of any alphabet: the test models have never learnt to read.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from earlytom.testbed.scene_types import PICTURE_UNITS, FloatArray, Lettering

_SIDE = int(PICTURE_UNITS)
_MARK_ROWS, _MARK_COLUMNS = 5, 3
_INKED, _BLANK = 0.6, 0.15
_LINES = (2, 5)
_LARGEST_SCALE = 2
_DARK, _LIGHT = (8.0, 25.0), (185.0, 215.0)
_BRIGHT = 90.0  # of 255; backgrounds lie between 40 and 120


def sample_lettering(generator: np.random.Generator, brightness: float) -> Lettering:
    """Draw two to four lines for a scene whose background is about so bright (of 255); the ink stands out from it."""
    mask = np.zeros((_SIDE, _SIDE), dtype=np.float32)
    lines = int(generator.integers(*_LINES))
    band = _SIDE // lines
    for number in range(lines):
        scale = int(generator.integers(1, _LARGEST_SCALE + 1))
        line = _sample_line(generator, scale)
        top = number * band + int(generator.integers(0, band - line.shape[0] + 1))
        left = int(generator.integers(0, _SIDE - line.shape[1] + 1))
        mask[top : top + line.shape[0], left : left + line.shape[1]] = line
    return Lettering(mask=mask, ink=float(generator.uniform(*(_LIGHT if brightness < _BRIGHT else _DARK))))


def draw_lettering(frames: FloatArray, lettering: Lettering) -> None:
    """Paint the lines over the backgrounds ``frames`` [T, S, S, 3], in place."""
    size = frames.shape[1]
    mask = Image.fromarray(lettering.mask).resize((size, size), Image.Resampling.BILINEAR)
    frames += np.asarray(mask, dtype=np.float32)[..., None] * (lettering.ink - frames)


def _sample_line(generator: np.random.Generator, scale: int) -> NDArray[np.float32]:
    """Draw marks of 3 by 5 cells, a cell apart and some left out; float32 [5 * scale, W], 1 where there is ink."""
    count = int(generator.integers(8, _SIDE // ((_MARK_COLUMNS + 1) * scale) + 1))
    marks = generator.random((count, _MARK_ROWS, _MARK_COLUMNS)) < _INKED
    marks &= (generator.random(count) >= _BLANK)[:, None, None]
    spaced = np.pad(marks, ((0, 0), (0, 0), (0, 1))).transpose(1, 0, 2).reshape(_MARK_ROWS, -1)
    line: NDArray[np.float32] = spaced.repeat(scale, axis=0).repeat(scale, axis=1).astype(np.float32)
    return line
