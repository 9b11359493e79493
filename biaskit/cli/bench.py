"""`biaskit bench`: what pruning saves, what calibration costs, and how both grow, measured beside the baseline in one run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from biaskit.cli.bench_select import select
from biaskit.cli.command import App
from biaskit.cli.console import echo, say
from biaskit.cli.options import (
    CHANNELS_LAYERS,
    DATA,
    MODEL,
    RESULT,
    RUNNING,
    WIDTH_HEIGHT,
    AsJson,
    Attention,
    BatchSize,
    Device,
    Dtype,
    Force,
    K,
    Layers,
    Methods,
    Model,
    Retention,
    Retentions,
    Workers,
    read_layers_option,
    read_pair,
)

if TYPE_CHECKING:
    from biaskit.families.checkpoints.load import Loaded

app = App(
    help="""Time pruned prefill and generation of methods × retentions × batch sizes, next to what the FLOPs formulas predict.

    Subcommands compare calibration with output_attentions, time the selectors alone, measure how cost grows, and run all of these.
    What methods would read from files is made up, since it does not change the time: flat priors, an even schedule for FitPrune.
    """
)

RandomWeights = Annotated[
    bool,
    typer.Option(
        "--random-weights",
        rich_help_panel=MODEL,
        help="Build the checkpoint's architecture with random weights: no hub access, no files; the answers mean nothing.",
    ),
]
Shrink = Annotated[
    str,
    typer.Option(
        metavar=f"{CHANNELS_LAYERS}|full|auto", rich_help_panel=MODEL,
        help="With --random-weights: channels and layers of a smaller language model, such as 512x16; full; or auto, which is full on a "
        "GPU and 256x8 on a CPU.",
    ),
]  # fmt: skip
Samples = Annotated[int, typer.Option("--samples", "-n", min=1, rich_help_panel=DATA, help="Images read by biaskit.")]
BatchSizes = Annotated[
    str, typer.Option("--batch-size", metavar="N,N", rich_help_panel=RUNNING, help="Samples per forward pass; each size in turn.")
]
Repeats = Annotated[
    int, typer.Option("--repeats", min=1, rich_help_panel=RUNNING, help="Rounds; each one measures every combination once.")
]
CpuTime = Annotated[
    bool,
    typer.Option(
        "--cpu-time", rich_help_panel=RUNNING,
        help="Count the process's CPU time instead of wall-clock time, for a busy machine; only on a CPU, with one thread.",
    ),
]  # fmt: skip
Out = Annotated[Path | None, typer.Option("--out", "-o", rich_help_panel=RESULT, help="Directory for the results, as JSON and Markdown.")]


@app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    model: Model = "llava-next",
    random_weights: RandomWeights = False,
    shrink: Shrink = "auto",
    pruner: Methods = "none,fastv,d2pruner",
    retention: Retentions = "0.334,0.112",
    k: K = None,
    batch_size: BatchSizes = "1",
    image_size: Annotated[
        str | None,
        typer.Option(
            "--image-size",
            metavar=WIDTH_HEIGHT,
            rich_help_panel=DATA,
            help="Size of the images in pixels. (default: that of the generated images)",
        ),
    ] = None,
    images_per_prompt: Annotated[int, typer.Option("--images-per-prompt", min=1, rich_help_panel=DATA, help="Images per prompt.")] = 1,
    prompt_tokens: Annotated[
        int | None, typer.Option(min=1, rich_help_panel=DATA, help="Text tokens of the prompt. (default: the neutral prompt's)")
    ] = None,
    new_tokens: Annotated[
        int, typer.Option(min=0, rich_help_panel=DATA, help="Tokens generated for the total time; 0 leaves it out.")
    ] = 32,
    repeats: Repeats = 5,
    warmup: Annotated[int, typer.Option(min=1, rich_help_panel=RUNNING, help="Untimed rounds before those.")] = 1,
    device: Device = "auto",
    dtype: Dtype = "auto",
    attention: Attention = "sdpa",
    cpu_time: CpuTime = False,
    out: Out = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Time prefill and generation."""
    if context.invoked_subcommand is not None:
        return
    from biaskit.bench.prefill import Plan, measure
    from biaskit.bench.report import check_free, keeper
    from biaskit.bench.table import NOTE, table
    from biaskit.bench.workload import cells
    from biaskit.validation.ask.arguments import read_shares

    size = None if image_size is None else read_pair(image_size, WIDTH_HEIGHT, "--image-size")[::-1]
    plan = Plan(
        tuple(_numbers(batch_size, int, "--batch-size")), size, images_per_prompt, prompt_tokens, new_tokens, repeats, warmup, cpu_time
    )
    shares = read_shares(retention)
    check_free(out, "prefill", force)
    loaded = _model(model, random_weights, shrink, device, dtype, attention)
    found = cells(loaded, [name.strip() for name in pruner.split(",") if name.strip()], shares, k)
    rows = measure(loaded, found, plan, say, keeper(out, "prefill"))
    _finish("prefill", {"plan": vars(plan), "rows": rows}, f"{table(rows)}\n\n{NOTE}", loaded, out, as_json)


