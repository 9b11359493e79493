"""Referring expressions, read from rows (the hub's parquet, JSON lines) or from COCO-style JSON.

Layouts are recognised by their columns; `box` below is the format of their `bbox`:

- lmms-lab/RefCOCO, RefCOCOplus, RefCOCOg (parquet): `question_id, image, answer, bbox, file_name`; several expressions a row; box xywh.
- Qwen-VL's and InternVL's JSON lines (`refcoco_val.jsonl`): `image, sent, bbox, height, width`; box xyxy.
- jxu124/refcoco (parquet): `sentences, bbox, image_path, …`; box xyxy.
- COCO-style JSON: `images` and `annotations` (box xywh) with an expression each, or a list of images that carry one (`bbox_xyxy`).

`bbox_xyxy` and `bbox_xywh` name their format and take precedence.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from biaskit.errors import TaskError
from biaskit.tasks.boxes import Box
from biaskit.tasks.frames import inside
from biaskit.tasks.rows import Row, Rows, TextRows, distinct, file_of, lacking, listed, pick, read_json, whole
from biaskit.tasks.tables import open_rows

_TEXTS = ("sent", "expression", "expressions", "sentences", "referring_expression", "caption", "answer", "text")
_FILES = ("file_name", "image_path", "image")


@dataclass(frozen=True)
class Expression:
    """One referring expression and the box of its object.

    Attributes:
        id: stable and unique in its task. text: the expression.
        box: (x1, y1, x2, y2) in pixels. file: name of the picture.
        size: (rows, cols) in pixels, (0, 0) if the data does not give it.
        area: of the object in pixels (of its segmentation if known, else of its box). tags: for break-downs.
        number: the row of the file, which may contain the picture.
        fractions: True if the data has the box in fractions of 1. Without a size, `box` is in fractions too, until the picture is measured.
    """

    id: str
    text: str
    box: Box
    file: str
    size: tuple[int, int] = (0, 0)
    area: float = 0.0
    tags: Mapping[str, str] = field(default_factory=dict)
    number: int = 0
    fractions: bool = False


def read_expressions(path: Path, key: str, split: str, style: str = "") -> tuple[list[Expression], Rows]:
    """Return the expressions of a question file, and its rows (which may hold the pictures).

    Args:
        path: `*.jsonl`, `*.json`, or `*.parquet` (a `*` names shards). key: of the task; ids begin with it.
        split: rows that name another split are left out; rows that name none are kept.
        style: format of `bbox`, "xywh" or "xyxy"; by default that of the layout.

    Raises:
        TaskError: the file is broken, a row lacks something, or no row is of the split.
    """
    rows = open_rows(path) if path.suffix != ".json" else _CocoRows(path)
    found: list[Expression] = []
    splits = set()
    for number, row in enumerate(rows):
        splits.add(str(row.get("split"))[:40])
        if row.get("split") in (None, split):
            found += _from_row(row, number, path, key, style)
    if not found:
        raise TaskError(f"{str(path)!r} has no split {split!r}", f"it has {', '.join(sorted(splits))[:300] or 'no rows'}")
    _one_unit(found, path)
    return distinct(found), rows


def _one_unit(found: list[Expression], path: Path) -> None:
    """Refuse a file that has some boxes in fractions of 1 and others in pixels."""
    odd = [one for one in found if one.fractions]
    if 0 < len(odd) < len(found):
        rest = f"{len(found) - len(odd)} others are in pixels"
        raise TaskError(
            f"row {odd[0].number} of {str(path)!r} has a box in fractions of 1 ({len(odd)} have), but {rest}", "write all boxes one way"
        )


def by_id(found: Any, what: str, path: Path) -> dict[Any, Any]:
    """Return the records of a COCO list by their id.

    Raises:
        TaskError: two different records share an id. KeyError, TypeError: a record has no id.
    """
    held: dict[Any, Any] = {}
    twice = 0
    for one in found:
        twice += held.setdefault(one["id"], one) != one
    if twice:
        raise TaskError(f"{twice} {what} of {str(path)!r} share their id with another one", f"give every one of the {what} its own id")
    return held


class _CocoRows(TextRows):
    """The annotations of a COCO-style file, each joined with its image; or a plain list of rows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        found = read_json(path)
        if not isinstance(found, dict) or not isinstance(found.get("annotations"), list):
            self.rows = listed(found, path, "images")
            return
        try:
            names = {one["id"]: one.get("name") for one in found.get("categories") or ()}
            pictures = by_id(found.get("images", []), "images", path)
            self.rows = [
                {"bbox_xywh": one["bbox"], "category": names.get(one.get("category_id"))}
                | {name: pictures[one["image_id"]].get(name) for name in ("file_name", "width", "height", "split")}
                | {name: value for name, value in one.items() if name not in ("bbox", "segmentation", "category") and value is not None}
                for one in found["annotations"]
            ]
        except (KeyError, TypeError, AttributeError) as error:
            raise TaskError(f"{str(path)!r}: an annotation lacks {str(error)[:200]}", "give COCO-style JSON with expressions") from error


