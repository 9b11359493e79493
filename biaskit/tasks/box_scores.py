"""Scores of an answer's box, and tags of the true box."""

from __future__ import annotations

from biaskit.grid import overlap
from biaskit.tasks.base import Seen
from biaskit.tasks.boxes import Box, read_box


def score_box(answer: str, truth: Box, seen: Seen, units: str | None = None) -> dict[str, float]:
    """Return `iou50` (1 if the IoU is at least 0.5), `centre` (1 if the answer's centre is in the true box), `iou`, `parsed`.

    Args:
        answer: the model's text. truth: in pixels of the original image. seen: how the model saw it. units: see `read_box`.
    """
    box = read_box(answer, seen, units)
    if box is None:
        return {"iou50": 0.0, "centre": 0.0, "iou": 0.0, "parsed": 0.0}
    iou = overlap(box, truth)
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    centre = truth[0] <= x <= truth[2] and truth[1] <= y <= truth[3]
    return {"iou50": float(iou >= 0.5), "centre": float(centre), "iou": iou, "parsed": 1.0}


def place_tags(box: Box, size: tuple[int, int]) -> dict[str, str]:
    """Return where a box's centre is: `row` (top, middle, bottom third) and `ring` (centre: the middle half both ways, or edge)."""
    across, down = (box[0] + box[2]) / 2 / size[1], (box[1] + box[3]) / 2 / size[0]
    row = "top" if down < 1 / 3 else "middle" if down < 2 / 3 else "bottom"
    return {"row": row, "ring": "centre" if abs(across - 0.5) <= 0.25 and abs(down - 0.5) <= 0.25 else "edge"}


def size_tag(area: float) -> str:
    """Return COCO's class of an area in pixels: small below 32², medium below 96², large."""
    return "small" if area < 32**2 else "medium" if area < 96**2 else "large"
