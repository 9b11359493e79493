"""What every command prints goes through here, and so do its ends: streams that are closed or full, errors of the system as ours."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, TextIO

from biaskit.display import is_quiet
from biaskit.errors import BiaskitError
from biaskit.files import of_system
from biaskit.text import for_json, lines, visible

_PIPED = 200  # columns of a table where standard output is no terminal


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


def echo(*texts: object) -> None:
    """Print texts to standard output, each on lines of its own; what cannot be seen in them is written out."""
    for text in texts:
        print(lines(str(text)), flush=True)


def tell(*texts: object, always: bool = True) -> None:
    """Print texts to standard error, which tells of what happens besides the result.

    Args:
        always: also under --quiet, as errors and warnings are.
    """
    for text in texts if always or not is_quiet() else ():
        print(lines(str(text)), file=sys.stderr, flush=True)


def say(line: str) -> None:
    """Tell the user what is happening, on stderr; of several processes (torchrun) the first one does."""
    if os.environ.get("RANK", "0") == "0":
        tell(line, always=False)


def echo_json(value: Any, indent: int | None = 2) -> None:
    """Print the result as JSON."""
    print(for_json(value, indent), flush=True)


def echo_table(head: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """Print a table; where standard output is no terminal, its rows stay whole lines for grep."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Text(lines(title)) if title else None
    table = Table(title=shown, title_justify="left", box=None, pad_edge=False, header_style="bold", show_header=any(head))
    for word in head:
        table.add_column(Text(lines(word)), overflow="fold")
    for row in rows:
        table.add_row(*(Text(lines(str(cell))) for cell in row))
    console = Console()
    (console if console.is_terminal else Console(width=max(_PIPED, console.width))).print(table)


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
    with suppress(OSError):  # standard error may be full or closed as well: the exit code remains
        tell(f"error: {visible(message)}", f"hint: {visible(hint)}")
    sys.exit(1)
