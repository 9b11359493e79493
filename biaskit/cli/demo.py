"""`biaskit demo`: the whole chain on the embedded model, offline, in minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from biaskit.cli.console import echo, echo_json, echo_table, say
from biaskit.cli.options import AsJson, Force


def demo(
    model: Annotated[str, typer.Option("--model", "-m", help="Embedded model: demo, or its sibling demo-qwen.")] = "demo",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for priors and figures.")] = Path("demo-output"),
    samples: Annotated[int, typer.Option("--samples", "-n", min=20, help="Scenes to calibrate on, for each of two prompts.")] = 1000,
    questions: Annotated[int, typer.Option(min=20, help="Questions to ask each method.")] = 300,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Calibrate the embedded model, draw its bias, and ask it where things are, with and without pruning."""
    from biaskit.errors import BiaskitError
    from biaskit.families.checkpoints.catalog import EMBEDDED
    from biaskit.registry import did_you_mean

    if model not in EMBEDDED:
        raise BiaskitError(f"{model!r} is not an embedded model", did_you_mean(model, EMBEDDED))
    from biaskit.demo.run import LAYERS, RETENTION, check_free, run, table, verdict
    from biaskit.display import Bars
    from biaskit.families.checkpoints.load import load_model

    check_free(out, force)
    loaded = load_model(model, device="cpu", say=say)
    with Bars() as bars:

        def step(what: str, done: int, total: int) -> None:
            bars.show(what, done, total, key="" if what.startswith("calibrating") else "asking")

        found = run(loaded, out, samples=samples, questions=questions, step=step, force=force)
    if as_json:
        rows = [{"method": row.method, "layer": row.layer, "accuracy": row.accuracy, "half_width": row.half_width} for row in found.rows]
        echo_json({"rows": rows, "correlation": found.agreement, "verdict": verdict(found), "files": list(map(str, found.files))}, None)
        return
    title = f"where is …? boxes at IoU ≥ 0.5, % of {questions}, with {RETENTION:.0%} of the visual tokens"
    echo_table(["method", *(f"K = {layer}" for layer in LAYERS)], table(found.rows), title)
    echo("", verdict(found), "", ", ".join(map(str, found.files)))
