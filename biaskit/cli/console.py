"""The ends of every command: standard streams that cannot show a character, are closed or full, and errors of the system as ours."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TextIO

from biaskit.errors import BiaskitError
from biaskit.files import of_system


def run(command: Callable[[], None]) -> None:
    """Run a command to its exit code: 0 fine, 1 an error of ours or the system's, 2 usage, 130 interrupted.

    A reader that closes the pipe (`biaskit … | head`) ends the command quietly, with 1 as typer and rich do it.
    """
    sys.stdout, sys.stderr = _writable(sys.stdout), _writable(sys.stderr)
    try:
        try:
            command()
        finally:
            sys.stdout.flush()  # else a full disk shows only when the interpreter ends
    except BiaskitError as error:
        _fail(error.message, error.hint)
    except BrokenPipeError:
        _forget_output()
        sys.exit(1)
    except OSError as error:
        _forget_output()
        found = of_system(error)
        _fail(found.message, found.hint)


def _writable(stream: TextIO | None) -> TextIO:
    """A stream that takes every text: characters that the console cannot show are written as escapes; a closed one swallows all."""
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123
    change = getattr(stream, "reconfigure", None)
    if change is not None and (stream.encoding or "").lower().replace("-", "") != "utf8":
        change(errors="backslashreplace")
    return stream


def _forget_output() -> None:
    """Have what is still in the buffer of standard output thrown away, so that the interpreter does not complain at its end."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        sys.stdout = _writable(None)


def _fail(message: str, hint: str) -> None:
    print(f"error: {message}\nhint: {hint}", file=sys.stderr)
    sys.exit(1)
