"""RefCOCO, RefCOCO+ and RefCOCOg: find the object that an expression describes; scores by size and position of the object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from biaskit.errors import TaskError
from biaskit.files import existing
from biaskit.registry import did_you_mean
from biaskit.tasks import tasks
from biaskit.tasks.base import Opening, Part, Seen, Task
from biaskit.tasks.box_scores import place_tags, score_box, size_tag
from biaskit.tasks.boxes import check_units
from biaskit.tasks.conventions import Wording
from biaskit.tasks.expressions import Expression, read_expressions
from biaskit.tasks.frames import Frame, frame_of, inside
from biaskit.tasks.pictures import HINT, Pictures, decoded, measured
from biaskit.tasks.refs import read_refs
from biaskit.tasks.rows import Rows

if TYPE_CHECKING:
    from PIL.Image import Image

    from biaskit.images.decode import Measured


class Grounding(Task):
    """One box per expression.

    Args:
        name: of the task. expressions: the questions. pictures: their images. rows: of the question file, which may contain the images.
        convention: units of answers' boxes, None for the model's own.
    """

    metric = "iou50"
    max_new_tokens = 100
    needs = "refs(unc).p + instances.json, JSON lines, parquet, or COCO-style JSON; images of COCO train2014"
    arguments = "SPLIT, split_by=unc|umd|google, box=xywh|xyxy, coordinates=part|square|thousand|pixels"
    splits: ClassVar[tuple[str, ...]] = ("val", "testA", "testB", "test", "train")
    split_by: ClassVar[str] = "unc"

    def __init__(
        self, name: str, expressions: Sequence[Expression], pictures: Pictures, rows: Rows | None = None, convention: str | None = None
    ) -> None:
        self.name, self.pictures, self.rows, self.convention = name, pictures, rows, convention
        self._measured: dict[str, Measured] = {}
        self.expressions = [self._in_pixels(one) for one in expressions]

    @classmethod
    def open(cls, opening: Opening) -> Task:
        """Open a split of the data at `opening.data`.

        Raises:
            TaskError: no data, an unknown argument, or data that is broken.
        """
        settings = dict(opening.settings or {})
        split = opening.flags[0] if opening.flags else "val"
        if split not in cls.splits or len(opening.flags) > 1:
            hint = did_you_mean(split, cls.splits) if split not in cls.splits else f"write {opening.key}:{split}"
            raise TaskError(f"{opening.key} has no split {':'.join(opening.flags)!r}", hint)
        by, style, convention = settings.pop("split_by", cls.split_by), settings.pop("box", ""), settings.pop("coordinates", None)
        if settings or by not in ("unc", "umd", "google") or style not in ("", "xywh", "xyxy"):
            raise TaskError(
                f"{opening.key} does not know {settings or {'split_by': by, 'box': style}}", f"its arguments are {cls.arguments}"
            )
        if opening.data is None:
            raise TaskError(f"{opening.key} needs data", f"give --data: {cls.needs}; published as {cls.dataset}")
        path = _find(opening.data, opening.key, split, by)
        rows = None
        if path.suffix == ".p":
            expressions = read_refs(path, _instances(path), split, opening.key)
        else:
            expressions, rows = read_expressions(path, opening.key, split, style)
        given = {"split_by": by if by != cls.split_by else "", "coordinates": check_units(convention) if convention else ""}
        name = ":".join([opening.key, split, *(f"{word}={value}" for word, value in given.items() if value)])
        here = path.absolute().parent
        return cls(name, expressions, Pictures(opening.images, (here, here.parent, here.parent.parent)), rows, convention)

    def __len__(self) -> int:
        """Return the number of expressions."""
        return len(self.expressions)

    def identify(self, i: int) -> str:
        """Return the id that the data gives to an expression."""
        return self.expressions[i].id

    def image(self, i: int) -> Image:
        """Return the picture.

        Raises:
            TaskError: it is missing or broken, does not have the size in the data (turned and resized copies are allowed), or does not
                contain the box.
        """
        one = self.expressions[i]
        data = self._read(one)
        picture = decoded(data, one.file)
        header = self._measured[self._key(one)] = measured(data, one.file)  # score, tags and region need not read the file again
        size = picture.height, picture.width
        if min(one.size) > 0:
            if one.size != size:
                self._frame(i, header)
        elif not inside(one.box, size):
            where = f"{one.id}: the box {[round(value, 2) for value in one.box]}"
            hint = "if the data writes it otherwise, add box=xywh or box=xyxy, or give the width and height that it was measured in"
            raise TaskError(f"{where} is not within {one.file}, which has {size[1]}x{size[0]} pixels", hint)
        return picture

    def image_name(self, i: int) -> str:
        """Return the picture's file name."""
        return self.expressions[i].file

    def prompt(self, i: int, wording: Wording) -> str:
        """Return the family's grounding prompt."""
        return wording.ask_region(self.expressions[i].text)

    def truth(self, i: int) -> list[float]:
        """Return the true box: x1 y1 x2 y2 in pixels of the size in the data, also if the file on disk has another size."""
        return [float(value) for value in self.expressions[i].box]

    def score(self, i: int, answer: str, seen: Seen) -> dict[str, float]:
        """Score one box: see `score_box`. If the picture is a resized or turned copy, the true box is transformed to it.

        Raises:
            TaskError: the picture is not the one of the data, nor a resized or turned copy.
        """
        one = self.expressions[i]
        box = one.box
        if min(one.size) > 0 and one.size != seen.size:
            # what was seen is this picture upright, or that resized once more: the frame's own sizes do not matter
            frame = replace(self._frame(i, self._measure(one)), picture=seen.size)
            box = frame.place(box)
        return score_box(answer, box, seen, self.convention)

    def tags(self, i: int) -> dict[str, str]:
        """Return `size`, `row`, `ring`, and the data's own tags of the object.

        Also `picture`, if the picture is a resized or turned copy of the annotated one, and `box`, if the data has the box in fractions of
        1, or has no size to distinguish pixels from thousandths: a report counts them.
        """
        one = self.expressions[i]
        frame = self._known_frame(i)
        unit = "in fractions of 1 in the data" if one.fractions else "" if min(one.size) > 0 else "taken as pixels: the data gives no size"
        told = {"picture": frame.how, "box": unit}
        where = place_tags(frame.place(one.box), frame.picture)
        return {"size": size_tag(one.area), **where, **one.tags, **{kind: value for kind, value in told.items() if value}}

    def region(self, i: int) -> Part:
        """Return the true box, in fractions of the upright picture."""
        frame = self._known_frame(i)
        x1, y1, x2, y2 = frame.place(self.expressions[i].box)
        rows, cols = frame.picture
        return y1 / rows, x1 / cols, y2 / rows, x2 / cols

    def _read(self, one: Expression) -> bytes:
        held = self.rows.picture(one.number) if self.rows is not None else None
        return held if held is not None else self.pictures.read(one.file)

    def _key(self, one: Expression) -> str:
        return f"{one.number} {one.file}" if self.rows is not None else one.file

    def _measure(self, one: Expression) -> Measured:
        key = self._key(one)
        if key not in self._measured:
            self._measured[key] = measured(self._read(one), one.file)
        return self._measured[key]

    def _known_frame(self, i: int) -> Frame:
        """Return the frame of a picture; before the picture is read, that of the data, if the data has its size."""
        one = self.expressions[i]
        try:
            picture = self._measure(one)
        except TaskError:
            if min(one.size) > 0:
                return Frame(one.size, one.size)
            raise
        return self._frame(i, picture)

    def _frame(self, i: int, picture: Measured) -> Frame:
        """Return the transformation from pixels of the data to pixels of the picture.

        Raises:
            TaskError: it is not the same picture.
        """
        one = self.expressions[i]
        upright = picture.size[::-1]
        frame = frame_of(one.size, picture) if min(one.size) > 0 else Frame(upright, upright)
        if frame is None:
            sizes = f"{one.file} has {upright[1]}x{upright[0]} pixels, but the data says {one.size[1]}x{one.size[0]}"
            raise TaskError(f"{one.id}: {sizes}", "give the pictures that were annotated: a copy may be resized, but not cropped or padded")
        return frame

    def _in_pixels(self, one: Expression) -> Expression:
        """Convert a box in fractions of 1 to pixels, by the size of the picture, if the data has no size."""
        if not one.fractions or min(one.size) > 0:
            return one
        cols, rows = self._measure(one).size
        x1, y1, x2, y2 = one.box
        box = x1 * cols, y1 * rows, x2 * cols, y2 * rows
        return replace(one, box=box, size=(rows, cols), area=one.area if one.area > 1 else (box[2] - box[0]) * (box[3] - box[1]))


