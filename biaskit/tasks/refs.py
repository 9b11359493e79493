"""The original files of RefCOCO: `refs(unc).p`, a pickle, beside COCO's `instances.json` (lichengunc/refer).

They are read by `plain_pickle`: nothing in them is executed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from biaskit.errors import TaskError
from biaskit.tasks.expressions import Expression, by_id
from biaskit.tasks.frames import inside
from biaskit.tasks.plain_pickle import read_plain_pickle
from biaskit.tasks.rows import distinct, read_json


def read_refs(refs: Path, instances: Path, split: str, key: str) -> list[Expression]:
    """Return the expressions of a split, in order of ref and sentence.

    Args:
        refs: `refs(….).p`. instances: COCO's `instances.json` for the same pictures. split: val, test, testA, testB, train.
        key: of the task; ids begin with it.

    Raises:
        TaskError: a file is broken, they do not belong together, or the split is empty.
    """
    found = read_plain_pickle(refs)
    if not isinstance(found, list) or not all(isinstance(ref, dict) for ref in found):
        raise TaskError(f"{str(refs)!r} does not hold a list of refs", "give refs(unc).p, refs(umd).p or refs(google).p")
    coco = read_json(instances)
    try:
        boxes = by_id(coco["annotations"], "annotations", instances)
        images = by_id(coco["images"], "images", instances)
        names = {one["id"]: str(one["name"]) for one in coco.get("categories") or ()}
    except (KeyError, TypeError, AttributeError) as error:
        raise TaskError(
            f"{str(instances)!r} is not an instances.json: {error!r}"[:500], "give COCO's instances.json beside the refs"
        ) from error
    try:
        chosen = [ref for ref in found if _in_split(ref["split"], split)]
        if not chosen:
            known = ", ".join(sorted({str(ref["split"])[:40] for ref in found}))
            raise TaskError(f"{str(refs)!r} has no split {split!r}", f"it has {known[:300] or 'no refs'}")
        return distinct([one for ref in chosen for one in _expressions(ref, boxes[ref["ann_id"]], images[ref["image_id"]], names, key)])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise TaskError(
            f"{str(refs)!r} and {str(instances)!r} do not match: {error!r}"[:1000], "take both from the same release"
        ) from error


def _in_split(of_ref: str, split: str) -> bool:
    """REFER's rule: testA includes the refs of `testAB`; test includes those of every test part."""
    if split in ("testA", "testB", "testC"):
        return of_ref.startswith("test") and split[-1] in of_ref[4:]
    return "test" in of_ref if split == "test" else of_ref == split


def _number(value: Any) -> Any:
    """Return an id: a number or a short text."""
    if not isinstance(value, int) and not (isinstance(value, str) and len(value) <= 100):
        raise TypeError(f"an id is a {type(value).__name__}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a {type(value).__name__} is where a text belongs")
    return value


def _expressions(ref: dict[str, Any], annotation: Any, image: Any, names: dict[Any, str], key: str) -> Sequence[Expression]:
    x, y, wide, high = (float(value) for value in annotation["bbox"])
    size = (int(image["height"]), int(image["width"]))
    box = (x, y, x + wide, y + high)
    if min(size) < 1 or not inside(box, size):
        raise ValueError(f"the box {[x, y, wide, high]} of annotation {ref['ann_id']} is not within {size[1]}x{size[0]} pixels")
    category = names.get(annotation.get("category_id"), "")
    return [
        Expression(
            id=f"{key}/{_number(ref['ref_id'])}/{_number(sentence['sent_id'])}",
            text=_text(sentence["sent"]),
            box=box,
            file=_text(image["file_name"]),
            size=size,
            area=float(annotation.get("area") or wide * high),
            tags={"category": category} if category else {},
        )
        for sentence in ref["sentences"]
    ]
