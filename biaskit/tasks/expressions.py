"""Referring expressions, and reading them from rows (the hub's parquet, JSON lines) and from COCO-style JSON.

Layouts of rows that are told apart by their columns; `box` below is how their `bbox` is written:

- lmms-lab/RefCOCO, RefCOCOplus, RefCOCOg (parquet): `question_id, image, answer, bbox, file_name`; several expressions a row; box xywh.
- Qwen-VL's and InternVL's JSON lines (`refcoco_val.jsonl`): `image, sent, bbox, height, width`; box xyxy.
- jxu124/refcoco (parquet): `sentences, bbox, image_path, …`; box xyxy.
- COCO-style JSON: `images` and `annotations` (box xywh) with an expression each, or a list of images that carry one (`bbox_xyxy`).

`bbox_xyxy` and `bbox_xywh` say it themselves, and win.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from biaskit.errors import TaskError
from biaskit.tasks.boxes import Box
from biaskit.tasks.rows import Row, Rows, TextRows, open_rows, pick, read_json, word

_TEXTS = ("sent", "expression", "expressions", "sentences", "referring_expression", "caption", "answer", "text")
_FILES = ("file_name", "image_path", "image")


@dataclass(frozen=True)
class Expression:
    """One referring expression and the box of what it means.

    Attributes:
        id: stable and unique in its task. text: the expression.
        box: (x1, y1, x2, y2) in pixels. file: name of the picture.
        size: (rows, cols) in pixels, (0, 0) if the data does not say.
        area: of the object in pixels (its segmentation where known, else its box). tags: for break-downs.
        number: the row that holds the picture itself.
    """

    id: str
    text: str
    box: Box
    file: str
    size: tuple[int, int] = (0, 0)
    area: float = 0.0
    tags: Mapping[str, str] = field(default_factory=dict)
    number: int = 0


def read_expressions(path: Path, key: str, split: str, style: str = "") -> tuple[list[Expression], Rows]:
    """Return the expressions of a question file, and its rows (which may hold the pictures).

    Args:
        path: `*.jsonl`, `*.json`, or `*.parquet` (a `*` names shards). key: of the task; ids begin with it.
        split: rows that name a split are taken if it is this one; rows that do not are all taken.
        style: how `bbox` is written, "xywh" or "xyxy"; by default by the layout.

    Raises:
        TaskError: the file is broken, a row lacks something, or no row is of the split.
    """
    rows = open_rows(path) if path.suffix != ".json" else _CocoRows(path)
    found: list[Expression] = []
    splits = set()
    for number, row in enumerate(rows):
        splits.add(row.get("split"))
        if row.get("split") in (None, split):
            found += _from_row(row, number, path, key, style)
    if not found:
        raise TaskError(f"{str(path)!r} has no split {split!r}", f"it has {', '.join(sorted(map(str, splits))) or 'no rows'}")
    ids = [one.id for one in found]
    if len(set(ids)) < len(ids):  # rows that share an id are told apart by their number
        found = [Expression(**{**vars(one), "id": f"{one.id}#{k}"}) for k, one in enumerate(found)]
    return found, rows


class _CocoRows(TextRows):
    """The annotations of a COCO-style file, each joined with its image; or a plain list of rows."""

    def __init__(self, path: Path) -> None:
        found = read_json(path)
        if not isinstance(found, dict):
            super().__init__(path)
            return
        images = found.get("images", [])
        if not isinstance(found.get("annotations"), list):
            super().__init__(path, "images")
            return
        self.path = path
        names = {one.get("id"): one.get("name") for one in found.get("categories", ())}
        try:
            by_id = {image["id"]: image for image in images}
            self.rows = [
                {"bbox_xywh": one["bbox"], "category": names.get(one.get("category_id"))}
                | {name: by_id[one["image_id"]].get(name) for name in ("file_name", "width", "height", "split")}
                | {name: value for name, value in one.items() if name not in ("bbox", "segmentation", "category") and value is not None}
                for one in found["annotations"]
            ]
        except (KeyError, TypeError) as error:
            raise TaskError(f"{str(path)!r}: an annotation lacks {error}", "give COCO-style JSON with expressions") from error


def _from_row(row: Row, number: int, path: Path, key: str, style: str) -> list[Expression]:
    box = _box_of(row, number, path, style)
    texts = _texts(pick(row, *_TEXTS))
    if not texts:
        raise TaskError(
            f"row {number} of {str(path)!r} has no expression", f"it has {', '.join(map(str, row))}; looked for {', '.join(_TEXTS)}"
        )
    name = pick(row, "question_id", "ref_id", "ann_id", "id", "id_")
    stem = f"{key}/{name if name is not None else number}"
    category, dataset = row.get("category"), row.get("dataset")
    known = {"category": category, "set": dataset}
    file = row.get("image") if isinstance(row.get("image"), str) else None
    return [
        Expression(
            id=f"{stem}/{k}" if len(texts) > 1 else stem,
            text=text,
            box=box,
            file=pick(row, "local_file") or file or word(row, number, path, *_FILES),
            size=(int(pick(row, "height", "image_height") or 0), int(pick(row, "width", "image_width") or 0)),
            area=float(pick(row, "area") or (box[2] - box[0]) * (box[3] - box[1])),
            tags={tag: value for tag, value in known.items() if isinstance(value, str)},
            number=number,
        )
        for k, text in enumerate(texts)
    ]


def _texts(found: Any) -> list[str]:
    """Return the expressions of a cell: a text, a list of texts, or of dicts with `sent` (or `raw`)."""
    if isinstance(found, str):
        found = [found]
    if not isinstance(found, Iterable) or isinstance(found, Mapping):
        return []
    texts = [pick(one, "sent", "raw", "caption") if isinstance(one, Mapping) else one for one in found]
    return [text.strip() for text in texts if isinstance(text, str) and text.strip()]


def _box_of(row: Row, number: int, path: Path, style: str) -> Box:
    own = next((name for name in ("xyxy", "xywh") if row.get(f"bbox_{name}") is not None), "")
    # the hub's lmms-lab rows keep COCO's boxes; whoever writes one expression a row for scoring writes corners
    way = own or style or ("xywh" if row.get("answer") is not None else "xyxy")
    values = row.get(f"bbox_{own}") if own else row.get("bbox")
    where = f"row {number} of {str(path)!r}"
    try:
        a, b, c, d = (float(value) for value in values)  # type: ignore[union-attr]  # whatever is no four numbers ends below
    except (TypeError, ValueError) as error:
        raise TaskError(f"{where} has no box of four numbers: {values!r}", "boxes are named bbox, bbox_xyxy or bbox_xywh") from error
    box = (a, b, c, d) if way == "xyxy" else (a, b, a + c, b + d)
    cols, rows = pick(row, "width", "image_width") or math.inf, pick(row, "height", "image_height") or math.inf
    inside = box[0] < box[2] and box[1] < box[3] and box[0] + box[2] <= 2 * cols and box[1] + box[3] <= 2 * rows
    if not inside or not all(map(math.isfinite, box)):
        other = "xywh" if way == "xyxy" else "xyxy"
        raise TaskError(
            f"{where}: {[a, b, c, d]} is no box within the image, read as {way}", f"if it is written otherwise, add box={other}"
        )
    return box
