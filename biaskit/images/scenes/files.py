"""Write scenes to disk in the formats of COCO, RefCOCO and POPE.

DIR/val2017/*.png                         the images
DIR/annotations/instances_val2017.json    things with box, outline and attributes; the categories are the shapes
DIR/referring_expressions.json            phrases that fit one thing each, with its box
DIR/presence.jsonl                        one question a line, as POPE writes them: half "yes"; every "no" recombines what the scene has
DIR/attributes.jsonl                      one question a line: what colour, what shape
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from biaskit.errors import SourceError
from biaskit.files import write_file
from biaskit.images.scenes.draw import COLOUR_NAMES, EDGE, SHAPES, SIZES, Thing
from biaskit.images.scenes.held_out import question_about
from biaskit.images.scenes.questions import USES, matching, phrase_of
from biaskit.images.scenes.source import SceneSource


def write_scenes(
    source: SceneSource, out: Path, *, split: str = "val2017", force: bool = False, report: Callable[[int], None] | None = None
) -> Path:
    """Write images, annotations and questions; return the annotation file.

    Args:
        source: the scenes. out: directory. split: name of image directory and annotation file.
        force: write into a directory that has files. report: called with the number of scenes done.

    Raises:
        SourceError: `out` has files and `force` is not given, or it is not a directory.
    """
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not force)):
        raise SourceError(f"{str(out)!r} exists and is not empty", "give a new directory, or overwrite with --force")
    folder, annotations = out / split, out / "annotations"
    for index in range(len(source)):
        write_file(folder / file_name(index), source.open(index), sync=False)
        if report is not None:
            report(index + 1)
    target = annotations / f"instances_{split}.json"
    _write(out / "referring_expressions.json", json.dumps(list(_expressions(source)), indent=1))
    for task, name in (("presence", "presence.jsonl"), ("attribute", "attributes.jsonl")):
        _write(out / name, "\n".join(json.dumps(row) for row in _asked(source, task)))
    _write(target, json.dumps(instances(source)))  # last: a directory with annotations is complete
    return target


def file_name(index: int) -> str:
    """Return a scene's file name: its image id, as COCO pads it."""
    return f"{index + 1:012d}.png"


def instances(source: SceneSource) -> dict[str, Any]:
    """Return the annotations as COCO writes them, with `colour` and `size` besides. Image i + 1 is scene i."""
    images, things = [], []
    for index in range(len(source)):
        images.append({"id": index + 1, "file_name": file_name(index), "width": EDGE, "height": EDGE})
        things += [_annotation(thing, index, row) for row, thing in enumerate(source.things(index))]
    description = f"biaskit scenes: placement {source.placement}, seed {source.seed}, {source.extent(0)}"
    categories = [{"id": number, "name": shape, "supercategory": "shape"} for number, shape in enumerate(SHAPES, 1)]
    return {"info": {"description": description}, "licenses": [], "images": images, "annotations": things, "categories": categories}


def _number(index: int, row: int) -> int:
    return (index + 1) * 100 + row


def _corner_box(thing: Thing) -> list[float]:
    """Return [x, y, width, height], the way COCO writes boxes."""
    x1, y1, x2, y2 = thing.box
    return [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)]


def _annotation(thing: Thing, index: int, row: int) -> dict[str, Any]:
    outline = thing.outline
    turned = [*outline[1:], outline[0]]
    area = abs(sum(x * v - u * y for (x, y), (u, v) in zip(outline, turned, strict=True))) / 2
    return {
        "id": _number(index, row), "image_id": index + 1, "category_id": thing.shape + 1, "bbox": _corner_box(thing),
        "area": round(area, 2), "segmentation": [[round(value, 2) for point in outline for value in point]], "iscrowd": 0,
        "colour": COLOUR_NAMES[thing.colour], "size": SIZES[thing.size],
    }  # fmt: skip


def _expressions(source: SceneSource) -> Iterator[dict[str, Any]]:
    """Yield one entry per thing: every phrase that fits it alone, the longest first."""
    for index in range(len(source)):
        things = source.things(index)
        for row, thing in enumerate(things):
            phrases = [phrase_of(thing.key, use) for use in USES if len(matching(things, thing.key, use)) == 1]
            number = _number(index, row)
            yield {
                "ref_id": number, "ann_id": number, "image_id": index + 1, "file_name": file_name(index), "category_id": thing.shape + 1,
                "bbox": _corner_box(thing), "sentences": [{"sent": phrase} for phrase in phrases],
            }  # fmt: skip


def _asked(source: SceneSource, task: str) -> Iterator[dict[str, Any]]:
    """Yield the held-out question of a task about every scene; an empty scene has none."""
    for index in range(len(source)):
        things = source.things(index)
        if things:
            question = question_about(things, task, source.seed, index)
            row = {"question_id": index + 1, "image": file_name(index), "image_id": index + 1, "text": question.text}
            yield {**row, "label" if task == "presence" else "answer": question.answer}


def _write(path: Path, text: str) -> None:
    write_file(path, text + "\n")
