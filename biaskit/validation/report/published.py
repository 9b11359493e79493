"""The tables of the D2Pruner and IDPruner papers, as data, and the rows that a run can be compared with.

One CSV per table: model, tokens or retention, method, one column per benchmark, the printed average, and a note if the print is wrong or
quotes another paper. `sources.json` has the source of each table, and its names for this toolkit's models and tasks.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

_FIXED = ("model", "tokens", "retention", "method", "average", "note")


@dataclass(frozen=True)
class Row:
    """One row of a published table.

    Attributes:
        table: key in `sources.json`. model: the checkpoint's name there. method: "none" for the unpruned model.
        retention: share kept. tokens: number kept, if the paper gives that. values: benchmark → printed number.
        average: printed mean over benchmarks of score / unpruned score, in percent. note: on faults of the row.
    """

    table: str
    model: str
    method: str
    retention: float
    tokens: int | None
    values: Mapping[str, float]
    average: float | None
    note: str


@cache
def sources() -> Mapping[str, Any]:
    """Return `sources.json`: tables, models and tasks."""
    found: Mapping[str, Any] = json.loads((files(__package__) / "published" / "sources.json").read_text(encoding="utf-8"))
    return found


@cache
def rows() -> tuple[Row, ...]:
    """Return every row of every table, in print order."""
    found = []
    for table in sources()["tables"]:
        text = (files(__package__) / "published" / f"{table}.csv").read_text(encoding="utf-8")
        for line in csv.DictReader(text.splitlines()):
            values = {name: float(value) for name, value in line.items() if name not in _FIXED and value}
            found.append(
                Row(
                    table=table,
                    model=line["model"],
                    method=line["method"],
                    retention=float(line["retention"]),
                    tokens=int(line["tokens"]) if line["tokens"] else None,
                    values=values,
                    average=float(line["average"]) if line.get("average") else None,
                    note=line["note"],
                )
            )
    return tuple(found)


def recomputed_average(row: Row) -> float | None:
    """Return 100 × the mean over benchmarks of the row / its table's unpruned row, without missing cells; None without that row."""
    base = next((other for other in rows() if (other.table, other.model, other.method) == (row.table, row.model, "none")), None)
    if base is None or not row.values:
        return None
    return 100 * sum(value / base.values[name] for name, value in row.values.items()) / len(row.values)


def model_key(name: str) -> str | None:
    """Return the tables' name of a model, given its short name or hub id; None for a model they do not have.

    >>> model_key("llava-hf/llava-1.5-7b-hf")
    'llava-1.5-7b'
    """
    for key, entry in sources()["models"].items():
        if name.lower() in (key, *(other.lower() for other in entry["names"])):
            return str(key)
    return None


def benchmark(task: str) -> str | None:
    """Return the tables' name of a task, such as "refcoco:testA" (without a split: val); None for a task they do not have.

    >>> benchmark("refcoco:testA"), benchmark("pope")
    ('RefCOCO testA', 'POPE')
    """
    known: Mapping[str, str] = sources()["tasks"]
    words = [word for word in task.split(":") if "=" not in word]
    if "split_by=google" in task:
        return None  # the papers' splits of RefCOCO are UNC's, of RefCOCOg UMD's
    if not words or words[0] == "pope":
        return known["pope"] if words else None
    for name in (":".join(words), f"{words[0]}:val" if len(words) == 1 else ""):
        if name in known:
            return known[name]
    wanted = {_plain(word) for word in words}
    names = dict.fromkeys(name for row in rows() if sources()["tables"][row.table]["kind"] == "scores" for name in row.values)
    return next((name for name in names if _plain(name) in wanted), None)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def published(model: str | None = None, task: str | None = None) -> list[Row]:
    """Return the rows of a model and a task, each by its name here or in the tables; all by default."""
    key = None if model is None else model_key(model) or model.lower()
    name = None if task is None else benchmark(task) or task
    return [row for row in rows() if key in (None, row.model) and (name is None or name in row.values)]


def same_method(ours: str, theirs: str) -> bool:
    """Return True if a label of ours is the method that a table names: fastv, d2pruner with its prior, …; not with swept settings.

    >>> same_method("d2pruner+prior", "D2Pruner"), same_method("fastv@k=3", "FastV")
    (True, False)
    """
    plain = theirs.lower().replace("-", "")
    if plain == "d2pruner":
        return ours in ("d2pruner", "d2pruner+prior")
    return ours == {"none": "none", "pdrop": "pyramiddrop", "llavaprumerge": "prumerge"}.get(plain, plain)


def table_title(key: str) -> str:
    """Return paper and table, such as "D2Pruner, Table 3".

    >>> table_title(rows()[0].table)
    'D2Pruner, Table 1'
    """
    entry: Mapping[str, Any] = sources()["tables"][key]
    return f"{entry['paper']}, {entry['table']}"


def benchmarks(found: Sequence[Row]) -> list[str]:
    """Return the benchmarks of some rows, in print order."""
    return list(dict.fromkeys(name for row in found for name in row.values))