@app.command()
def calibrate(
    model: Model = "llava-1.5",
    random_weights: RandomWeights = False,
    shrink: Shrink = "auto",
    samples: Samples = 64,
    baseline_images: Annotated[int, typer.Option(min=1, rich_help_panel=DATA, help="Images read by the baseline, which is slow.")] = 8,
    layers: Layers = None,
    batch_size: BatchSize = None,
    workers: Workers = None,
    repeats: Repeats = 3,
    device: Device = "auto",
    dtype: Dtype = "auto",
    cpu_time: CpuTime = False,
    out: Out = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Compare calibration with a whole eager forward pass and output_attentions, one image at a time and in batches."""
    from biaskit.bench.calibration_speed import Comparison, compare, table
    from biaskit.bench.report import check_free

    wanted = read_layers_option(layers)
    check_free(out, "calibrate", force)
    loaded = _model(model, random_weights, shrink, device, dtype, "sdpa")
    plan = Comparison(samples, baseline_images, wanted, batch_size, repeats, workers, cpu_time)
    found = compare(loaded, plan, say)
    _finish("calibrate", {"plan": vars(plan), **found}, table(found), loaded, out, as_json)


@app.command()
def grow(
    model: Model = "llava-1.5",
    shrink: Shrink = "128x4",
    pruner: Methods = "none,fastv",
    retention: Retention = 0.1,
    images_per_prompt: Annotated[
        str,
        typer.Option(
            "--images-per-prompt",
            metavar="N,N",
            rich_help_panel=DATA,
            help="Images per prompt, each number in turn; LLaVA-1.5 has 576 visual tokens per image.",
        ),
    ] = "1,2,5,10,18,35",
    batch_size: BatchSizes = "1,2,4,8,16,32",
    repeats: Repeats = 3,
    device: Device = "auto",
    dtype: Dtype = "auto",
    cpu_time: CpuTime = False,
    out: Out = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Show how cost grows with visual tokens and batch size: tables, fitted exponents, and with --out a log–log figure."""
    from biaskit.bench.growth import draw, measure_growth, table
    from biaskit.bench.report import check_free, keeper

    check_free(out, "growth", force)
    loaded = _model(model, True, shrink, device, dtype, "sdpa")
    names = [name.strip() for name in pruner.split(",") if name.strip()]
    counts, batches = _numbers(images_per_prompt, int, "--images-per-prompt"), _numbers(batch_size, int, "--batch-size")
    found = measure_growth(
        loaded,
        names,
        retention,
        images=counts,
        batch_sizes=batches,
        repeats=repeats,
        cpu_time=cpu_time,
        say=say,
        keep=keeper(out, "growth"),
    )
    _finish("growth", found, table(found), loaded, out, as_json)
    if out is not None:
        from biaskit.bench.clock import machine
        from biaskit.bench.report import describe

        draw(found, out / "growth.png", describe(machine(loaded.model.device)))


@app.command("all")
def run_all(
    plan: Annotated[str, typer.Option(help="cpu: a small configuration, a few minutes. gpu: 7B shapes, under ten minutes.")] = "cpu",
    out: Annotated[Path, typer.Option("--out", "-o", help="File for the results, JSON; a .md is written beside it.")] = Path("bench.json"),
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help="Skip the parts that have not started after this many minutes. (default: cpu 40, gpu 9.5)")
    ] = None,
    force: Force = False,
) -> None:
    """Run a plan of benchmarks, each in its own process; if one fails, that is recorded and the others still run."""
    from biaskit.bench.plan import run

    failed = run(plan, out, minutes=minutes, force=force, say=say)
    echo(out)
    if failed:
        raise typer.Exit(1)


app.command("select")(select)


def _model(name: str, random_weights: bool, shrink: str, device: str, dtype: str, attention: str) -> Loaded:

    if not random_weights:
        from biaskit.families.checkpoints.load import load_model

        return load_model(name, device=device, dtype=dtype, attention=attention, say=say)
    from biaskit.families.checkpoints.device import find_device
    from biaskit.families.checkpoints.random_weights import random_model

    chosen = ("full" if find_device(device) != "cpu" else "256x8") if shrink == "auto" else shrink
    if chosen != shrink:
        say(
            f"{name}: "
            + ("full size" if chosen == "full" else f"shrunk to {chosen} channels × layers (no GPU; --shrink full builds it all)")
        )
    smaller = None if chosen == "full" else read_pair(chosen, CHANNELS_LAYERS, "--shrink")
    return random_model(name, device=device, dtype=dtype, attention=attention, shrink=smaller)


def _finish(name: str, found: dict[str, Any], text: str, loaded: Loaded, out: Path | None, as_json: bool) -> None:
    """Print and write a result with everything it depends on."""
    from biaskit.bench.clock import machine
    from biaskit.bench.report import command, describe, dump, write
    from biaskit.families.checkpoints.decoder import decoder_config

    config, where = decoder_config(loaded.model), machine(loaded.model.device)
    facts = {
        "command": command(), "model": loaded.name, "revision": loaded.revision, "dtype": str(loaded.model.dtype).removeprefix("torch."),
        "attention": config._attn_implementation, "layers_of_model": config.num_hidden_layers, "hidden": config.hidden_size,
        "machine": where,
    }  # fmt: skip
    result = {**facts, **found}
    noise = " random weights," if loaded.revision == "random-weights" else ""
    noise += " CPU time instead of the wall clock," if found.get("cpu_time") or found.get("plan", {}).get("cpu_time") else ""
    whole = f"`{command()}`\n\n{loaded.name},{noise} {facts['dtype']}; {describe(where)}.\n\n{text}"
    echo(dump(result) if as_json else whole)
    if out is not None:
        write(out, name, result, whole)


def _numbers(text: str, kind: type, option: str) -> list[Any]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r}: write numbers with commas between them", param_hint=option) from None
