"""What all commands have in common: `-h`, examples, flags that show no type, and old spellings refused with the new one named."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

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
"""Spellings of earlier versions → those of today. A command refuses an old one that it does not know, and names the first it does know."""

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

    def get_params(self, ctx: Any) -> Any:
        """Return the parameters; flags show no type."""
        return _plain_flags(super().get_params(ctx))  # type: ignore[misc]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help; the epilog is Markdown for docs/commands.md, and plain text here."""
        held = self.epilog
        self.epilog = None if held is None else held.replace("```console\n", "").replace("\n```", "").replace("[", "\\[")
        super().format_help(ctx, formatter)  # type: ignore[misc]
        self.epilog = held


class Command(_Help, TyperCommand):
    """A command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words behind the command's name."""
        _refuse_renamed(self, ctx, args)
        return super().parse_args(ctx, args)


class Group(_Help, TyperGroup):
    """A command with further ones in it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words up to the further command."""
        inside = next((index for index, word in enumerate(args) if word in self.commands), len(args))
        _refuse_renamed(self, ctx, args[:inside])
        return super().parse_args(ctx, args)


class App(typer.Typer):
    """A group of commands, each with `-h` and with examples below its help."""

    def __init__(self, **more: Any) -> None:
        """Make a group without commands."""
        super().__init__(cls=Group, context_settings={"help_option_names": ["-h", "--help"]}, **more)

    def command(self, name: str | None = None, *, examples: Iterable[str] = (), **more: Any) -> Callable[[Any], Any]:
        """Add a command; `examples` are words as they are typed behind `biaskit`."""
        return super().command(name, cls=Command, epilog=shown(examples), **more)


def shown(examples: Iterable[str]) -> str | None:
    """Write examples down as Markdown; None without any.

    >>> print(shown(["models list"]).splitlines()[3])
    $ biaskit models list
    """
    lines = "\n".join(f"$ biaskit {example}" for example in examples)
    return f"Examples:\n\n```console\n{lines}\n```" if lines else None


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
