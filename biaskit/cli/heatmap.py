"""`biaskit heatmap`: draw the bias maps of one prior or several, its heads, its profiles, or what it does to one picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from biaskit.cli import complete
from biaskit.cli.checkpoint import Checkpoint, with_checkpoint
from biaskit.cli.console import echo, echo_json, notes
from biaskit.cli.options import (
    DATA,
    RESULT,
    AsJson,
    Cmap,
    Force,
    Layers,
    LookingModel,
    Scale,
    read_layers_option,
)

if TYPE_CHECKING:
    from biaskit.prior.value import Prior

Show = Literal["maps", "heads", "profiles", "debiased"]


@with_checkpoint
def heatmap(
    *,
    priors: Annotated[
        list[str], typer.Argument(metavar="PRIOR", autocompletion=complete.priors, help="Files, or names of priors.", show_default=False)
    ],
    show: Annotated[
        Show,
        typer.Option(
            "--show",
            rich_help_panel=RESULT,
            help="What is drawn: maps, each layer's; heads, every head of one layer; profiles, all layers by rows; debiased, one picture's "
            "attention, the prior, and the one divided by the other.",
        ),
    ] = "maps",
    layers: Layers = "all",
    planes: Annotated[
        str, typer.Option("--planes", "--plane", metavar="canvas,base|all", rich_help_panel=DATA, help="Planes to show.")
    ] = "all",
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels",
            metavar="A,B",
            rich_help_panel=RESULT,
            help="Names of the priors in the figure, instead of the models', one per prior.",
        ),
    ] = None,
    model: LookingModel = None,
    image: Annotated[
        Path | None, typer.Option("--image", "-i", rich_help_panel=DATA, show_default=False, help="For debiased: the image.")
    ] = None,
    prompt: Annotated[
        str, typer.Option("--prompt", rich_help_panel=DATA, help="For debiased: the prompt.")
    ] = "Please describe the provided image.",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", rich_help_panel=RESULT, help="Figure, .png, .pdf or .svg. Default: FIRST-PRIOR-heatmap.png.", show_default=False
        ),
    ] = None,
    title: Annotated[str | None, typer.Option("--title", rich_help_panel=RESULT, help="A heading.", show_default=False)] = None,
    scale: Scale = None,
    cmap: Cmap = None,
    checkpoint: Checkpoint,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Draw bias maps as multiples of uniform attention, and name each map's pattern.

    --show draws other views: every head of a layer, all layers by rows, or what debiasing does to the attention on one image.
    """
    wanted = read_layers_option(layers)
    chosen = None if wanted is None or wanted == "all" else list(wanted)
    shown = _names(planes, "--planes")
    names = None if labels is None else labels.split(",")
    end = "heatmap" if show == "maps" else show
    path = out if out is not None else Path(f"{Path(priors[0]).name.removesuffix('.safetensors')}-{end}.png")
    how: dict[str, Any] = {"out": path, "title": title, "cmap": cmap, "force": force, **({} if scale is None else {"scale": scale})}
    if show != "maps":
        about = _Picture(model, image, prompt, checkpoint)
        _check_view(show, priors, shown, names, about, scale)
        _draw_view(show, priors[0], chosen, None if shown is None else shown[0], about, how)
        if as_json:
            echo_json({"out": str(path), "show": show})
        else:
            echo(path)
        return
    _draw_maps(priors, chosen, shown, names, how, as_json)


@dataclass(frozen=True)
class _Picture:
    """What `--show debiased` looks at."""

    model: str | None
    image: Path | None
    prompt: str
    checkpoint: Checkpoint


def _check_view(
    show: str, priors: list[str], planes: list[str] | None, labels: list[str] | None, about: _Picture, scale: str | None
) -> None:
    """Refuse options that contradict each other, before anything is loaded."""
    if len(priors) > 1:
        raise typer.BadParameter(f"{show} shows one prior", param_hint="PRIOR")
    if planes is not None and (len(planes) > 1 or show == "debiased"):
        one = "the plane with the most tokens" if show == "debiased" else "one plane"
        raise typer.BadParameter(f"{show} shows {one}", param_hint="--planes")
    if labels is not None:
        raise typer.BadParameter(f"{show} has one prior: give --title", param_hint="--labels")
    if show == "profiles" and scale is not None:
        raise typer.BadParameter("profiles are one map, with one scale", param_hint="--scale")
    if show == "debiased" and (about.model is None or about.image is None):
        raise typer.BadParameter("debiased runs a checkpoint on an image: give --model and --image", param_hint="--show")


