"""`biaskit scenes`: write the embedded model's scenes to disk as a COCO data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from biaskit.cli.console import echo, echo_json
from biaskit.cli.options import AsJson, Force, Seed


def scenes(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="A new directory.", show_default=False)],
    samples: Annotated[int, typer.Option("--samples", "-n", min=1, help="How many scenes.")] = 1000,
    placement: Annotated[str, typer.Option("--placement", metavar="uniform|photo|empty", help="Where the objects lie.")] = "uniform",
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Write seeded scenes in COCO layout, with referring expressions, presence and attribute questions."""
    from biaskit.display import Bars
    from biaskit.images.scenes.files import write_scenes
    from biaskit.images.scenes.source import SceneSource

    source = SceneSource(samples, seed, placement)
    with Bars("scenes") as bars:
        target = write_scenes(source, out, force=force, report=lambda done: bars.show("drawing", done, samples))
    if as_json:
        echo_json({"out": str(out), "annotations": str(target), "n": samples, "seed": seed, "placement": placement}, None)
    else:
        echo(target)
