"""`biaskit bench select`: time every selector alone against the number of visual tokens, beside its authors' algorithm."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from biaskit.cli.console import echo, tell
from biaskit.cli.options import AsJson, Force, Retention, Seed
from biaskit.text import for_json


def select(
    tokens: Annotated[str, typer.Option("--tokens", metavar="N,N", help="Numbers of visual tokens.")] = "576,1152,2880,5760,20000",
    dim: Annotated[int, typer.Option("--dim", min=1, help="Channels of the features.")] = 4096,
    pruner: Annotated[str, typer.Option("--pruner", "-p", metavar="A,B|all", help="Methods whose selector is timed.")] = "all",
    retention: Retention = 0.112,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Samples per call; times are per sample.")] = 1,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Repeats of every measurement, after a warm-up.")] = 5,
    authors_up_to: Annotated[
        int, typer.Option("--authors-up-to", metavar="N", help="Skip the authors' algorithms above this number of tokens.")
    ] = 5760,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads.", show_default="all")] = None,
    device: Annotated[str, typer.Option("--device", help="cpu, or cuda.")] = "cpu",
    seed: Seed = 0,
    cpu_time: Annotated[
        bool,
        typer.Option(
            "--cpu-time",
            help="Count the process's CPU time instead of wall-clock time, for a busy machine; only on a CPU, with one thread.",
        ),
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the results, the table and a figure.", show_default=False)
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Time every selector alone, next to its authors' algorithm (which must keep the same tokens), and show how time grows with N."""
    numbers = [part.strip() for part in tokens.split(",")]
    if not all(number.isascii() and number.isdigit() for number in numbers):
        raise typer.BadParameter(f"{tokens!r} is not a comma list of numbers such as 576,2880", param_hint="--tokens")
    # heavy imports only once the arguments make sense
    import torch

    from biaskit.bench.report import check_free, keeper
    from biaskit.bench.selection import METHODS, bench_selectors
    from biaskit.bench.selection_report import markdown, write

    check_free(out, "selection", force)
    if threads is not None:
        torch.set_num_threads(threads)
    report = bench_selectors(
        [int(number) for number in numbers],
        dim=dim,
        methods=list(METHODS) if pruner == "all" else [part.strip() for part in pruner.split(",")],
        retention=retention,
        repeats=repeats,
        authors_up_to=authors_up_to,
        device=device,
        batch=batch_size,
        seed=seed,
        cpu_time=cpu_time,
        keep=keeper(out, "selection"),
        progress=lambda line: tell(line),
    )
    if out is not None:
        write(report, out)
    echo(for_json(report, 2) if as_json else markdown(report).rstrip())
