"""`biaskit tasks`: the tasks, and the data they need."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from biaskit.cli.command import App
from biaskit.cli.console import echo, echo_json
from biaskit.cli.options import AsJson

if TYPE_CHECKING:
    from biaskit.tasks import Task

app = App(help="Tasks: questions with known answers, and the data they need.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Tasks: questions with known answers, and the data they need."""


def _describe(name: str, cls: type[Task]) -> dict[str, Any]:
    """Everything the registry knows about a task."""
    return {
        "name": name,
        "title": cls.title,
        "summary": inspect.getdoc(cls) or "",
        "metric": cls.metric,
        "arguments": cls.arguments,
        "needs": cls.needs,
        "dataset": cls.dataset,
        "module": cls.__module__,
    }


@app.command("list")
def show_list(as_json: AsJson = False) -> None:
    """List the tasks: what each asks, its score, its arguments (`NAME:ARGUMENT`), the data it needs, and where that is published."""
    from biaskit.tasks import tasks

    found = [_describe(name, cls) for name, cls in tasks]
    if as_json:
        echo_json(found)
        return
    for item in found:
        echo(f"{item['name']}: {item['summary'].splitlines()[0]}")
        echo(f"  score      {item['metric']}")
        echo(f"  arguments  {item['arguments'] or 'none'}")
        echo(f"  needs      {item['needs']}")
        echo(f"  published  {item['dataset']}")
        if not item["module"].startswith("biaskit."):
            echo(f"  plug-in    {item['module']}")