def _from_row(row: Row, number: int, path: Path, key: str, style: str) -> list[Expression]:
    size = whole(row, number, path, "height", "image_height"), whole(row, number, path, "width", "image_width")
    box, fractions = _box_of(row, number, path, style, size)
    texts = _texts(pick(row, *_TEXTS))
    if not texts:
        raise TaskError(
            f"row {number} of {str(path)!r} has no expression", f"it has {', '.join(map(str, row))[:300]}; looked for {', '.join(_TEXTS)}"
        )
    name = pick(row, "question_id", "ref_id", "ann_id", "id", "id_")
    stem = f"{key}/{str(name)[:200] if name is not None else number}"
    known = {"category": row.get("category"), "set": row.get("dataset")}
    file = file_of(row, number, path, *_FILES)
    if not file:
        raise lacking(row, number, path, *_FILES)
    return [
        Expression(
            id=f"{stem}/{k}" if len(texts) > 1 else stem,
            text=text,
            box=box,
            file=file,
            size=size,
            area=_area(row, number, path) or (box[2] - box[0]) * (box[3] - box[1]),
            tags={tag: value for tag, value in known.items() if isinstance(value, str)},
            number=number,
            fractions=fractions,
        )
        for k, text in enumerate(texts)
    ]


def _area(row: Row, number: int, path: Path) -> float:
    """Return the area of a row's object in pixels, 0 if the row has none."""
    found = row.get("area")
    try:
        area = float(found or 0)
    except (TypeError, ValueError, OverflowError):
        area = math.nan
    if not 0 <= area < math.inf:
        raise TaskError(f"row {number} of {str(path)!r}: area is {str(found)[:60]!r}", "areas are numbers of pixels")
    return area


def _texts(found: Any) -> list[str]:
    """Return the expressions of a cell: a text, a list of texts, or of dicts with `sent` (or `raw`)."""
    if isinstance(found, str):
        found = [found]
    if not isinstance(found, Iterable) or isinstance(found, Mapping):
        return []
    texts = [pick(one, "sent", "raw", "caption") if isinstance(one, Mapping) else one for one in found]
    return [text.strip() for text in texts if isinstance(text, str) and text.strip()]


def _box_of(row: Row, number: int, path: Path, style: str, size: tuple[int, int]) -> tuple[Box, bool]:
    """Return a row's box in pixels of its size, and whether it was in fractions of 1."""
    own = next((name for name in ("xyxy", "xywh") if row.get(f"bbox_{name}") is not None), "")
    # the hub's lmms-lab rows keep COCO's boxes; whoever writes one expression a row for scoring writes corners
    way = own or style or ("xywh" if row.get("answer") is not None else "xyxy")
    values = row.get(f"bbox_{own}") if own else row.get("bbox")
    where = f"row {number} of {str(path)!r}"
    try:
        a, b, c, d = (float(value) for value in values)  # type: ignore[union-attr]  # anything but four numbers raises below
    except (TypeError, ValueError, OverflowError) as error:
        hint = "boxes are named bbox, bbox_xyxy or bbox_xywh"
        raise TaskError(f"{where} has no box of four numbers: {repr(values)[:200]}", hint) from error
    box = (a, b, c, d) if way == "xyxy" else (a, b, a + c, b + d)
    fractions = all(0 <= value <= 1 for value in (*box, c, d))  # pixels are excluded: no object is smaller than one
    if fractions and min(size) > 0:
        box = box[0] * size[1], box[1] * size[0], box[2] * size[1], box[3] * size[0]
    if not all(map(math.isfinite, box)) or not inside(box, (size[0] or math.inf, size[1] or math.inf)):
        raise TaskError(f"{where}: {[a, b, c, d]} is not a box within the image, read as {way}", other_way(way))
    return box, fractions


def other_way(way: str) -> str:
    """Return the hint to read boxes in the other format."""
    return f"if it is written otherwise, add box={'xywh' if way == 'xyxy' else 'xyxy'}"
