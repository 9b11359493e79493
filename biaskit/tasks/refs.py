"""The original files of RefCOCO: `refs(unc).p`, a pickle, beside COCO's `instances.json` (lichengunc/refer).

A pickle is a program. These hold nothing but lists, dicts, texts and numbers, so a reader that refuses everything else reads them all.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from biaskit.errors import TaskError
from biaskit.tasks.expressions import Expression
from biaskit.tasks.rows import read_json

_ALLOWED = {
    ("builtins", "set"): set, ("builtins", "frozenset"): frozenset,
    ("__builtin__", "set"): set, ("__builtin__", "frozenset"): frozenset,
}  # fmt: skip


class _Restricted(pickle.Unpickler):
    """Builds containers, texts and numbers; any other name that a pickle asks for is refused before anything of it runs."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to objects outside of itself")


def read_plain_pickle(path: Path) -> Any:
    """Return what a pickle of plain containers, texts and numbers holds; nothing in it is ever executed.

    Raises:
        TaskError: it is damaged, or asks for anything else.
    """
    hint = "refs(unc).p holds lists, dicts, texts and numbers only: download it again from where it was published"
    try:
        return _Restricted(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except OSError as error:
        raise TaskError(f"cannot read {str(path)!r}: {error}", "give the directory that holds refs(unc).p") from error
    except Exception as error:  # a hostile pickle fails in every way there is
        raise TaskError(f"{str(path)!r} is refused: {error or type(error).__name__}", hint) from error


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
        boxes = {one["id"]: one for one in coco["annotations"]}
        images = {one["id"]: one for one in coco["images"]}
        names = {one["id"]: one["name"] for one in coco.get("categories", ())}
    except (KeyError, TypeError) as error:
        raise TaskError(f"{str(instances)!r} is no instances.json: {error!r}", "give COCO's instances.json beside the refs") from error
    try:
        chosen = [ref for ref in found if _in_split(ref["split"], split)]
        if not chosen:
            raise TaskError(f"{str(refs)!r} has no split {split!r}", f"it has {', '.join(sorted({ref['split'] for ref in found}))}")
        return [one for ref in chosen for one in _expressions(ref, boxes[ref["ann_id"]], images[ref["image_id"]], names, key)]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise TaskError(f"{str(refs)!r} and {str(instances)!r} do not match: {error!r}", "take both from the same release") from error


def _in_split(of_ref: str, split: str) -> bool:
    """REFER's rule: testA also holds the refs of `testAB`; test those of every test part."""
    if split in ("testA", "testB", "testC"):
        return of_ref.startswith("test") and split[-1] in of_ref[4:]
    return "test" in of_ref if split == "test" else of_ref == split


def _expressions(ref: dict[str, Any], annotation: Any, image: Any, names: dict[Any, str], key: str) -> Sequence[Expression]:
    x, y, wide, high = (float(value) for value in annotation["bbox"])
    size = (int(image["height"]), int(image["width"]))
    category = names.get(annotation.get("category_id"), "")
    return [
        Expression(
            id=f"{key}/{ref['ref_id']}/{sentence['sent_id']}",
            text=str(sentence["sent"]),
            box=(x, y, x + wide, y + high),
            file=str(image["file_name"]),
            size=size,
            area=float(annotation.get("area") or wide * high),
            tags={"category": category} if category else {},
        )
        for sentence in ref["sentences"]
    ]
