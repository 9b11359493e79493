"""`biaskit calibrate`: from images and a model to a prior on disk."""

from __future__ import annotations

import os
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from biaskit.cli.checkpoint import Checkpoint, WordingFile, with_checkpoint
from biaskit.cli.console import echo, echo_json, say
from biaskit.cli.options import (
    DATA,
    RESULT,
    RUNNING,
    AsJson,
    BatchSize,
    Data,
    Force,
    Layers,
    Model,
    Seed,
    Workers,
    read_layers_option,
)

if TYPE_CHECKING:
    from biaskit.families.checkpoints.load import Loaded
    from biaskit.prior.value import Prior
    from biaskit.pruners.schedule import Schedule


@with_checkpoint
def calibrate(
    *,
    model: Model,
    data: Data = "coco",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            rich_help_panel=RESULT,
            help="File for the prior. (default: priors/MODEL.safetensors, which every command then accepts as MODEL; "
            "with --schedule MODEL-schedule.safetensors)",
            show_default=False,
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples",
            "-n",
            min=1,
            rich_help_panel=DATA,
            help="Number of images. (default: 1000, or 66 with --schedule; fewer if the source has fewer)",
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt",
            rich_help_panel=DATA,
            help="Text, a file with one prompt per line, or task:NAME (task:refcoco, task:scenes-where, …); may be repeated. Images take "
            'the prompts in turn. (default: "Please describe the provided image.")',
        ),
    ] = None,
    layers: Layers = None,
    rows: Annotated[
        Literal["last", "question", "null"],
        typer.Option(
            "--rows",
            rich_help_panel=DATA,
            help="Whose attention is averaged: the last prompt token's, the mean of the question (the text after the image), or the null "
            "row (the first token after the image). Methods read the same with rows=NAME.",
        ),
    ] = "last",
    heads: Annotated[bool, typer.Option("--heads", rich_help_panel=RESULT, help="Also store the mean of each head.")] = False,
    schedule: Annotated[
        bool,
        typer.Option(
            "--schedule", rich_help_panel=RESULT, help="Calibrate FitPrune's schedule, for fitprune@schedule=FILE, instead of a prior."
        ),
    ] = False,
    seed: Seed = 0,
    coco_root: Annotated[
        Path | None,
        typer.Option(rich_help_panel=DATA, help="Local COCO: annotations/ and val2017/ or val2017.zip. (default: $BIASKIT_COCO)"),
    ] = None,
    split: Annotated[str, typer.Option(rich_help_panel=DATA, help="Which part of COCO.")] = "val2017",
    checkpoint: Checkpoint,
    wording: WordingFile = None,
    batch_size: BatchSize = None,
    workers: Workers = None,
    max_skips: Annotated[
        int | None,
        typer.Option(
            min=0, rich_help_panel=RUNNING, help="Stop with an error after this many unusable images. (default: n/4, at least 10)"
        ),
    ] = None,
    save_every: Annotated[
        float, typer.Option(min=0.0, rich_help_panel=RUNNING, help="Seconds between saves of the unfinished run.")
    ] = 10.0,
    restart: Annotated[bool, typer.Option("--restart", rich_help_panel=RESULT, help="Discard an unfinished run and start over.")] = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Average the last prompt token's attention (or that of --rows) over many images, and store it as a prior.

    With --schedule it calibrates FitPrune's schedule instead.

    It can be stopped at any moment: the same command resumes it, with any number of processes; once it is finished, the command says so.
    Under torchrun the images are divided among the processes, and the prior is byte for byte the same:
    torchrun --standalone --nproc_per_node 8 -m biaskit calibrate …
    """
    from biaskit.families.checkpoints.catalog import resolve
    from biaskit.files import check_writable

    if schedule:
        _check_schedule(heads or layers is not None or rows != "last")
    place = resolve(model)
    target = out or _target(model, place, schedule)
    check_writable(target)
    partial = target.with_name(f"{target.name}.partial")
    finished = target.exists() and not force
    if finished and not schedule:
        from biaskit.calibration.settings import finished_prior

        finished_prior(target, place.name)  # raises for a prior of another model before anything large is loaded
    wanted = read_layers_option(layers)

    from biaskit.calibration.prompts import read_prompts

    read_prompts(prompt or [])  # raises for unreadable prompts before anything is loaded

    from biaskit.images import open_source

    source = open_source(data, coco_root=coco_root, split=split, n=samples, seed=seed)
    say(f"data {data}: {len(source)} images")

    from biaskit.calibration.run import calibrate as run
    from biaskit.calibration.schedule import calibrate_schedule

    loaded = checkpoint.load(model, layers=wanted, wording=wording)
    if list(target.parent.glob(f"{escape(partial.name)}*")) and not restart and not finished:
        say(f"resuming from {partial}")
    shared: dict[str, Any] = {
        "out": target, "progress": True, "samples": samples, "prompts": prompt or [], "seed": seed, "batch_size": batch_size,
        "workers": workers, "max_skips": max_skips, "save_every": save_every, "force": force, "restart": restart,
    }  # fmt: skip
    try:
        if schedule:
            _tell_schedule(calibrate_schedule(loaded, source, **shared), target, loaded, as_json)
            return
        prior = run(loaded, source, layers=wanted, rows=rows, per_head=heads, **shared)
    except KeyboardInterrupt:
        say(f"stopped; nothing is lost: the same command resumes from {partial}")
        raise typer.Exit(130) from None
    if finished:
        say(f"{target} is finished: it was made with these settings; --force makes it again")
    _summary(prior, target, loaded, as_json)


def _check_schedule(more: bool) -> None:
    from biaskit.errors import BiaskitError

    if more:
        raise BiaskitError("--schedule reads every layer, the question's rows, and the largest head", "drop --layers, --rows and --heads")


def _target(model: str, place: Any, schedule: bool) -> Path:
    """The default path of the result."""
    from biaskit.prior.store import place_of

    short = model if not place.local and "/" not in model else place.name.split("/")[-1]
    return Path(f"{short}-schedule.safetensors") if schedule else place_of(short)


def _summary(prior: Prior, target: Path, loaded: Loaded, as_json: bool) -> None:
    from biaskit.prior.bias.report import report

    if os.environ.get("RANK", "0") != "0":
        return
    found = report(prior)
    if as_json:
        facts = {"prior": str(target), "n_images": prior.n_images, "n_skipped": int(prior.meta["n_skipped"]), "model": loaded.name}
        echo_json({**facts, "bias": found.to_json()})
        return
    echo(f"{target}: {prior.n_images} images, {prior.meta['n_skipped']} skipped")
    for layer in found.layers:
        echo(f"  layer {layer.layer} (K={layer.layer + 1}), {layer.plane}: {layer.verdict}. {layer.why}")
    echo(f"next: biaskit heatmap {target}")


def _tell_schedule(schedule: Schedule, target: Path, loaded: Loaded, as_json: bool) -> None:
    from biaskit.errors import BiaskitError
    from biaskit.pruners.schedule import ALPHAS

    if os.environ.get("RANK", "0") != "0":
        return
    rows = []
    for saving in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        try:
            at = schedule.for_saving(saving)
        except BiaskitError:
            break
        counts = schedule.counts(at, round(schedule.n_tokens))
        mean = (round(schedule.n_tokens) + sum(counts[:-1])) / schedule.layers
        rows.append({"saving": saving, "alpha": ALPHAS[at], "layer_mean": mean, "last_layer_share": schedule.left(at)})
    images, skipped = int(schedule.meta["n_images"]), int(schedule.meta["n_skipped"])
    if as_json:
        facts = {"schedule": str(target), "n_images": images, "n_skipped": skipped, "model": loaded.name, "n_tokens": schedule.n_tokens}
        echo_json({**facts, "savings": rows})
        return
    echo(f"{target}: {images} images, {skipped} skipped, {schedule.n_tokens:.4g} visual tokens an image")
    for row in rows:
        echo(
            f"  saving {row['saving']:.0%}: α = {row['alpha']:.4f}, layer mean {row['layer_mean']:.1f} tokens, "
            f"{row['last_layer_share']:.1%} in the last layer"
        )
    echo(f"next: biaskit validate --pruner fitprune@schedule={target} …")
