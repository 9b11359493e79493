"""`biaskit scenes`: write the embedded model's scenes to disk as a COCO data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def scenes(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new directory.", show_default=False)],
    n: Annotated[int, typer.Option("--n", min=1, help="How many scenes.")] = 1000,
    placement: Annotated[str, typer.Option("--placement", metavar="uniform|photo|empty", help="Where the things lie.")] = "uniform",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the scenes and their questions.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Write into a directory that has files.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Report as JSON on stdout.")] = False,
) -> None:
    """Write seeded scenes in COCO layout, with referring expressions, presence and attribute questions."""
    from biaskit.display import Bars
    from biaskit.images.scenes.files import write_scenes
    from biaskit.images.scenes.source import SceneSource

    source = SceneSource(n, seed, placement)
    with Bars("scenes") as bars:
        target = write_scenes(source, out, force=force, report=lambda done: bars.show("drawing", done, n))
    if as_json:
        typer.echo(json.dumps({"out": str(out), "annotations": str(target), "n": n, "seed": seed, "placement": placement}))
    else:
        typer.echo(str(target))
