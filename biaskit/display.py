"""Display: progress bars on stderr while something runs, tables in notebooks."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from datetime import timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING

from biaskit.text import for_html, visible

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console
    from rich.progress import Progress, TaskID


def wants_progress(wanted: bool | None) -> bool:
    """Whether to show progress: as given; by default if stderr is a terminal, and in a notebook.

    >>> wants_progress(True), wants_progress(False)
    (True, False)
    """
    if wanted is not None:
        return wanted
    return in_notebook() or (sys.stderr is not None and sys.stderr.isatty())


def in_notebook() -> bool:
    """Whether this is a notebook's kernel. Imports nothing."""
    interactive = sys.modules.get("IPython")
    shell = None if interactive is None else interactive.get_ipython()
    return getattr(shell, "kernel", None) is not None


LINE_SECONDS = 30.0
"""Seconds between lines of progress where no bar can be drawn (a file, a batch job's log)."""


_wishes = {"quiet": False}


def is_quiet() -> bool:
    """Whether progress is hidden: `biaskit -q`."""
    return _wishes["quiet"]


def be_quiet(wanted: bool = True) -> None:
    """Hide progress from now on, or show it again."""
    _wishes["quiet"] = wanted


class Bars:
    """Progress bars on stderr, one per activity: done of total, the rate, the time passed and left.

    If stderr is not a terminal, a line is printed every `LINE_SECONDS` instead.

    Args:
        unit: of the rate, such as `images`; none is shown without one.
        shown: False draws no bars; lines of `say` are still printed.
    """

    def __init__(self, unit: str = "", *, shown: bool = True) -> None:
        self.unit, self.shown = unit, shown
        self._progress: Progress | None = None
        self._console: Console | None = None
        self._tasks: dict[str, tuple[TaskID, int]] = {}
        self._lines: dict[str, tuple[float, int, float]] = {}

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def show(self, what: str, done: int, total: int, *, key: str = "", detail: str = "") -> None:
        """Show the progress of one activity; the first call starts its bar at `done`.

        Args:
            what: text before the bar. key: identifies the bar if `what` changes. detail: text after the bar.
        """
        if not self.shown or is_quiet():
            return
        screen = self._screen()
        if not (screen.is_terminal or screen.is_jupyter):
            self._line(key or what, what, done, total, detail)
            return
        what, detail = visible(what), visible(detail)
        progress = self._begun()
        if (key or what) not in self._tasks:
            self._tasks[key or what] = progress.add_task(what, total=total, completed=done, rate="", detail=detail), done
        task, first = self._tasks[key or what]
        elapsed = progress.tasks[task].elapsed
        rate = f"{(done - first) / elapsed:.1f}" if elapsed and done > first else "–"
        shown_rate = f"{rate} {self.unit}/s" if self.unit else ""
        progress.update(task, description=what, completed=done, total=total, rate=shown_rate, detail=detail)

    def _line(self, key: str, what: str, done: int, total: int, detail: str) -> None:
        """Print the progress of one activity, if its last line is `LINE_SECONDS` old."""
        now = time.monotonic()
        began, first, last = self._lines.setdefault(key, (now, done, now))
        if now - last < LINE_SECONDS:
            return
        self._lines[key] = began, first, now
        rate = (done - first) / (now - began)
        left = f", {timedelta(seconds=round((total - done) / rate))} left" if rate and done < total else ""
        pace = f", {rate:.1f} {self.unit}/s" if rate and self.unit else ""
        self.say(f"{what}: {done} of {total}{pace}{left}{f' · {detail}' if detail else ''}")

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self._screen().print(visible(line), markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Stop drawing, and restore the terminal."""
        if self._progress is not None:
            self._progress.stop()

    def _screen(self) -> Console:
        from rich.console import Console

        if self._console is None:
            plain = in_notebook() and find_spec("ipywidgets") is None  # rich needs ipywidgets to draw bars in notebooks
            self._console = Console(stderr=True, force_jupyter=False, force_terminal=True, width=120) if plain else Console(stderr=True)
        return self._console

    def _begun(self) -> Progress:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        if self._progress is None:
            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[detail]}", markup=False),
                console=self._screen(),
            )
            self._progress.start()
        return self._progress


def html_table(headers: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> str:
    """Return a table for a notebook; every text is escaped.

    >>> html_table(["a"], [["<b>"]], "one & two")
    '<table><caption>one &amp; two</caption><thead><tr><th>a</th></tr></thead><tbody><tr><td>&lt;b&gt;</td></tr></tbody></table>'
    """

    def line(cells: Iterable[object], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{for_html(cell)}</{tag}>' for cell in cells)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    title = f"<caption>{for_html(caption)}</caption>" if caption else ""
    return f"<table>{title}<thead>{line(headers, 'th')}</thead><tbody>{body}</tbody></table>"
