"""`biaskit heatmap`: draw the bias maps of one prior or several, and say what pattern each has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from biaskit.cli import complete
from biaskit.cli.console import echo, echo_json
from biaskit.cli.options import AsJson, Force, Layers, Scale, read_layers_option


def heatmap(
    priors: Annotated[
        list[str], typer.Argument(metavar="PRIOR", autocompletion=complete.priors, help="Files, or names of priors.", show_default=False)
    ],
    layers: Layers = "all",
    planes: Annotated[str, typer.Option("--planes", "--plane", metavar="canvas,base|all", help="Planes to show.")] = "all",
    labels: Annotated[str | None, typer.Option("--labels", metavar="A,B", help="Names instead of the models', one per prior.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Figure, .png, .pdf or .svg. Default: FIRST-PRIOR-heatmap.png.", show_default=False)
    ] = None,
    title: Annotated[str | None, typer.Option("--title", help="A heading.", show_default=False)] = None,
    scale: Scale = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Draw bias maps as multiples of uniform attention, and name each map's pattern."""
    wanted = read_layers_option(layers)
    chosen = None if wanted is None or wanted == "all" else list(wanted)
    shown = _names(planes, "--planes")
    names = None if labels is None else labels.split(",")
    path = out if out is not None else Path(f"{Path(priors[0]).name.removesuffix('.safetensors')}-heatmap.png")
    # heavy imports only once the arguments make sense
    from biaskit.figures.heatmap import heatmap as draw
    from biaskit.figures.panels import shown_planes
    from biaskit.figures.style import check_out
    from biaskit.prior.bias.report import report
    from biaskit.prior.store import load_prior

    check_out(path, force)
    loaded = [load_prior(name) for name in priors]
    mains = [shown_planes(prior, shown)[:1] for prior in loaded]
    reports = [report(prior, layers=chosen, planes=main) for prior, main in zip(loaded, mains, strict=True)]
    draw(loaded, layers=chosen, planes=shown, labels=names, out=path, title=title, scale=scale, force=force, reports=reports)
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
