"""`biaskit bench select`: time every selector alone against the number of visual tokens, beside its authors' algorithm."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def select(
    sizes: Annotated[str, typer.Option("--sizes", metavar="N,N", help="Numbers of visual tokens.")] = "576,1152,2880,5760,20000",
    dim: Annotated[int, typer.Option("--dim", min=1, help="Channels of the features.")] = 4096,
    methods: Annotated[str, typer.Option("--methods", metavar="A,B|all", help="Selectors.")] = "all",
    retention: Annotated[float, typer.Option("--retention", help="Share of visual tokens kept.")] = 0.112,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Samples selected from together; times are a sample's.")] = 1,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Of every measurement, after a warm-up.")] = 5,
    authors_up_to: Annotated[
        int, typer.Option("--authors-up-to", metavar="N", help="Leave the authors' algorithms out above this size.")
    ] = 5760,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Of the CPU.", show_default="all")] = None,
    device: Annotated[str, typer.Option("--device", help="cpu, or cuda.")] = "cpu",
    seed: Annotated[int, typer.Option("--seed", help="Of the made-up features.")] = 0,
    cpu_time: Annotated[
        bool,
        typer.Option("--cpu-time", help="On a CPU with one thread: count the process's own time, for machines that are busy otherwise."),
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the results, the table and a figure.", show_default=False)] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing results.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time every selector alone, beside its authors' algorithm, which must keep the same tokens, and how time grows with N."""
    numbers = [part.strip() for part in sizes.split(",")]
    if not all(number.isascii() and number.isdigit() for number in numbers):
        raise typer.BadParameter(f"{sizes!r} is not a comma list of numbers such as 576,2880", param_hint="--sizes")
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
        methods=list(METHODS) if methods == "all" else [part.strip() for part in methods.split(",")],
        retention=retention,
        repeats=repeats,
        authors_up_to=authors_up_to,
        device=device,
        batch=batch,
        seed=seed,
        cpu_time=cpu_time,
        keep=keeper(out, "selection"),
        progress=lambda line: print(line, file=sys.stderr),
    )
    if out is not None:
        write(report, out)
    typer.echo(json.dumps(report, indent=2, ensure_ascii=False) if as_json else markdown(report).rstrip())
