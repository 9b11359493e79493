"""`make demo`: calibrate a tiny random LLaVA over generated images and draw its heatmap. Its weights are random and mean nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer


def run(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("demo-output"),
    samples: Annotated[int, typer.Option(min=2, help="Images.")] = 200,
) -> None:
    """Save a tiny checkpoint, calibrate it, show the prior's metrics and draw it."""
    from biaskit.testing import save_tiny

    checkpoint, prior, figure = out / "tiny-random-llava", out / "tiny-random-llava.safetensors", out / "heatmap.png"
    print(
        "A LLaVA of the real class with 0.3 M RANDOM weights, over generated pictures: this shows the toolkit, not a finding.", flush=True
    )
    if not (checkpoint / "config.json").is_file():
        save_tiny("llava-1.5", checkpoint)
    for command in (
        ["calibrate", "--model", checkpoint, "--data", "generated", "--samples", samples, "--out", prior, "--force"],
        ["priors", "show", prior],
        ["heatmap", prior, "--out", figure, "--force"],
    ):
        print(f"\n$ biaskit {' '.join(map(str, command))}", flush=True)
        subprocess.run([sys.executable, "-m", "biaskit", *map(str, command)], check=True)
    print(f"\nlook at {figure}; the weights are random, so the pattern in it means nothing")


if __name__ == "__main__":
    typer.run(run)
