"""`biaskit validate`: tasks × methods × retentions, every answer kept."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from biaskit.cli import complete, validate_analyse
from biaskit.cli.checkpoint import Checkpoint, Generation, WordingFile, generation_of, with_checkpoint
from biaskit.cli.command import App
from biaskit.cli.console import echo, echo_json, echo_table, say
from biaskit.cli.options import (
    DATA,
    METHODS,
    PRUNING,
    RESULT,
    AsJson,
    BatchSize,
    K,
    Retentions,
    Seed,
    SomeModel,
    Workers,
)
from biaskit.cli.validate_report import PublishedAs, published, report

if TYPE_CHECKING:
    from biaskit.prior.value import Prior
    from biaskit.tasks import Task
    from biaskit.validation.ask.methods import Grid, Match
    from biaskit.validation.ask.runner import Validation

app = App(
    help="""Does debiasing help? Ask a model with and without pruning, and keep every answer.

    It can be stopped at any moment: the same command resumes it, with any number of processes. With more tasks, methods, retentions or
    questions it adds to the results. Under torchrun the questions are divided among the processes; the results are byte for byte the same.
    """,
    invoke_without_command=True,
)

app.command("report")(report)
app.command("published")(published)
app.command("analyse")(validate_analyse.analyse)


@app.callback()
@with_checkpoint
def validate(
    *,
    context: typer.Context,
    model: SomeModel = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            "-t",
            rich_help_panel=DATA,
            autocompletion=complete.tasks,
            help="Tasks, comma-separated or repeated: pope:adversarial, …",
        ),
    ] = None,
    pruner: Annotated[
        list[str] | None,
        typer.Option(
            "--pruner",
            "-p",
            rich_help_panel=PRUNING,
            autocompletion=complete.pruners,
            help=f"Methods, comma-separated or repeated: {METHODS}.",
        ),
    ] = None,
    retention: Retentions = "0.5,0.25,0.1",
    match: Annotated[
        Literal["last", "layer-mean"],
        typer.Option(
            rich_help_panel=PRUNING,
            help="What --retention is a share of: the tokens in the last layer, or the mean over layers, so that late methods, "
            "methods with stages and those before the language model cost the same.",
        ),
    ] = "last",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", rich_help_panel=RESULT, help="Results directory; an existing one of the same run is resumed or extended."
        ),
    ] = None,
    k: K = None,
    preset: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=PRUNING, help="Preset of all methods that have it (biaskit pruners show); its K applies to all methods."
        ),
    ] = None,
    prior: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=PRUNING,
            autocompletion=complete.priors,
            help="File or name of a prior, for +prior; NAME=FILE for +NAME; may be repeated.",
        ),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=PRUNING, help="KEY=V1,V2,…: also every method that has the parameter with each value; may be repeated."
        ),
    ] = None,
    ablation: Annotated[
        bool, typer.Option("--ablation", rich_help_panel=PRUNING, help="Also FastV, and D2Pruner's DI, SD and DI+SD (its Figure 4).")
    ] = False,
    questions: Annotated[
        int | None, typer.Option("--questions", min=1, rich_help_panel=DATA, help="Questions of each task. (default: all)")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", "-d", rich_help_panel=DATA, help="Questions: a file or directory; TASK=PATH for one task; may be repeated."),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(rich_help_panel=DATA, help="Directory of the images, where they are not beside the questions."),
    ] = None,
    seed: Seed = 0,
    batch_size: BatchSize = None,
    workers: Workers = None,
    keep_indices: Annotated[
        bool, typer.Option("--keep-indices", rich_help_panel=RESULT, help="Store the kept indices in every record.")
    ] = False,
    analyse: Annotated[
        bool,
        typer.Option(
            "--analyse",
            rich_help_panel=RESULT,
            help="Measure every selection: importance, diversity, coverage; also stores the kept indices.",
        ),
    ] = False,
    checkpoint: Checkpoint,
    wording: WordingFile = None,
    generation: Generation = None,
    published_as: PublishedAs = None,
    force: Annotated[bool, typer.Option("--force", rich_help_panel=RESULT, help="Delete what is in the results directory.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask a model the questions of tasks with every method at every retention, and keep every answer."""
    if context.invoked_subcommand is not None:
        return
    missing = [name for name, value in (("--model", model), ("--task", task), ("--out", out)) if not value]
    if not pruner and not ablation and not missing:
        missing = ["--pruner"]
    if missing or model is None or out is None:
        raise typer.BadParameter("is needed", param_hint=", ".join(missing))

    from biaskit.validation.ask.arguments import words
    from biaskit.validation.report.recognise import check_published_as

    check_published_as(published_as)
    grid = _grid(words(",".join(pruner or [])), retention, k, preset, prior or [], sweep or [], ablation, match)
    decoding = generation_of(generation)
    _, _, config, _ = checkpoint.read(model)
    grid.cells(config)  # raises for methods that cannot work before anything large is loaded
    tasks = _tasks(words(",".join(task or [])), data or [], images or [], questions)

    from biaskit.validation.ask.observe import Analysis
    from biaskit.validation.ask.runner import validate as run

    loaded = checkpoint.load(model, wording=wording)
    try:
        found = run(
            loaded, list(tasks.values()), grid, out=out, progress=True, limit=questions, seed=seed, batch_size=batch_size,
            workers=workers, keep_indices=keep_indices or analyse, observe=Analysis() if analyse else None, force=force,
            generation=decoding, published_as=published_as, command=shlex.join(["biaskit", *sys.argv[1:]]),
        )  # fmt: skip
    except KeyboardInterrupt:
        again = ", without --force," if force else ""
        say(f"stopped; nothing is lost: the same command{again} resumes in {out}")
        raise typer.Exit(130) from None
    _show(found, {name: one.metric for name, one in tasks.items()}, as_json)


