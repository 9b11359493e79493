"""What a report draws of an answer: its box, and the kept cells of the largest plane."""

from __future__ import annotations

from typing import Any

from biaskit.engine.decisions import SampleReport
from biaskit.grid import Layout
from biaskit.tasks.base import Seen, Task, TaskView
from biaskit.tasks.boxes import read_box


def shown(task: Task, i: int, answer: str, seen: Seen, layout: Layout, sample: SampleReport) -> dict[str, Any]:
    """Return what can be drawn of one answer, as JSON values.

    Args:
        task, i: the question. answer: of the model. seen: the geometry of the image as the model gets it. layout: its N visual tokens.
        sample: the report of what was kept.

    Returns:
        `box`: [left, top, right, bottom] in fractions of the image, if the question is about a box and the answer has one; `grid`:
        [rows, cols] of the image's largest plane, `place`: the fractions of the image that it covers, as `box`, and `cells`: the kept
        cells in row-major order, if the layout has the places of its planes.
    """
    found: dict[str, Any] = {}
    base = task
    while isinstance(base, TaskView):
        base = base.task
    box = None if task.region(i) is None else read_box(answer, seen, getattr(base, "convention", None))
    if box is not None:
        high, wide = seen.size
        found["box"] = [round(value / side, 5) for value, side in zip(box, (wide, high, wide, high), strict=True)]
    views = layout.views()
    if views:
        main = views[0]
        plane, kept = layout.planes[main], sample.indices.cpu().numpy()
        mine = kept[layout.plane[kept] == main]
        assert plane.box is not None
        found |= {
            "grid": [plane.rows, plane.cols],
            "place": [round(float(value), 5) for value in plane.box],
            "cells": sorted((layout.row[mine] * plane.cols + layout.col[mine]).tolist()),
        }
    return found