def _find(data: Path, key: str, split: str, by: str) -> Path:
    """Return the question file at `data`: the file itself, or one of the published layouts under a directory."""
    there = existing(data)
    if (there and there.is_file()) or "*" in data.name:
        return data
    plain = {"refcoco+": "refcocoplus"}.get(key, key)
    hub = {"refcoco": "RefCOCO", "refcoco+": "RefCOCOplus", "refcocog": "RefCOCOg"}[key]
    parts = (split, "validation") if split == "val" else (split,)
    choices = [
        *(data / folder / f"refs({by}).p" for folder in ("", key, plain)),
        *(data / folder / f"{key}_{split}.jsonl" for folder in ("", key, plain)),
        *(data / folder / f"{split}.jsonl" for folder in (key, plain, "")),
        *(data / folder / f"{part}-*.parquet" for folder in ("data", f"{hub}/data", "") for part in parts),
        *(data / folder / f"{stem}.json" for folder in ("", "annotations") for stem in (f"{key}_{split}", "referring_expressions")),
    ]
    for path in choices:
        if ((found := existing(path)) and found.is_file()) or (
            "*" in path.name and existing(path.parent) and any(path.parent.glob(path.name))
        ):
            return path
    looked = ", ".join(dict.fromkeys(path.name for path in choices))
    what = "has no" if there else "does not exist; looked for"
    raise TaskError(f"{str(data)[:300]!r} {what} {looked}", f"give the file itself, or another directory; {HINT.split(' (')[0]} as well")


def _instances(refs: Path) -> Path:
    for path in (refs.parent / "instances.json", refs.parent.parent / "instances.json"):
        if path.is_file():
            return path
    raise TaskError(f"there is no instances.json beside {str(refs)!r}", "it is part of the same release: put it there")


@tasks.register("refcoco")
class RefCOCO(Grounding):
    """RefCOCO: short expressions from a two-player game; location words allowed. testA has people, testB everything else."""

    title, dataset = "RefCOCO", "lichengunc/refer (refcoco), or lmms-lab/RefCOCO on the hub"


@tasks.register("refcoco+")
class RefCOCOPlus(Grounding):
    """RefCOCO+: as RefCOCO, but location words were forbidden."""

    title, dataset = "RefCOCO+", "lichengunc/refer (refcoco+), or lmms-lab/RefCOCOplus on the hub"


@tasks.register("refcocog")
class RefCOCOg(Grounding):
    """RefCOCOg: longer expressions, written without a game. Split by umd (val, test), or by google (train, val)."""

    title, dataset = "RefCOCOg", "lichengunc/refer (refcocog), or lmms-lab/RefCOCOg on the hub"
    splits = ("val", "test", "train")
    split_by = "umd"
