"""Turning stored pictures upright, as players do."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["upright"]


def upright(picture: npt.NDArray[np.uint8], matrix: npt.NDArray[np.int32] | None) -> npt.NDArray[Any]:
    """Apply a display matrix to a picture.

    Args:
        picture: uint8 ``[H, W, 3]``.
        matrix: 9 numbers, row-major, 16.16 fixed point (the last column 2.30), as in the MP4 ``tkhd`` box; None
            means upright already.

    Returns:
        A view, ``[H, W, 3]`` or ``[W, H, 3]``. Quarter turns and mirrorings are applied; scaling, shifts and angles
        that are no quarter turn are not.
    """
    if matrix is None or matrix.size < 9:
        return picture
    a, b, c, d = (float(matrix[i]) for i in (0, 1, 3, 4))
    # A point (x, y) is shown at (a x + c y, b x + d y), y pointing down.
    if max(abs(b), abs(c)) <= 0.01 * min(abs(a), abs(d)):
        across, down = a, d
    elif max(abs(a), abs(d)) <= 0.01 * min(abs(b), abs(c)):
        picture, across, down = picture.transpose(1, 0, 2), c, b
    else:
        return picture
    return picture[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]
