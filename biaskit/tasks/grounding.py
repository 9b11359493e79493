"""RefCOCO, RefCOCO+ and RefCOCOg: find what an expression describes. Where bias bites, so scores break down by size and place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from biaskit.errors import TaskError
from biaskit.registry import did_you_mean
from biaskit.tasks import tasks
from biaskit.tasks.base import Opening, Part, Seen, Task
from biaskit.tasks.box_scores import place_tags, score_box, size_tag
from biaskit.tasks.boxes import check_units
from biaskit.tasks.conventions import Wording
from biaskit.tasks.expressions import Expression, read_expressions
from biaskit.tasks.pictures import HINT, Pictures, decoded
from biaskit.tasks.refs import read_refs
from biaskit.tasks.rows import Rows

if TYPE_CHECKING:
    from PIL.Image import Image


class Grounding(Task):
    """One box per expression.

    Args:
        name: of the task. expressions: the questions. pictures: where their images lie. rows: of the question file, which may hold them.
        convention: how answers write boxes, None for the model's own way.
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
        self.name, self.expressions, self.pictures, self.rows, self.convention = name, expressions, pictures, rows, convention
        self._sizes: dict[int, tuple[int, int]] = {}

    @classmethod
    def open(cls, opening: Opening) -> Task:
        """Open a split from what lies at `data`.

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
        """Return the picture."""
        one = self.expressions[i]
        held = self.rows.picture(one.number) if self.rows is not None else None
        return decoded(held, one.file) if held is not None else self.pictures.open(one.file)

    def image_name(self, i: int) -> str:
        """Return the picture's file name."""
        return self.expressions[i].file

    def prompt(self, i: int, wording: Wording) -> str:
        """Return the family's grounding prompt."""
        return wording.ask_region(self.expressions[i].text)

    def truth(self, i: int) -> list[float]:
        """Return the true box: x1 y1 x2 y2 in pixels."""
        return [float(value) for value in self.expressions[i].box]

    def score(self, i: int, answer: str, seen: Seen) -> dict[str, float]:
        """Score one box: see `score_box`."""
        return score_box(answer, self.expressions[i].box, seen, self.convention)

    def tags(self, i: int) -> dict[str, str]:
        """Return `size`, `row`, `ring`, and what the data says of the object."""
        one = self.expressions[i]
        return {"size": size_tag(one.area), **place_tags(one.box, self._size_of(i)), **one.tags}

    def region(self, i: int) -> Part:
        """Return the true box."""
        x1, y1, x2, y2 = self.expressions[i].box
        rows, cols = self._size_of(i)
        return y1 / rows, x1 / cols, y2 / rows, x2 / cols

    def _size_of(self, i: int) -> tuple[int, int]:
        """Return (rows, cols) of a picture, from the data if it says, else from the picture."""
        if min(self.expressions[i].size) > 0:
            return self.expressions[i].size
        if i not in self._sizes:
            image = self.image(i)
            self._sizes[i] = image.height, image.width
        return self._sizes[i]


def _find(data: Path, key: str, split: str, by: str) -> Path:
    """Return the question file at `data`: the file itself, or one of the published layouts under a directory."""
    if data.is_file() or "*" in data.name:
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
        if path.is_file() or ("*" in path.name and any(path.parent.glob(path.name))):
            return path
    looked = ", ".join(dict.fromkeys(path.name for path in choices))
    what = "has no" if data.is_dir() else "does not exist; looked for"
    raise TaskError(f"{str(data)!r} {what} {looked}", f"give the file itself, or another directory; {HINT.split(' (')[0]} as well")


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
