"""Boxes are in pixels of the size that the data gives. The picture on disk may be a resized copy, or turned by its EXIF orientation."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from biaskit.images.decode import Measured
from biaskit.tasks.boxes import Box

Size = tuple[int, int]
"""(rows, cols) in pixels."""

RESIZED = "a resized copy"
TURNED = "turned by its EXIF orientation"
BOTH = "a resized copy, turned by its EXIF orientation"
UNCLEAR = "turned by its EXIF orientation, taken as annotated upright"


@dataclass(frozen=True)
class Frame:
    """How pixels of the data become pixels of the picture as it is seen.

    Attributes:
        data: (rows, cols) by the data. picture: (rows, cols) of the picture, upright.
        turn: how the picture was turned after it was annotated, None if it was not.
        how: what is different, in words; "" where nothing is.
    """

    data: Size
    picture: Size
    turn: Image.Transpose | None = None
    how: str = ""

    def place(self, box: Box) -> Box:
        """Return a box of the data in pixels of the picture.

        >>> Frame((480, 640), (240, 320)).place((400, 40, 600, 200))
        (200.0, 20.0, 300.0, 100.0)
        >>> Frame((480, 640), (640, 480), Image.Transpose.ROTATE_270).place((400, 40, 600, 200))
        (280.0, 400.0, 440.0, 600.0)
        """
        rows, cols = self.data
        x1, y1, x2, y2 = box
        if self.turn == Image.Transpose.ROTATE_270:
            x1, y1, x2, y2 = rows - y2, x1, rows - y1, x2
        elif self.turn == Image.Transpose.ROTATE_90:
            x1, y1, x2, y2 = y1, cols - x2, y2, cols - x1
        elif self.turn == Image.Transpose.TRANSPOSE:
            x1, y1, x2, y2 = y1, x1, y2, x2
        elif self.turn == Image.Transpose.TRANSVERSE:
            x1, y1, x2, y2 = rows - y2, cols - x2, rows - y1, cols - x1
        if self.turn is not None:
            rows, cols = cols, rows
        down, across = self.picture[0] / rows, self.picture[1] / cols
        return x1 * across, y1 * down, x2 * across, y2 * down


def frame_of(data: Size, picture: Measured) -> Frame | None:
    """Return how a picture differs from what the data says of it; None where it can't be the same picture.

    Upright comes first: annotations of a size that fits the upright picture are taken to be upright. Where the orientation mirrors a
    picture or turns it upside down, or the picture is square, the size cannot tell, and `how` is `UNCLEAR`.

    Args:
        data: (rows, cols) by the data. picture: what the file's header says.
    """
    upright, stored = picture.size[::-1], picture.stored[::-1]
    if same_shape(data, upright):
        unclear = picture.turn is not None and same_shape(data, stored)
        return Frame(data, upright, None, UNCLEAR if unclear else "" if data == upright else RESIZED)
    if picture.turn is not None and upright != stored and same_shape(data, stored):
        return Frame(data, upright, picture.turn, TURNED if data == stored else BOTH)
    return None


def same_shape(one: Size, other: Size) -> bool:
    """Tell whether two sizes are one picture's at two scales, each side rounded to a whole pixel either way.

    >>> same_shape((480, 640), (213, 284)), same_shape((480, 640), (640, 480)), same_shape((480, 640), (480, 600))
    (True, False, False)
    """
    low = max((side - 1) / whole for whole, side in zip(one, other, strict=True))
    high = min((side + 1) / whole for whole, side in zip(one, other, strict=True))
    return low <= high


def inside(box: Box, size: tuple[float, float]) -> bool:
    """Tell whether a box has an area and lies in a picture of (rows, cols); annotators go over its edge by a pixel and 2 % at most."""
    rows, cols = size
    across, down = 1 + 0.02 * cols, 1 + 0.02 * rows
    fits = -across <= box[0] and -down <= box[1] and box[2] <= cols + across and box[3] <= rows + down
    return box[0] < box[2] and box[1] < box[3] and fits
