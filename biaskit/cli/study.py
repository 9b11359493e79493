"""`biaskit study`: how far priors carry over, how many images they need, what pictures without content are worth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from biaskit.validation.studies.conditions import Condition
    from biaskit.validation.studies.transfer import Asking, Study

app = typer.Typer(help="Study priors: transfer, number of images, pictures without content.", no_args_is_help=True)

Samples = Annotated[int, typer.Option("--samples", "-n", min=8, help="Images of each prior.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for priors, answers, study.json and study.png; the command goes on in it.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the choice of images.")]
Layers = Annotated[str, typer.Option("--layers", help="0-based decoder layers, such as 1,4 or 0-7, or all.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Images or questions a forward pass. (default: as calibrate and validate)")]
Tasks = Annotated[
    list[str] | None, typer.Option("--task", help="Also try the priors out on this task (biaskit tasks list); may be repeated.")
]
Questions = Annotated[int, typer.Option(min=2, help="Questions of each task.")]
PrunerName = Annotated[str, typer.Option("--pruner", help="The method that the priors debias.")]
Retention = Annotated[float, typer.Option(help="Share of visual tokens that it keeps.")]
Layer = Annotated[int, typer.Option("--layer", min=1, help="K: it acts before this decoder layer, 0-based.")]
Prompt = Annotated[str, typer.Option("--prompt", help="Text, a file with a prompt a line, or task:NAME.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def transfer(
    out: Out,
    model: Annotated[list[str], typer.Option("--model", "-m", help="Short name, hub id or directory.")],
    data: Annotated[list[str], typer.Option("--data", "-d", help="As calibrate; also grey, noise, colours and mean:DATA.")],
    prompt: Annotated[list[str] | None, typer.Option("--prompt", help="Text, a file with a prompt a line, or task:NAME.")] = None,
    size: Annotated[list[str] | None, typer.Option("--size", metavar="ROWSxCOLS", help="Resize all images to so many pixels.")] = None,
    samples: Samples = 300,
    seed: Seed = 0,
    layers: Layers = "all",
    task: Tasks = None,
    questions: Questions = 200,
    pruner: PrunerName = "fastv",
    retention: Retention = 0.25,
    layer: Layer = 1,
    batch_size: Batch = None,
    as_json: AsJson = False,
) -> None:
    """Calibrate under several prompts, image sets, sizes or models (repeat one of these options), compare the priors, and swap them."""
    from biaskit.calibration.prompts import PROMPT
    from biaskit.validation.studies.conditions import conditions
    from biaskit.validation.studies.transfer import Asking

    axis, group = conditions(model, data, prompt or [PROMPT], [_size(text) for text in size or []])
    asking = Asking(tuple(task or ()), questions, pruner, retention, layer)
    _run(axis, group, out, asking, None, samples=samples, seed=seed, layers=layers, batch_size=batch_size, as_json=as_json)


@app.command("content-free")
def content_free(
    out: Out,
    model: Annotated[str, typer.Option("--model", "-m", help="Short name, hub id or directory.")],
    data: Annotated[str, typer.Option("--data", "-d", help="The images with content to compare with.")] = "coco",
    blank: Annotated[str, typer.Option(help="Pictures without content; mean is one picture of the data's mean colour.")] = (
        "grey,noise,colours,mean,generated"
    ),
    prompt: Prompt = "Please describe the provided image.",
    samples: Samples = 300,
    seed: Seed = 0,
    layers: Layers = "all",
    task: Tasks = None,
    questions: Questions = 200,
    pruner: PrunerName = "fastv",
    retention: Retention = 0.25,
    layer: Layer = 1,
    batch_size: Batch = None,
    as_json: AsJson = False,
) -> None:
    """Calibrate on pictures without content, and see how far they stand in for a prior from images."""
    from biaskit.validation.studies.conditions import MEAN, conditions
    from biaskit.validation.studies.transfer import Asking

    sources = [data, *(f"{MEAN}{data}" if word == "mean" else word for word in blank.split(","))]
    axis, group = conditions([model], sources, [prompt])
    asking = Asking(tuple(task or ()), questions, pruner, retention, layer)
    _run(axis, group, out, asking, group[0].label, samples=samples, seed=seed, layers=layers, batch_size=batch_size, as_json=as_json)


@app.command()
def enough(
    out: Out,
    model: Annotated[str, typer.Option("--model", "-m", help="Short name, hub id or directory.")],
    data: Annotated[str, typer.Option("--data", "-d", help="As calibrate.")] = "coco",
    prompt: Prompt = "Please describe the provided image.",
    samples: Samples = 1000,
    seed: Seed = 0,
    layers: Layers = "all",
    splits: Annotated[int, typer.Option(min=2, help="Random splits for each number of images.")] = 50,
    batch_size: Batch = None,
    as_json: AsJson = False,
) -> None:
    """Find how many calibration images are enough, from one pass over them."""
    from biaskit.cli.calibrate import chosen_layers, say
    from biaskit.cli.folder import made
    from biaskit.display import Bars
    from biaskit.families.checkpoints.load import load_model
    from biaskit.validation.studies.conditions import Condition, described, prior_of
    from biaskit.validation.studies.enough import needed, settle
    from biaskit.validation.studies.enough_figure import draw_enough

    made(out)
    condition = Condition("prior", model, data, prompt)
    wanted = chosen_layers(layers) or "all"
    with Bars() as bars:
        prior = prior_of(
            condition, load_model(model, say=say, layers=wanted), out, samples=samples, seed=seed, layers=wanted, batch_size=batch_size,
            report=lambda progress: bars.show("calibrating", progress.done, progress.total),
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
    _table(
        "correlation of two priors of n images, none in common; images for r with the map of infinitely many",
        ["layer", *shown, *(f"r={wanted}" for wanted in next(iter(takes.values())))],
        table,
    )


def _run(
    axis: str, group: list[Condition], out: Path, asking: Asking, reference: str | None,
    *, samples: int, seed: int, layers: str, batch_size: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Do a study of transfer, write it down and print it."""
    from biaskit.cli.calibrate import chosen_layers
    from biaskit.cli.folder import made
    from biaskit.display import Bars
    from biaskit.validation.studies.transfer import transfer as run
    from biaskit.validation.studies.transfer_figure import draw_transfer

    wanted = chosen_layers(layers) or "all"
    with Bars() as bars:
        study = run(
            axis, group, made(out), samples=samples, seed=seed, layers=wanted, batch_size=batch_size, asking=asking, reference=reference,
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
    _table("maps", names, rows)
    if study.scores:
        how = study.asking
        title = f"scores, {how.pruner} at K = {how.layer}, {how.retention:.0%} of the visual tokens kept; gain over no prior, paired"
        columns = (("score", ".3f", "half_width"), ("gain", "+.3f", "gain_half_width"))
        made = [[*(s["task"], s["prior"], str(s["n"])), *(f"{s[k]:{f}} ± {s[w]:.3f}" for k, f, w in columns)] for s in study.scores]
        _table(title, ["task", "prior", "n", "score", "gain"], made)


def _write(result: dict[str, Any], out: Path, as_json: bool) -> None:
    from biaskit.files import write_file

    text = json.dumps(result, indent=1, ensure_ascii=False)
    write_file(out / "study.json", text + "\n")
    typer.echo(text if as_json else f"{out / 'study.json'}\n{out / 'study.png'}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _table(title: str, headers: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*headers, title=title, title_justify="left", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console = Console()
    (console if console.is_terminal else Console(width=max(160, console.width))).print(table)


def _size(text: str) -> tuple[int, int]:
    rows, _, cols = text.lower().partition("x")
    if not (rows.isdecimal() and cols.isdecimal()):
        raise typer.BadParameter(f"{text!r} is not ROWSxCOLS, such as 336x448", param_hint="--size")
    return int(rows), int(cols)
