"""`biaskit validate analyse DIR`: how important, diverse and alike the kept sets of a validation are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from biaskit.cli.console import echo, echo_json, echo_table, tell
from biaskit.cli.options import AsJson, Force

if TYPE_CHECKING:
    from biaskit.validation.selections import Selections

MEASURES = ("importance", "importance_debiased", "hopkins", "nearest_feature", "spacing", "coverage")


def analyse(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Results of `biaskit validate --analyse`.", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the figures. Default: DIR.", show_default=False)] = None,
    task: Annotated[str | None, typer.Option("--task", "-t", help="Only this task.")] = None,
    importance: Annotated[str, typer.Option("--importance", help="importance (raw attention) or importance_debiased.")] = "importance",
    overlap: Annotated[str, typer.Option("--overlap", help="jaccard, or coefficient (of the smaller set).")] = "jaccard",
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Measure kept sets: importance retained, Hopkins statistic, spacing, coverage of the object; draw Pareto plot and overlaps."""
    from biaskit.cli.folder import made
    from biaskit.errors import BiaskitError
    from biaskit.validation.selections import overlap_matrix, pareto, read_selections

    found = read_selections(directory)
    folder = made(out or directory)
    files, notes = [], []
    for name, draw in (
        ("pareto.png", lambda path: pareto(found, path, task=task, importance=importance, force=force)),
        ("overlap.png", lambda path: overlap_matrix(found, path, task=task, measure=overlap, force=force)),
    ):
        path = folder / name
        if path.exists() and not force:
            raise BiaskitError(f"{path} exists", "choose another --out, or overwrite it with --force")
        try:
            draw(path)
        except BiaskitError as error:  # a run may hold the measures without the tokens, or the other way round
            notes.append(f"no {name}: {error.message} ({error.hint})")
        else:
            files.append(str(path))
    points = [point for name in ([task] if task else found.tasks) for point in found.points(name)]
    if not files:
        raise BiaskitError(notes[0], "see `biaskit validate --help`")
    if as_json:
        echo_json(_json(found, points, task, overlap) | {"files": files, "notes": notes})
        return
    _print(found, points)
    tell(*notes)
    echo(*files)


def _json(found: Selections, points: Any, task: str | None, measure: str) -> dict[str, Any]:
    overlaps = []
    for retention in found.retentions:
        names, values, chance = found.overlaps(retention, task, measure)
        cells = [[None if value != value else round(value, 4) for value in row] for row in values.tolist()]  # nan is not JSON
        overlaps.append({"retention": retention, "methods": names, "chance": chance, measure: cells})
    return {"settings": dict(found.settings), "points": [point.to_json() for point in points], "overlaps": overlaps}


def _print(found: Selections, points: Any) -> None:
    shown = [name for name in MEASURES if any(name in point.means for point in points)]
    title = f"mean over questions ± 95 % (Hopkins reference: {found.reference})"
    rows = [
        (p.task, p.cell, p.n, *(f"{p.means[name]:.3f} ± {p.half_widths[name]:.3f}" if name in p.means else "" for name in shown))
        for p in points
    ]
    echo_table(["task", "cell", "n", *shown], rows, title)
