"""`biaskit pruners`: the methods, their papers, and their parameters."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from biaskit.cli import complete
from biaskit.cli.command import App
from biaskit.cli.console import echo, echo_json, echo_table
from biaskit.cli.options import AsJson

if TYPE_CHECKING:
    from biaskit.pruners import Pruner

app = App(help="Pruning methods and their parameters.", no_args_is_help=True)


def _describe(name: str, cls: type[Pruner]) -> dict[str, Any]:
    """Everything the registry knows about a pruner."""
    parameters = cls.parameters()
    return {
        "name": name,
        "title": cls.title,
        "summary": inspect.getdoc(cls) or "",
        "paper": cls.paper,
        "year": cls.year,
        "arxiv": cls.arxiv,
        "acts": cls.acts,
        "families": cls.families,
        "k": next(p.default for p in parameters if p.name == "layer"),
        "needs": sorted(map(str, cls.needs)),
        "prior": cls.prior,
        "positions": next(p.default for p in parameters if p.name == "positions"),
        "parameters": [vars(parameter) for parameter in parameters],
        "presets": {preset: dict(values) for preset, values in cls.presets.items()},
        "deviations": list(cls.deviations),
        "module": cls.__module__,
    }


@app.command("list")
def show_list(
    format_: Annotated[
        Literal["text", "markdown"], typer.Option("--format", help="text, or markdown: the table of docs/methods.md.")
    ] = "text",
    as_json: AsJson = False,
) -> None:
    """List the pruners: built-in ones, and those of installed plug-ins."""
    from biaskit.pruners import pruners

    found = [_describe(name, cls) for name, cls in pruners]
    if as_json:
        echo_json(found)
        return
    if format_ == "markdown":
        echo(methods_table())
        return
    echo_table(("name", "method", "year", "arXiv", "K", "needs", "prior", "families"), [
        (p["name"], p["title"], p["year"] or "–", p["arxiv"] or "–", p["k"], ", ".join(p["needs"]) or "nothing", p["prior"], p["families"])
        for p in found
    ])  # fmt: skip
    echo("biaskit pruners show NAME prints parameters, presets, and where a method deviates from its paper.")


def methods_table() -> str:
    """Return the pruners as a Markdown table."""
    from biaskit.pruners import pruners

    found = [_describe(name, cls) for name, cls in pruners]
    head = ("name", "method", "paper", "K", "where it acts", "what it reads", "prior", "families")
    rows = [head, ("---",) * len(head)]
    for p in found:
        paper = p["paper"] + (f" ({p['year']})" if p["year"] else "")
        linked = f"[{paper}](https://arxiv.org/abs/{p['arxiv']})" if p["arxiv"] else paper
        reads = "; ".join(p["needs"]) or "nothing"
        rows.append((f"`{p['name']}`", p["title"], linked, str(p["k"]), p["acts"], reads, p["prior"], p["families"]))
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)


@app.command()
def show(
    name: Annotated[str, typer.Argument(autocompletion=complete.pruner, help="A pruner's name.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Show a pruner: its paper, where it acts, what it reads, its parameters with defaults, and where it deviates from the paper."""
    from biaskit.pruners import pruners

    item = _describe(name, pruners.get(name))
    if as_json:
        echo_json(item)
        return
    source = item["paper"] + (f" ({item['year']})" if item["year"] else "") + (f", arXiv {item['arxiv']}" if item["arxiv"] else "")
    echo(f"{item['title']}: {item['summary']}")
    echo(f"paper: {source}")
    echo(f"acts: {item['acts']}")
    echo(f"families: {item['families']}")
    echo(f"needs: {', '.join(item['needs']) or 'nothing'}; prior {item['prior']}; position ids {item['positions']}")
    echo("parameters:")
    width = max(len(parameter["name"]) for parameter in item["parameters"])
    for parameter in item["parameters"]:
        echo(f"  {_written(parameter['name']):{width}} = {parameter['default']}: {parameter['text']}  [{parameter['type']}]")
    for title, values in item["presets"].items():
        echo(f"preset {title}: {', '.join(f'{_written(key)}={value}' for key, value in values.items())}")
    for line in item["deviations"]:
        echo(f"deviation: {line}")
    if not item["module"].startswith("biaskit."):
        echo(f"plug-in: {item['module']}")


def _written(parameter: str) -> str:
    """How a parameter is written in a method: fastv@k=3."""
    return "k" if parameter == "layer" else parameter
