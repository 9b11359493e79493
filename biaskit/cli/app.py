"""The `biaskit` command: all command groups; an error is printed as two lines, message and hint."""

from __future__ import annotations

from typing import Annotated

import typer

from biaskit.cli import bench, models, priors, pruners, study, tasks, validate
from biaskit.cli.calibrate import calibrate
from biaskit.cli.command import App
from biaskit.cli.console import echo, run
from biaskit.cli.demo import demo
from biaskit.cli.doctor import doctor
from biaskit.cli.examples import EXAMPLES
from biaskit.cli.heatmap import heatmap
from biaskit.cli.prune import prune
from biaskit.cli.scenes import scenes
from biaskit.cli.view import view
from biaskit.files import VERSION

app = App(
    name="biaskit",
    help="Measure, show and remove positional bias in multimodal LLMs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(calibrate)
app.command()(heatmap)
app.command()(prune)
app.command()(view)
app.command()(scenes)
app.command()(demo)
app.command()(doctor)
app.add_typer(validate.app, name="validate")
app.add_typer(priors.app, name="priors")
app.add_typer(models.app, name="models")
app.add_typer(pruners.app, name="pruners")
app.add_typer(study.app, name="study")
app.add_typer(tasks.app, name="tasks")
app.add_typer(bench.app, name="bench")
app.with_examples(EXAMPLES)


def _version(wanted: bool) -> None:
    if wanted:
        echo(VERSION)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    """Measure, show and remove positional bias in multimodal LLMs."""


def main() -> None:
    """Run the command. Exit codes: 0 success, 1 an error of biaskit or of the operating system, 2 usage, 130 interrupted."""
    run(app)


if __name__ == "__main__":
    main()
