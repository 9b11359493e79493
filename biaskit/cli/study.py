"""`biaskit study`: how far priors carry over, how many images they need, what pictures without content are worth."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from biaskit.cli import complete
from biaskit.cli.checkpoint import Checkpoint, WordingFile, with_checkpoint
from biaskit.cli.command import App
from biaskit.cli.console import echo, echo_table
from biaskit.cli.options import (
    DATA,
    MODEL,
    PRUNING,
    RESULT,
    SOURCES,
    WIDTH_HEIGHT,
    AllLayers,
    AsJson,
    BatchSize,
    Data,
    Model,
    Retention,
    Seed,
    read_layers_option,
    read_pair,
)
from biaskit.text import for_json

if TYPE_CHECKING:
    from biaskit.families.checkpoints.load import Loaded
    from biaskit.validation.studies.conditions import Condition
    from biaskit.validation.studies.transfer import Asking, Study

app = App(help="Study priors: transfer, number of images, pictures without content.", no_args_is_help=True)

Samples = Annotated[int, typer.Option("--samples", "-n", min=8, rich_help_panel=DATA, help="Images of each prior.")]
Out = Annotated[
    Path,
    typer.Option(
        "--out",
        "-o",
        rich_help_panel=RESULT,
        help="Folder for priors, answers, study.json and study.png; an interrupted study is resumed from it.",
    ),
]
Tasks = Annotated[
    list[str] | None,
    typer.Option(
        "--task",
        "-t",
        rich_help_panel=DATA,
        autocompletion=complete.tasks,
        help="Also test the priors on this task (biaskit tasks list); may be repeated.",
    ),
]
Questions = Annotated[int, typer.Option("--questions", min=2, rich_help_panel=DATA, help="Questions of each task.")]
PrunerName = Annotated[str, typer.Option("--pruner", "-p", rich_help_panel=PRUNING, help="The method that the priors debias.")]
Depth = Annotated[
    int,
    typer.Option("--k", min=1, rich_help_panel=PRUNING, help="K: tokens are dropped before this decoder layer, counted from 0."),
]
Prompt = Annotated[str, typer.Option("--prompt", rich_help_panel=DATA, help="Text, a file with one prompt per line, or task:NAME.")]


@app.command()
@with_checkpoint
def transfer(
    *,
    out: Out,
    model: Annotated[list[str], typer.Option("--model", "-m", rich_help_panel=MODEL, help="Short name, hub id or directory.")],
    data: Annotated[list[str], typer.Option("--data", "-d", rich_help_panel=DATA, help=f"Images: {SOURCES}")],
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", rich_help_panel=DATA, help="Text, a file with one prompt per line, or task:NAME.")
    ] = None,
    image_size: Annotated[
        list[str] | None,
        typer.Option("--image-size", metavar=WIDTH_HEIGHT, rich_help_panel=DATA, help="Resize all images to this size in pixels."),
    ] = None,
    samples: Samples = 300,
    seed: Seed = 0,
    layers: AllLayers = "all",
    task: Tasks = None,
    questions: Questions = 200,
    pruner: PrunerName = "fastv",
    retention: Retention = 0.25,
    k: Depth = 1,
    batch_size: BatchSize = None,
    checkpoint: Checkpoint,
    wording: WordingFile = None,
    as_json: AsJson = False,
) -> None:
    """Calibrate under several prompts, image sets, sizes or models (repeat one of these options), compare the priors, and swap them."""
    from biaskit.calibration.prompts import PROMPT
    from biaskit.validation.studies.conditions import conditions
    from biaskit.validation.studies.transfer import Asking

    axis, group = conditions(
        model, data, prompt or [PROMPT], [read_pair(text, WIDTH_HEIGHT, "--image-size")[::-1] for text in image_size or []]
    )
    asking = Asking(tuple(task or ()), questions, pruner, retention, k)
    _run(
        axis, group, out, asking, None, samples=samples, seed=seed, layers=layers, batch_size=batch_size, as_json=as_json,
        load=partial(checkpoint.load, wording=wording),
    )  # fmt: skip


@app.command("content-free")
@with_checkpoint
def content_free(
    *,
    out: Out,
    model: Model,
    data: Data = "coco",
    blank: Annotated[
        str, typer.Option(rich_help_panel=DATA, help="Pictures without content; mean is one picture of the data's mean colour.")
    ] = ("grey,noise,colours,mean,generated"),
    prompt: Prompt = "Please describe the provided image.",
    samples: Samples = 300,
    seed: Seed = 0,
    layers: AllLayers = "all",
    task: Tasks = None,
    questions: Questions = 200,
    pruner: PrunerName = "fastv",
    retention: Retention = 0.25,
    k: Depth = 1,
    batch_size: BatchSize = None,
    checkpoint: Checkpoint,
    wording: WordingFile = None,
    as_json: AsJson = False,
) -> None:
    """Calibrate on pictures without content, and measure how well they replace a prior from images."""
    from biaskit.validation.studies.conditions import MEAN, conditions
    from biaskit.validation.studies.transfer import Asking

    sources = [data, *(f"{MEAN}{data}" if word == "mean" else word for word in blank.split(","))]
    axis, group = conditions([model], sources, [prompt])
    asking = Asking(tuple(task or ()), questions, pruner, retention, k)
    _run(
        axis, group, out, asking, group[0].label, samples=samples, seed=seed, layers=layers, batch_size=batch_size, as_json=as_json,
        load=partial(checkpoint.load, wording=wording),
    )  # fmt: skip


@app.command()
@with_checkpoint
def enough(
    *,
    out: Out,
    model: Model,
    data: Data = "coco",
    prompt: Prompt = "Please describe the provided image.",
    samples: Samples = 1000,
    seed: Seed = 0,
    layers: AllLayers = "all",
    splits: Annotated[int, typer.Option(min=2, rich_help_panel=DATA, help="Random splits for each number of images.")] = 50,
    batch_size: BatchSize = None,
    checkpoint: Checkpoint,
    wording: WordingFile = None,
    as_json: AsJson = False,
) -> None:
    """Find how many calibration images are enough, from one pass over them."""
    from biaskit.cli.folder import made
    from biaskit.display import Bars
    from biaskit.validation.studies.conditions import Condition, described, prior_of
    from biaskit.validation.studies.enough import needed, settle
    from biaskit.validation.studies.enough_figure import draw_enough

    made(out)
    condition = Condition("prior", model, data, prompt)
    wanted = read_layers_option(layers) or "all"
    with Bars() as bars:
        prior = prior_of(
            condition, checkpoint.load(model, layers=wanted, wording=wording), out, samples=samples, seed=seed, layers=wanted,
            batch_size=batch_size, report=lambda progress: bars.show("calibrating", progress.done, progress.total),
        )  # fmt: skip
    rows = settle(prior, splits=splits, seed=seed)
    takes = needed(rows)
    result = {
        "study": "enough",
        "condition": dict(described(condition)),
        "samples": prior.n_images,
        "splits": splits,
        "rows": [row.to_json() for row in rows],
        "needed": {str(layer): {str(wanted): n for wanted, n in found.items()} for layer, found in takes.items()},
    }
    draw_enough(rows, out / "study.png", title=f"How many images are enough? {model}, {data}", force=True)
    _write(result, out, as_json)
    if as_json:
        return
    counts = sorted({row.n for row in rows})
    halves = {(row.layer, row.n): row.halves for row in rows}
    table = [
        [str(layer), *(_number(halves[layer, n]) for n in counts if halves[layer, n] is not None), *(str(n) for n in found.values())]
        for layer, found in takes.items()
    ]
    shown = [f"n={n}" for n in counts if halves[rows[0].layer, n] is not None]
    echo_table(
        ["layer", *shown, *(f"r={wanted}" for wanted in next(iter(takes.values())))],
        table,
        "correlation of two priors of n images, none in common; images for r with the map of infinitely many",
    )


def _run(
    axis: str, group: list[Condition], out: Path, asking: Asking, reference: str | None,
    *, samples: int, seed: int, layers: str, batch_size: int | None, as_json: bool, load: Callable[..., Loaded],
) -> None:  # fmt: skip
    """Run a study of transfer, write it to disk and print it."""
    from biaskit.cli.folder import made
    from biaskit.display import Bars
    from biaskit.validation.studies.transfer import transfer as run
    from biaskit.validation.studies.transfer_figure import draw_transfer

    wanted = read_layers_option(layers) or "all"
    with Bars() as bars:
        study = run(
            axis, group, made(out), samples=samples, seed=seed, layers=wanted, batch_size=batch_size, asking=asking, reference=reference,
            load=partial(load, layers=wanted),
            report=lambda what, done, total: bars.show(what, done, total, key="asking" if what.startswith("asking") else ""),
        )  # fmt: skip
    title = "Priors from pictures without content" if reference else ""
    draw_transfer(study, out / "study.png", title=title, force=True)
    _write({"study": "content-free" if reference else "transfer", **study.to_json()}, out, as_json)
    if not as_json:
        _print(study)


def _print(study: Study) -> None:
    names = ["a", "b", "plane", "layer", "Pearson", "ceiling", "Spearman", "top 25% overlap (chance)", "|a-b| / uniform"]
    rows = [
        [
            *(m["a"], m["b"], m["plane"], str(m["layer"]), _number(m["pearson"]), _number(m["ceiling"]), _number(m["spearman"])),
            f"{m['top_k']:.2f} ({m['top_k_chance']:.2f})", _number(m["mean_abs_diff"]),
        ]
        for m in study.maps
    ]  # fmt: skip
    echo_table(names, rows, "maps")
    if study.scores:
        how = study.asking
        title = f"scores, {how.pruner} at K = {how.layer}, {how.retention:.0%} of the visual tokens kept; gain over no prior, paired"
        columns = (("score", ".3f", "half_width"), ("gain", "+.3f", "gain_half_width"))
        made = [[*(s["task"], s["prior"], str(s["n"])), *(f"{s[k]:{f}} ± {s[w]:.3f}" for k, f, w in columns)] for s in study.scores]
        echo_table(["task", "prior", "n", "score", "gain"], made, title)


def _write(result: dict[str, Any], out: Path, as_json: bool) -> None:
    from biaskit.files import write_file

    text = for_json(result, 1)
    write_file(out / "study.json", text + "\n")
    echo(*([text] if as_json else [out / "study.json", out / "study.png"]))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
