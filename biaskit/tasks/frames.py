"""Convert boxes of the data to pixels of the picture on disk, which may be a resized copy or turned by its EXIF orientation."""

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
    """The transformation from pixels of the data to pixels of the upright picture.

    Attributes:
        data: (rows, cols) in the data. picture: (rows, cols) of the upright picture.
        turn: how the picture was turned after it was annotated, None if it was not.
        how: description of the difference, "" if there is none.
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
    """Return the transformation from the data's size to the picture's; None if it cannot be the same picture.

    If the size fits the upright picture, annotations are taken to be upright. If the orientation mirrors the picture or turns it upside
    down, or the picture is square, the size does not decide it, and `how` is `UNCLEAR`.

    Args:
        data: (rows, cols) in the data. picture: from the file's header.
    """
    upright, stored = picture.size[::-1], picture.stored[::-1]
    if same_shape(data, upright):
        unclear = picture.turn is not None and same_shape(data, stored)
        return Frame(data, upright, None, UNCLEAR if unclear else "" if data == upright else RESIZED)
    if picture.turn is not None and upright != stored and same_shape(data, stored):
        return Frame(data, upright, picture.turn, TURNED if data == stored else BOTH)
    return None


def same_shape(one: Size, other: Size) -> bool:
    """Return True if two sizes can be one picture at two scales, each side rounded up or down to a whole pixel.

    >>> same_shape((480, 640), (213, 284)), same_shape((480, 640), (640, 480)), same_shape((480, 640), (480, 600))
    (True, False, False)
    """
    low = max((side - 1) / whole for whole, side in zip(one, other, strict=True))
    high = min((side + 1) / whole for whole, side in zip(one, other, strict=True))
    return low <= high


def inside(box: Box, size: tuple[float, float]) -> bool:
    """Return True if a box has an area and is in a picture of (rows, cols), with a tolerance of a pixel and 2 % at the edges."""
    rows, cols = size
    across, down = 1 + 0.02 * cols, 1 + 0.02 * rows
    fits = -across <= box[0] and -down <= box[1] and box[2] <= cols + across and box[3] <= rows + down
    return box[0] < box[2] and box[1] < box[3] and fits