def _grid(
    methods: list[str],
    retention: str,
    k: int | None,
    preset: str | None,
    priors: list[str],
    sweeps: list[str],
    ablation: bool,
    match: Match,
) -> Grid:
    from biaskit.prior.store import load_prior
    from biaskit.pruners.notation import read_value
    from biaskit.validation.ask.arguments import named
    from biaskit.validation.ask.methods import Grid, read_retention

    found: dict[str, Prior] = {}
    for text in priors:
        name, path = named(text, "prior")
        if name in found:
            raise typer.BadParameter(f"two priors called {name}: write NAME=FILE", param_hint="--prior")
        found[name] = load_prior(path)
    swept: dict[str, list[Any]] = {}
    for text in sweeps:
        key, equals, values = text.partition("=")
        if not equals or not key or not values:
            raise typer.BadParameter(f"{text!r}: write KEY=V1,V2", param_hint="--sweep")
        swept[key.strip()] = [read_value(value.strip()) for value in values.split(",")]
    shares = [read_retention(share) for share in retention.split(",")]
    return Grid(methods, shares, k, preset, swept, ablation, found, match)


def _tasks(words: list[str], data: list[str], images: list[str], limit: int | None) -> dict[str, Task]:
    """Open the tasks."""
    from biaskit.validation.ask.arguments import named
    from biaskit.validation.ask.plan import opened

    places: list[dict[str, str]] = []
    for given, option in ((data, "--data"), (images, "--images")):
        places.append(dict(named(text, "") for text in given))
        for name in places[-1]:
            if name and not any(name in (word, word.split(":")[0]) for word in words):
                raise typer.BadParameter(f"{name} is not one of the tasks {', '.join(words)}", param_hint=option)
    tasks: dict[str, Task] = {}
    for word in words:
        where = [place.get(word, place.get(word.split(":")[0], place.get(""))) for place in places]
        task = opened(word, limit, where[0], where[1])
        tasks[task.name] = task
    return tasks


def _show(found: Validation, metrics: dict[str, str], as_json: bool) -> None:
    if os.environ.get("RANK", "0") != "0":
        return
    cells = [cell["cell"] for cell in found.manifest["cells"] if any((task, cell["cell"]) in found.scores for task in metrics)]
    if as_json:
        rows = [{"task": task, "cell": cell, "scores": scores} for (task, cell), scores in found.scores.items()]
        echo_json({"out": str(found.directory), "asked": found.asked, "metrics": metrics, "cells": rows})
        return
    rows_of = [[(found.scores.get((task, cell)), metric) for task, metric in metrics.items()] for cell in cells]
    words = [["–" if one is None else f"{100 * one[metric]:.1f} (n = {one['n']:.0f})" for one, metric in row] for row in rows_of]
    echo_table(
        ["method", *(f"{task}, {metric} %" for task, metric in metrics.items())], [[c, *w] for c, w in zip(cells, words, strict=True)]
    )
    echo(f"next: biaskit validate report {found.directory}")
