"""Output of all commands, and how they end: closed or full streams, and errors of the operating system printed like those of biaskit."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from biaskit.display import is_quiet
from biaskit.errors import BiaskitError
from biaskit.files import of_system
from biaskit.text import for_json, lines, visible

_PIPED = 200  # columns of a table where standard output is not a terminal


def run(command: Callable[[], None]) -> None:
    """Run a command. Exit codes: 0 success, 1 an error of biaskit or of the operating system, 2 usage, 130 interrupted.

    A reader that closes the pipe (`biaskit … | head`) ends the command without a message and with exit code 1, as in typer and rich.
    """
    sys.stdout, sys.stderr = _writable(sys.stdout), _writable(sys.stderr)
    try:
        try:
            command()
        finally:
            sys.stdout.flush()  # otherwise a full disk is noticed only when the interpreter exits
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
    """Print texts to standard output, each on its own lines; invisible characters are written as escapes."""
    for text in texts:
        print(lines(str(text)), flush=True)


def tell(*texts: object, always: bool = True) -> None:
    """Print texts to standard error, where everything but the result goes.

    Args:
        always: also under --quiet, as errors and warnings are.
    """
    for text in texts if always or not is_quiet() else ():
        print(lines(str(text)), file=sys.stderr, flush=True)


def say(line: str) -> None:
    """Print a line of progress on stderr; of several processes (torchrun) only the first one prints."""
    if os.environ.get("RANK", "0") == "0":
        tell(line, always=False)


@contextmanager
def notes() -> Iterator[None]:
    """Turn the warnings of a block into notes on standard error."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield
    for one in found:
        say(f"note: {one.message}")


def echo_json(value: Any, indent: int | None = 2) -> None:
    """Print the result as JSON."""
    print(for_json(value, indent), flush=True)


def echo_table(head: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """Print a table; where standard output is not a terminal, each row stays on one line, for grep."""
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
    """Make a stream accept every text: characters that the console cannot show are written as escapes; a closed stream discards all."""
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123
    change = getattr(stream, "reconfigure", None)
    if change is not None and (stream.encoding or "").lower().replace("-", "") != "utf8":
        change(errors="backslashreplace")
    return stream


def _forget_output() -> None:
    """Discard what is still in the buffer of standard output, so that the interpreter does not complain when it exits."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        sys.stdout = _writable(None)


def _fail(message: str, hint: str) -> None:
    with suppress(OSError):  # standard error may be full or closed as well: the exit code remains
        tell(f"error: {visible(message)}", f"hint: {visible(hint)}")
    sys.exit(1)
