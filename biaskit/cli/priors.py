"""`biaskit priors`: list, show, verify, diff, import and export prior files. Data goes to stdout, messages to stderr."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from biaskit.cli import complete
from biaskit.cli.command import App
from biaskit.cli.console import echo, echo_json, tell
from biaskit.cli.options import ROWS_COLS, AsJson, Cmap, Force, Layers, Revision, Scale, read_layers_option, read_pair

if TYPE_CHECKING:
    from biaskit.prior.value import Prior

app = App(help="List, inspect, compare and exchange priors.", no_args_is_help=True)

Hub = Annotated[bool, typer.Option("--hub", help="Look on the Hugging Face hub too: org/repo or org/repo/file.safetensors.")]
PlaneOption = Annotated[str | None, typer.Option("--plane", help="Only this plane.")]
PriorArgument = Annotated[
    str, typer.Argument(metavar="PRIOR", autocompletion=complete.priors, help="A file, or the name of a prior.", show_default=False)
]


def _summary(prior: Prior) -> dict[str, Any]:
    """Describe a prior without its maps."""
    planes = {
        name: {
            "rows": stats.mean.shape[1],
            "cols": stats.mean.shape[2],
            "count": stats.count,
            "groups": 0 if stats.group_mean is None else len(stats.group_mean),
            "heads": 0 if stats.head_mean is None else stats.head_mean.shape[1],
        }
        for name, stats in prior.planes.items()
    }
    mass = prior.visual_mass.astype(str).astype(float).tolist()
    return {"layers": list(prior.layers), "visual_mass": mass, "planes": planes, "meta": dict(prior.meta)}


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the priors in ./priors, those that come with biaskit, and those downloaded from the hub earlier."""
    from biaskit.cli.priors_text import print_list
    from biaskit.prior.store import folders, list_priors

    found = list_priors()
    if as_json:
        rows = []
        for item in found:
            what = {"error": str(item.error)} if item.prior is None else _summary(item.prior)
            rows.append({"name": item.name, "place": item.place, "path": str(item.path), **what})
        echo_json(rows)
    elif found:
        print_list(found)
    for item in found:
        if item.error is not None:
            tell(f"unreadable: {item.error.message} ({item.error.hint})")
    if not found:
        tell(f"no priors in {' or '.join(map(str, folders()))}: make one with `biaskit calibrate --model …`")


@app.command()
def show(prior: PriorArgument, layers: Layers = None, plane: PlaneOption = None, hub: Hub = False, as_json: AsJson = False) -> None:
    """Show where a prior comes from, and what bias it holds, with confidence intervals over images."""
    from biaskit.prior.bias.report import convergence, report
    from biaskit.prior.exchange import narrow
    from biaskit.prior.store import load_prior

    wanted = read_layers_option(layers)
    value = narrow(load_prior(prior, hub=hub), wanted, plane)
    bias, converged = report(value), convergence(value)
    if as_json:
        echo_json({"prior": prior, **_summary(value), "bias": bias.to_json(), "convergence": converged})
        return
    from biaskit.cli.priors_text import print_show

    print_show(value, bias, converged)


