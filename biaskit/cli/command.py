"""What all commands have in common: `-h`, examples, flags that show no type, and errors for renamed options that name the new spelling."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from biaskit.display import be_quiet

RENAMED = {
    "--layer": ("--k", "--layers"),
    "--limit": ("--questions",),
    "-n": ("--questions",),
    "--n": ("--samples",),
    "--size": ("--image-size",),
    "--rows": ("--grid",),
    "--cols": ("--grid",),
    "--sizes": ("--tokens",),
    "--methods": ("--pruner",),
    "--batch": ("--batch-size",),
    "--images": ("--images-per-prompt", "--samples"),
    "--model": ("--model-type",),
}
"""Spellings of earlier versions → today's. A command refuses an old spelling, and names the first of the new ones that it has."""

_MEANING = {
    "--k": "K: tokens are dropped before this decoder layer",
    "--layers": "decoder layers whose attention is read, counted from 0",
    "--questions": "questions of each task",
    "--image-size": "pictures, WIDTHxHEIGHT",
    "--grid": "the map's grid, ROWSxCOLS",
}


class _Help:
    """What commands and groups share, in front of typer's own class."""

    epilog: str | None
    params: list[Any]

    def __init__(self, *words: Any, **more: Any) -> None:
        super().__init__(*words, **more)
        self.params.append(_quiet())

    def get_params(self, ctx: Any) -> Any:
        """Return the parameters; flags show no type."""
        return _plain_flags(super().get_params(ctx))  # type: ignore[misc]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help; the epilog is Markdown for docs/commands.md, and plain text here."""
        markdown = self.epilog
        self.epilog = None if markdown is None else markdown.replace("```console\n", "").replace("\n```", "").replace("[", "\\[")
        super().format_help(ctx, formatter)  # type: ignore[misc]
        self.epilog = markdown


class Command(_Help, TyperCommand):
    """A command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments of the command."""
        _refuse_renamed(self, ctx, args)
        return super().parse_args(ctx, args)


class Group(_Help, TyperGroup):
    """A command with subcommands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments before the subcommand."""
        inside = next((index for index, word in enumerate(args) if word in self.commands), len(args))
        _refuse_renamed(self, ctx, args[:inside])
        return super().parse_args(ctx, args)


class App(typer.Typer):
    """A group of commands, each with `-h` and with examples below its help."""

    def __init__(self, **more: Any) -> None:
        """Make a group without commands."""
        super().__init__(cls=Group, context_settings={"help_option_names": ["-h", "--help"]}, **more)

    def command(self, name: str | None = None, **more: Any) -> Callable[[Any], Any]:
        """Add a command."""
        return super().command(name, cls=Command, **more)

    def with_examples(self, table: Mapping[str, Iterable[str]], words: str = "") -> None:
        """Put the examples of a table, words of a command → examples, below the help of all commands and groups."""
        for found in self.registered_commands:
            own = found.name or (found.callback.__name__ if found.callback is not None else "")
            found.epilog = shown(table.get(f"{words} {own}".strip(), ()))
        for group in self.registered_groups:
            own = f"{words} {group.name}".strip()
            group.epilog = shown(table.get(own, ()))
            if isinstance(group.typer_instance, App):
                group.typer_instance.with_examples(table, own)


def shown(examples: Iterable[str]) -> str | None:
    """Write examples down as Markdown; None without any.

    >>> print(shown(["models list"]).splitlines()[3])
    $ biaskit models list
    """
    lines = "\n".join(f"$ biaskit {example}" for example in examples)
    return f"Examples:\n\n```console\n{lines}\n```" if lines else None


def _hush(ctx: typer.Context, wanted: bool) -> None:
    if wanted or ctx.parent is None:
        be_quiet(wanted)


@cache
def _quiet() -> Any:
    """The option --quiet of all commands, as typer makes it from a signature."""
    only = typer.Typer()
    only.command()(_with_quiet)
    return next(parameter for parameter in get_command(only).params if parameter.name == "quiet")


def _with_quiet(
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            expose_value=False,
            callback=_hush,
            help="Print no progress; results, warnings and errors are still printed.",
        ),
    ] = False,
) -> None: ...


def _refuse_renamed(command: Any, ctx: Any, args: list[str]) -> None:
    known = {name for parameter in command.get_params(ctx) for name in (*parameter.opts, *parameter.secondary_opts)}
    for word in args[: args.index("--")] if "--" in args else args:
        old = word.partition("=")[0] if word.startswith("--") else word[:2]
        new = next((name for name in RENAMED.get(old, ()) if name in known), None)
        if old not in known and new is not None:
            meaning = f" ({_MEANING[new]})" if new in _MEANING else ""
            also = f"; {_MEANING['--layers']}, are --layers" if old == "--layer" and new == "--k" and "--layers" in known else ""
            raise typer.BadParameter(f"it is {new} now{meaning}{also}", param_hint=old)


def _plain_flags(parameters: Any) -> Any:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters
