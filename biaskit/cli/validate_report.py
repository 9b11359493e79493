"""`biaskit validate report` and `biaskit validate published`: the report of a run, and the numbers of the papers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from biaskit.cli.console import echo, echo_json, echo_table, tell
from biaskit.cli.options import AsJson, Force, Seed

if TYPE_CHECKING:
    from biaskit.validation.report.contents import Report
    from biaskit.validation.report.published import Row


PublishedAs = Annotated[
    str | None,
    typer.Option(
        "--published-as",
        help="Hub id of the checkpoint in the papers' tables that the model is a copy of, or none. (default: by its name, or by its "
        "architecture and sizes)",
    ),
]


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a run.", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the report. Default: DIR/report.", show_default=False)] = None,
    formats: Annotated[
        str, typer.Option("--format", metavar="html,md,…", help="What to write: html, md, csv, tex, png, svg, json.")
    ] = "all",
    interval: Annotated[str, typer.Option("--interval", help="Bootstrap intervals: bca or percentile.")] = "bca",
    resamples: Annotated[int, typer.Option(min=100, help="Resamples of the bootstrap.")] = 10_000,
    seed: Seed = 0,
    published_as: PublishedAs = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", "-d", help="Where the questions are, for the pictures of the page; scenes need none.", show_default=False),
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Where their images are, if in another folder.", show_default=False)
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Report a run: tables with intervals and paired tests, figures, and one page of HTML; says whether debiasing helps."""
    from biaskit.validation.report.analyse import Settings
    from biaskit.validation.report.contents import Report
    from biaskit.validation.report.write import FORMATS, check_interval, check_report_out, write_report
    from biaskit.validation.results.read import read_run

    chosen = FORMATS if formats == "all" else tuple(dict.fromkeys(word.strip() for word in formats.split(",") if word.strip()))
    place = out if out is not None else folder / "report"
    settings = Settings(resamples=resamples, flips=resamples, seed=seed, kind=check_interval(interval))
    check_report_out(place, chosen, force)
    found = Report.of(read_run(folder), settings, published_as)
    files = write_report(found, place, chosen, data=data, images=images, force=force)
    if as_json:
        echo_json({"out": str(place), "files": [str(path) for path in files], **found.summary()}, 1)
        return
    _print(found)
    echo(place / "index.html" if "html" in chosen else place)


def _print(found: Report) -> None:
    """Warnings to stderr; the averages (or the scores) and the conclusion to stdout."""
    from biaskit.validation.report.tables import average_table, score_table

    tell(*(f"warning: {warning}" for warning in found.warnings))
    table = average_table(found.average)
    for shown in [table] if table is not None else [score_table(result) for result in found.results]:
        echo_table(shown.head, [[f"{e.text} {e.detail}".strip() for e in row] for row in shown.rows], shown.title)
    echo(found.conclusion.text, found.gate)


def published(
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Only this model: short name, hub id, or as the papers call it.")
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="Only tables with this task or benchmark, such as refcoco:testA or MME.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the tables that the D2Pruner and IDPruner papers print, with what is wrong with them."""
    from biaskit.errors import BiaskitError
    from biaskit.validation.report.published import benchmark, benchmarks, recomputed_average, rows, sources, table_title
    from biaskit.validation.report.published import published as find

    found = find(model, task)
    if not found:
        models, tasks = ", ".join(sources()["models"]), ", ".join(benchmarks(rows()))
        raise BiaskitError(f"no published table has model {model or 'any'} and task {task or 'any'}", f"models: {models}; tasks: {tasks}")
    if as_json:
        listed = [{**vars(row), "source": table_title(row.table), "recomputed_average": recomputed_average(row)} for row in found]
        echo_json({"rows": listed, "tables": sources()["tables"]}, 1)
        return
    only = None if task is None else benchmark(task) or task
    for table in dict.fromkeys(row.table for row in found):
        group = [row for row in found if row.table == table]
        columns = benchmarks(group) if only is None else [only]
        average = any(row.average is not None for row in group)
        head = ["model", "kept", "method", *columns, *(["Avg %", "recomputed"] if average else []), "note"]
        echo_table(head, [_published(row, columns, average, recomputed_average(row)) for row in group], table_title(table))
        if sources()["tables"][table]["note"]:
            echo(sources()["tables"][table]["note"])
        echo("")


def _published(row: Row, columns: list[str], average: bool, recomputed: float | None) -> list[str]:
    kept = f"{row.tokens} tokens" if row.tokens else f"{100 * row.retention:.4g} %"
    values = [f"{row.values[name]:g}" if name in row.values else "—" for name in columns]
    means = ["—" if row.average is None else f"{row.average:g}", "—" if recomputed is None else f"{recomputed:.2f}"] if average else []
    return [row.model, kept, row.method, *values, *means, row.note]
