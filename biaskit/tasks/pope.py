"""POPE: is an object in the image? Half of the questions are about absent objects, chosen in three ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biaskit.errors import TaskError
from biaskit.files import existing
from biaskit.registry import did_you_mean
from biaskit.tasks import tasks
from biaskit.tasks.base import Opening, Seen, Task
from biaskit.tasks.conventions import Wording
from biaskit.tasks.pictures import Pictures, decoded
from biaskit.tasks.rows import Rows, distinct, file_of, lacking, pick, word
from biaskit.tasks.tables import open_rows
from biaskit.tasks.yes_no import read_yes, score_yes, summarise_yes

if TYPE_CHECKING:
    from PIL.Image import Image

SUBSETS = ("random", "popular", "adversarial")
_FILES = ("image_source", "file_name", "image")


@dataclass(frozen=True)
class _Question:
    id: str
    text: str
    yes: bool
    file: str
    subset: str
    source: int  # which of the files
    number: int  # which of its rows


@tasks.register("pope")
class POPE(Task):
    """POPE (Polling-based Object Probing Evaluation, arXiv 2305.10355): absent objects are random, popular or likely ones."""

    metric = "correct"
    max_new_tokens = 16
    title = "POPE"
    needs = "coco_pope_random.json, …popular…, …adversarial… (JSON lines), one JSON-lines file, or parquet; images of COCO val2014"
    dataset = "AoiDragon/POPE (output/coco), or lmms-lab/POPE on the hub"
    arguments = "random, popular, adversarial, or nothing for all three"

    def __init__(self, name: str, asked: Sequence[_Question], pictures: Pictures, rows: Sequence[Rows]) -> None:
        self.name, self.asked, self.pictures, self.rows = name, asked, pictures, rows

    @classmethod
    def open(cls, opening: Opening) -> Task:
        """Open one or all subsets.

        Raises:
            TaskError: no data, an unknown subset, or data that is broken.
        """
        wanted = opening.flags[0] if opening.flags else "all"
        if wanted not in (*SUBSETS, "all") or len(opening.flags) > 1 or opening.settings:
            given = ":".join([*opening.flags, *(opening.settings or {})])
            raise TaskError(f"pope has no subset {given!r}", did_you_mean(given, (*SUBSETS, "all")))
        if opening.data is None:
            raise TaskError("pope needs data", f"give --data: {cls.needs}; published as {cls.dataset}")
        asked: list[_Question] = []
        files = _find(opening.data, wanted)
        rows = [open_rows(path) for path in files]
        for source, (path, table) in enumerate(zip(files, rows, strict=True)):
            asked += [one for one in _read(path, table, source) if wanted in (one.subset, "all")]
        if not asked:
            raise TaskError(f"{str(opening.data)!r} has no {wanted} questions", "its rows name their subset in subset or category")
        here = files[0].absolute().parent
        name = "pope" if wanted == "all" else f"pope:{wanted}"
        return cls(name, distinct(asked), Pictures(opening.images, (here, here.parent, here.parent.parent)), rows)

    def __len__(self) -> int:
        """Return the number of questions."""
        return len(self.asked)

    def identify(self, i: int) -> str:
        """Return subset and number of a question."""
        return self.asked[i].id

    def image(self, i: int) -> Image:
        """Return the picture."""
        one = self.asked[i]
        held = self.rows[one.source].picture(one.number)
        return decoded(held, one.file) if held is not None else self.pictures.open(one.file)

    def image_name(self, i: int) -> str:
        """Return the picture's file name."""
        return self.asked[i].file

    def prompt(self, i: int, wording: Wording) -> str:
        """Return the question with the wording's request for yes or no."""
        return wording.ask_yes_no(self.asked[i].text)

    def truth(self, i: int) -> str:
        """Return "yes" or "no"."""
        return "yes" if self.asked[i].yes else "no"

    def score(self, i: int, answer: str, seen: Seen) -> dict[str, float]:
        """Score one answer: see `score_yes`."""
        return score_yes(answer, self.asked[i].yes)

    def tags(self, i: int) -> dict[str, str]:
        """Return the subset, and whether the truth is yes."""
        return {"subset": self.asked[i].subset, "truth": self.truth(i)}

    @classmethod
    def summarise(cls, records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return accuracy (`correct`), F1, precision, recall and yes share."""
        return summarise_yes(records)


def _read(path: Path, rows: Rows, source: int) -> list[_Question]:
    """Return the questions of a file; those that do not name a subset have that of the file's name."""
    named = next((subset for subset in SUBSETS if subset in path.name), "")
    found = []
    for number, row in enumerate(rows):
        subset = str(pick(row, "subset", "category") or named or "unnamed")
        if pick(row, "label", "answer") is None:
            hint = "a file of questions alone has none: give the directory that also holds coco/coco_pope_*.json"
            raise TaskError(f"row {number} of {str(path)!r} has no label or answer", hint)
        label = word(row, number, path, "label", "answer")
        yes = read_yes(label)
        if yes is None:
            raise TaskError(f"row {number} of {str(path)!r}: the label is {label!r}", "labels are yes or no")
        file = file_of(row, number, path, *_FILES)
        if not file:
            raise lacking(row, number, path, *_FILES)
        whole_name = "." in file or file.startswith("base64-")
        name = pick(row, "question_id", "id")
        found.append(
            _Question(
                id=f"pope/{subset}/{name if name is not None else number}",
                text=word(row, number, path, "text", "question"),
                yes=yes,
                file=file if whole_name else f"{file}.jpg",  # the hub names COCO's picture without its suffix
                subset=subset,
                source=source,
                number=number,
            )
        )
    return distinct(found)


def _find(data: Path, wanted: str) -> list[Path]:
    """Return the question files at `data`; those with labels take precedence."""
    if ((there := existing(data)) and there.is_file()) or "*" in data.name:
        return [data]
    subsets = SUBSETS if wanted == "all" else (wanted,)
    if there is None:
        raise TaskError(f"{str(data)[:300]!r} does not exist; looked for coco_pope_{subsets[0]}.json, pope.jsonl", "give the file itself")
    for folder in ("", "coco", "output/coco", "annotations"):
        own = [data / folder / f"coco_pope_{subset}.json" for subset in subsets]
        if all(path.is_file() for path in own):
            return own
        if (data / folder / "pope.jsonl").is_file():
            return [data / folder / "pope.jsonl"]
    for folder in ("data", "Full", ""):
        for pattern in [*(f"{subset}-*.parquet" for subset in subsets), "test-*.parquet"]:
            if any((data / folder).glob(pattern)):
                own = [data / folder / f"{subset}-*.parquet" for subset in subsets]
                return own if pattern != "test-*.parquet" else [data / folder / pattern]
    if (data / "llava_pope_test.jsonl").is_file():  # LLaVA's questions, whose answers lie in coco/
        return [data / "llava_pope_test.jsonl"]
    raise TaskError(f"{str(data)!r} holds none of coco_pope_{subsets[0]}.json, pope.jsonl, test-*.parquet", "give the file itself")