def _draw_view(show: str, name: str, layers: list[int] | None, plane: str | None, about: _Picture, how: dict[str, Any]) -> None:
    """Draw one of the further views of one prior."""
    from biaskit.errors import BiaskitError
    from biaskit.figures import more_maps
    from biaskit.figures.style import check_out
    from biaskit.prior.store import load_prior

    check_out(how["out"], how["force"])
    prior = load_prior(name)
    if show == "profiles":
        more_maps.layer_profiles(prior, plane=plane, layers=layers, **how)
        return
    one = list(prior.layers) if layers is None else layers
    if len(one) != 1:
        there = ", ".join(map(str, prior.layers))
        raise BiaskitError(f"{show} shows one layer, and {len(one)} are asked for", f"choose with --layers one of {there}")
    if show == "heads":
        more_maps.head_maps(prior, one[0], plane=plane, **how)
    else:
        _draw_debiased(prior, one[0], about, how)


def _draw_debiased(prior: Prior, layer: int, about: _Picture, how: dict[str, Any]) -> None:
    """Run the model on the picture up to the layer, and draw its attention, the prior, and their ratio."""
    from biaskit.cli.prune import read_picture
    from biaskit.device import cast_inputs
    from biaskit.engine.attention import attention_rows
    from biaskit.errors import PriorError
    from biaskit.families.checkpoints.device import input_device
    from biaskit.figures.more_maps import triple
    from biaskit.images.decode import decode

    assert about.image is not None and about.model is not None
    if prior.rows not in (None, "last"):
        raise PriorError(f"this prior is of the rows {prior.rows!r}", "debiased shows the last prompt token: take a prior of --rows last")
    prior.layer(layer)  # raises for a missing layer, before the model is loaded
    picture = decode(read_picture(about.image), about.image.name)
    loaded = about.checkpoint.load(about.model)
    with notes():
        prior.check_model(loaded.model.config.model_type, loaded.revision, loaded.name, loaded.processor_settings)
    prepared = loaded.family.prepare(loaded.processor, loaded.model.config, [[picture]], [about.prompt])
    inputs = cast_inputs(prepared.inputs, loaded.model.dtype, input_device(loaded.model))
    (layout,) = prepared.layouts
    row = attention_rows(loaded.model, inputs, [layer])[0, 0].float().cpu().numpy()[layout.positions]
    heading = how["title"] or f"{about.prompt} · {loaded.name}, layer {layer} (K = {layer + 1})"
    triple(picture, layout, row, prior.for_layout(layout, layer), **{**how, "title": heading})


def _draw_maps(
    priors: list[str], chosen: list[int] | None, shown: list[str] | None, names: list[str] | None, how: dict[str, Any], as_json: bool
) -> None:
    """Draw the maps of every layer, and print each one's pattern."""
    from biaskit.figures.heatmap import heatmap as draw
    from biaskit.figures.panels import shown_planes
    from biaskit.figures.style import check_out
    from biaskit.prior.bias.report import report
    from biaskit.prior.store import load_prior

    path = how["out"]
    check_out(path, how["force"])
    loaded = [load_prior(name) for name in priors]
    mains = [shown_planes(prior, shown)[:1] for prior in loaded]
    reports = [report(prior, layers=chosen, planes=main) for prior, main in zip(loaded, mains, strict=True)]
    draw(loaded, layers=chosen, planes=shown, labels=names, reports=reports, **how)
    rows: list[dict[str, Any]] = [
        {
            "prior": name,
            "model": found.model,
            "layer": entry.layer,
            "plane": entry.plane,
            "rows": entry.rows,
            "cols": entry.cols,
            "verdict": entry.verdict,
            "why": entry.why,
        }
        for name, found in zip(priors, reports, strict=True)
        for entry in found.layers
    ]
    if as_json:
        echo_json({"out": str(path), "panels": rows})
        return
    echo(path)
    for row in rows:
        which = f"{row['prior']}, layer {row['layer']}" if len(priors) > 1 else f"layer {row['layer']}"
        echo(f"{which}, {row['plane']} {row['rows']}×{row['cols']}: {row['verdict']}. {row['why']}")


def _names(text: str, option: str) -> list[str] | None:
    """Split a comma list; None for all."""
    if text == "all":
        return None
    names = [part.strip() for part in text.split(",")]
    if not all(names):
        raise typer.BadParameter(f"{text!r} is not a comma list of names, or all", param_hint=option)
    return names
