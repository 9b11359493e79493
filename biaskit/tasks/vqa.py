"""Questions with short answers from a file: VQAv2, GQA, TextVQA, DocVQA, ChartQA, or your own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biaskit.errors import TaskError
from biaskit.files import existing
from biaskit.registry import did_you_mean
from biaskit.tasks import tasks
from biaskit.tasks.answers import METRICS
from biaskit.tasks.base import Opening, Seen, Task
from biaskit.tasks.conventions import Wording
from biaskit.tasks.pictures import Pictures, decoded
from biaskit.tasks.rows import Row, Rows, distinct, file_of, pick, word
from biaskit.tasks.tables import open_rows

if TYPE_CHECKING:
    from PIL.Image import Image

_COLUMNS = "question (or text), image, answer or answers, and optionally question_id, metric, prompt, category"


@dataclass(frozen=True)
class _Question:
    id: str
    text: str
    truths: tuple[str, ...]
    file: str
    metric: str
    prompt: str | None
    tags: Mapping[str, str]


@tasks.register("vqa")
class VQA(Task):
    """Questions with short answers; the score is exact match, VQA accuracy, ANLS, or relaxed accuracy."""

    metric = "correct"
    max_new_tokens = 32
    title = "Visual question answering"
    needs = f"JSON lines (or a JSON list, or parquet) with {_COLUMNS}; images beside it"
    dataset = "your own, or lmms-lab/VQAv2, lmms-lab/textvqa, lmms-lab/DocVQA, lmms-lab/ChartQA … on the hub"
    arguments = "exact, vqa, anls, relaxed; by default what a row says in `metric`, else vqa with four annotators or more, exact with fewer"

    def __init__(self, name: str, asked: Sequence[_Question], pictures: Pictures, rows: Rows) -> None:
        self.name, self.asked, self.pictures, self.rows = name, asked, pictures, rows

    @classmethod
    def open(cls, opening: Opening) -> Task:
        """Open a file of questions.

        Raises:
            TaskError: no data, an unknown metric, or data that is broken.
        """
        metric = opening.flags[0] if opening.flags else ""
        if (metric and metric not in METRICS) or len(opening.flags) > 1 or opening.settings:
            given = ":".join([*opening.flags, *(opening.settings or {})])
            raise TaskError(f"vqa has no metric {given!r}", did_you_mean(given, METRICS))
        if opening.data is None or ((there := existing(opening.data)) and there.is_dir()):
            what = f"{str(opening.data)!r} is a directory" if opening.data else "vqa needs data"
            raise TaskError(what, f"give --data the file of the questions: {cls.needs}")
        rows = open_rows(opening.data)
        asked = [_read(row, number, opening.data, metric) for number, row in enumerate(rows)]
        here = opening.data.absolute().parent
        return cls(f"vqa:{metric}" if metric else "vqa", distinct(asked), Pictures(opening.images, (here, here.parent)), rows)

    def __len__(self) -> int:
        """Return the number of questions."""
        return len(self.asked)

    def identify(self, i: int) -> str:
        """Return the id that the data gives to a question."""
        return self.asked[i].id

    def image(self, i: int) -> Image:
        """Return the picture."""
        held = self.rows.picture(i)
        return decoded(held, self.asked[i].id) if held is not None else self.pictures.open(self.asked[i].file)

    def image_name(self, i: int) -> str:
        """Return the picture's file name."""
        return self.asked[i].file

    def prompt(self, i: int, wording: Wording) -> str:
        """Return the row's own prompt unchanged, else the question with the request for a short answer."""
        own = self.asked[i].prompt
        return own if own is not None else wording.ask_short(self.asked[i].text)

    def truth(self, i: int) -> list[str]:
        """Return the annotators' answers."""
        return list(self.asked[i].truths)

    def score(self, i: int, answer: str, seen: Seen) -> dict[str, float]:
        """Return `correct` (the score by the chosen metric), all four metrics, and `parsed` (the answer is not empty).

        Only the first line of an answer counts.
        """
        one = self.asked[i]
        said = answer.strip().split("\n")[0].strip()
        scores = {name: score(said, one.truths) for name, score in METRICS.items()}
        return {"correct": scores[one.metric], **scores, "parsed": float(bool(said))}

    def tags(self, i: int) -> dict[str, str]:
        """Return the metric, and the category if the row has one."""
        return {"metric": self.asked[i].metric, **self.asked[i].tags}


def _read(row: Row, number: int, path: Path, metric: str) -> _Question:
    truths = _truths(pick(row, "answers", "answer", "label"))
    if not truths:
        raise TaskError(f"row {number} of {str(path)!r} has no answer", f"rows need {_COLUMNS}")
    chosen = metric or str(row.get("metric") or ("vqa" if len(truths) >= 4 else "exact"))
    if chosen not in METRICS:
        raise TaskError(f"row {number} of {str(path)!r} has the unknown metric {chosen!r}", did_you_mean(chosen, METRICS))
    name, kind = pick(row, "question_id", "questionId", "id"), pick(row, "category", "question_type", "type")
    prompt = row.get("prompt")
    return _Question(
        id=f"vqa/{str(name)[:200] if name is not None else number}",
        text=word(row, number, path, "question", "text"),
        truths=truths,
        file=file_of(row, number, path, "file_name", "image_id") or str(number),
        metric=chosen,
        prompt=prompt if isinstance(prompt, str) else None,
        tags={"category": kind} if isinstance(kind, str) else {},
    )


def _truths(found: Any) -> tuple[str, ...]:
    """Return the answers of a cell: a text or number, a list of them, or VQA's list of {"answer": …}."""
    many = found if isinstance(found, list) else [found]
    texts = [one.get("answer") if isinstance(one, dict) else one for one in many]
    return tuple(str(text) for text in texts if isinstance(text, (str, int, float)))