@app.command()
def verify(
    priors: Annotated[
        list[str], typer.Argument(metavar="PRIOR...", autocompletion=complete.priors, help="Files, or names of priors.", show_default=False)
    ],
    model_type: Annotated[
        str | None, typer.Option("--model-type", metavar="TYPE", help="Also require this model type, such as llava.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check that prior files are complete and consistent; exit 1 if one is not."""
    from biaskit.errors import PriorError
    from biaskit.prior.store import load_prior

    rows = []
    for name in priors:
        try:
            value = load_prior(name)
            if model_type is not None:
                value.check_model(model_type)
            rows.append({"prior": name, "ok": True, "error": None, "hint": None})
        except PriorError as error:
            rows.append({"prior": name, "ok": False, "error": error.message, "hint": error.hint})
    if as_json:
        echo_json(rows)
    else:
        for row in rows:
            why = f": {row['error']} (hint: {row['hint']})".replace(f": {row['prior']}", ":", 1).replace("::", ":")
            echo(f"ok   {row['prior']}" if row["ok"] else f"bad  {row['prior']}{why}")
    if not all(row["ok"] for row in rows):
        raise typer.Exit(1)


@app.command()
def diff(
    a: Annotated[
        str, typer.Argument(metavar="A", autocompletion=complete.priors, help="A file, or the name of a prior.", show_default=False)
    ],
    b: Annotated[str, typer.Argument(metavar="B", autocompletion=complete.priors, help="The prior to compare with.", show_default=False)],
    hub: Hub = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also draw both, and their ratio: .png, .pdf or .svg.")] = None,
    scale: Scale = None,
    cmap: Cmap = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Compare two priors: the maps they share (each scaled to mean 1), and their metadata."""
    from biaskit.prior.bias.report import compare
    from biaskit.prior.store import load_prior

    first, second = load_prior(a, hub=hub), load_prior(b, hub=hub)
    maps = compare(first, second)
    if out is not None:
        from biaskit.figures.side_by_side import side_by_side

        names = Path(a).name.removesuffix(".safetensors"), Path(b).name.removesuffix(".safetensors")
        side_by_side(first, second, names=names, scale=scale or "shared", cmap=cmap, out=out, force=force)
        tell(out)
    for row in maps:
        row["level_a"], row["level_b"] = (float(p.map(row["plane"], row["layer"]).mean()) for p in (first, second))
    meta, notes = _meta_diff(first, second), _only_one_has(first, second)
    if as_json:
        echo_json({"a": a, "b": b, "maps": maps, "meta": meta, "notes": notes})
        return
    from biaskit.cli.priors_text import print_diff

    print_diff(maps, meta, notes, (a, b))


def _meta_diff(a: Prior, b: Prior) -> dict[str, tuple[str | None, str | None]]:
    """Metadata that differs: key → the two values, None for a missing key."""
    from biaskit.prior.revision import read_settings

    mine, theirs = ({key: text for key, text in prior.meta.items() if key != "processor"} for prior in (a, b))
    for meta, prior in ((mine, a), (theirs, b)):
        settings = read_settings(prior.meta.get("processor", ""))
        meta.update({f"processor {name}": json.dumps(value) for name, value in settings.items()})
    return {key: (mine.get(key), theirs.get(key)) for key in sorted({*mine, *theirs}) if mine.get(key) != theirs.get(key)}


def _only_one_has(a: Prior, b: Prior) -> list[str]:
    """Planes and layers that were not compared, because one prior lacks them."""
    sides: tuple[tuple[str, set[Any], set[Any]], ...] = (("plane", {*a.planes}, {*b.planes}), ("layer", {*a.layers}, {*b.layers}))
    return [
        f"only {side} has {what} {', '.join(map(str, sorted(extra)))}"
        for what, left, right in sides
        for side, extra in (("A", left - right), ("B", right - left))
        if extra
    ]


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A .npy, .npz, .pt or .json file.", show_default=False)],
    as_: Annotated[
        Literal["bias", "weight"],
        typer.Option("--as", help="bias: A_bias up to a factor. weight: factors that remove it.", show_default=False),
    ],
    model_type: Annotated[str, typer.Option("--model-type", help="The architecture, such as llava.", show_default=False)],
    layers: Annotated[
        str | None,
        typer.Option(
            "--layers",
            "--layer",
            metavar="1,4|0-7",
            help="The decoder layer of each map in the file, from 0 (a paper's K minus 1). Not needed for files of `priors export`.",
            show_default=False,
        ),
    ] = None,
    grid: Annotated[
        str | None, typer.Option("--grid", metavar=ROWS_COLS, help="The grid, if the array's shape does not give it.", show_default=False)
    ] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="The model's id, if known.")] = "",
    revision: Annotated[str, typer.Option(help="The checkpoint's commit, if known.")] = "",
    plane: Annotated[str, typer.Option(help="The plane the map is for.")] = "image",
    key: Annotated[str | None, typer.Option(help="Which array of an .npz, or of a dict.")] = None,
    note: Annotated[str, typer.Option(help="Where the file comes from.")] = "",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The prior to write. Default: priors/NAME.safetensors.", show_default=False)
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Import a published map as a prior. It is scaled to mean 1: its attention mass and number of images are not known."""
    read_layers_option(layers)
    rows, cols = (None, None) if grid is None else read_pair(grid, ROWS_COLS, "--grid")
    from biaskit.prior.exchange import import_prior
    from biaskit.prior.store import place_of

    prior = import_prior(
        path, as_=as_, model_type=model_type, layer=layers, rows=rows, cols=cols,
        model=model, revision=revision, plane=plane, key=key, note=note,
    )  # fmt: skip
    out = out or place_of(path.stem)
    prior.save(out, force=force)
    if as_json:
        echo_json({"path": str(out), **_summary(prior)})
    else:
        echo(out)


@app.command()
def export(
    prior: PriorArgument,
    out: Annotated[Path, typer.Argument(metavar="FILE", help="A name that ends in .npy, .npz, .pt or .json.", show_default=False)],
    layers: Layers = None,
    plane: PlaneOption = None,
    hub: Hub = False,
    force: Force = False,
) -> None:
    """Write a prior as .npy (one plane's mean), .npz or .pt (arrays by name), or .json (everything)."""
    from biaskit.prior.exchange import export_prior
    from biaskit.prior.store import load_prior

    wanted = read_layers_option(layers)
    value = load_prior(prior, hub=hub)
    export_prior(value, out, layer=wanted, plane=plane, force=force)
    if out.suffix.lower() == ".npy" and plane is None and len(value.planes) > 1:
        tell(f"wrote plane {value.primary} only, of {', '.join(value.planes)}: choose with --plane")
    echo(out)


@app.command()
def push(
    prior: PriorArgument,
    repo: Annotated[
        str, typer.Argument(metavar="ORG/REPO", help="The repository on the hub; created if it does not exist.", show_default=False)
    ],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    as_json: AsJson = False,
) -> None:
    """Publish a prior on the Hugging Face hub: the file, a card made of its metadata, and its checksum. Log in first: hf auth login."""
    from biaskit.prior.publish import push_prior
    from biaskit.prior.store import load_prior

    done = push_prior(load_prior(prior), repo, private=private)
    if as_json:
        echo_json({"repo": done.repo, "file": done.file, "revision": done.revision, "sha256": done.sha256})
        return
    echo(
        f"{done.repo}: {done.file} at {done.revision}, sha256 {done.sha256}", f"next: biaskit priors pull {repo} --revision {done.revision}"
    )


@app.command()
def pull(
    name: Annotated[
        str, typer.Argument(metavar="ORG/REPO[/FILE]", help="On the hub; prior.safetensors without a FILE.", show_default=False)
    ],
    revision: Revision = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file to write. Default: priors/REPO.safetensors.", show_default=False)
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Fetch a prior from the hub into ./priors, at one commit, its checksum verified."""
    from biaskit.prior.hub import pull_prior
    from biaskit.prior.store import folders

    done = pull_prior(name, out if out is not None else folders()[0], revision=revision, force=force)
    if as_json:
        facts = {"repo": done.repo, "file": done.file, "revision": done.revision, "sha256": done.sha256, "checked": done.checked}
        echo_json({"path": str(done.path), **facts})
        return
    echo(str(done.path))
    said = "matches the published one" if done.checked else "cannot be compared: no checksum is published there"
    tell(f"{done.repo} at {done.revision}; the checksum {said}")
