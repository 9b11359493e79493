"""Progress of a validation, and its progress bar."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from biaskit.display import Bars, wants_progress


@dataclass(frozen=True)
class Progress:
    """Answers done and answers in all, over all cells; and the current cell with its primary score so far, over n questions."""

    done: int
    total: int
    task: str = ""
    cell: str = ""
    score: float | None = None
    n: int = 0


Report = Callable[[Progress], None]
Say = Callable[[str], None]


@contextmanager
def reported(report: Report | None, say: Say | None, progress: bool | None) -> Iterator[tuple[Report, Say]]:
    """Yield two functions: one to call after every batch, and one to call with warnings, which shows each only once.

    Args:
        progress: draw a bar; None: on a terminal and in a notebook, unless there is a `report`. Of several processes the first one draws.
    """
    shown = wants_progress(False if progress is None and report is not None else progress)
    said: set[str] = set()
    begun = False
    first = os.environ.get("RANK", "0") == "0"
    with Bars("answers", shown=shown and first) as bars:
        out = say or (bars.say if shown else warnings.warn)

        def once(line: str) -> None:
            if line not in said:
                said.add(line)
                out(line)

        def tell(now: Progress) -> None:
            nonlocal begun
            if shown and first and now.done and not begun:
                bars.say(f"{now.done} of {now.total} answers are there; going on")
            begun = True
            score = f"{now.task} · {now.cell} · {100 * now.score:.1f} % of {now.n}" if now.score is not None else ""
            bars.show("validating", now.done, now.total, detail=score)
            if report is not None:
                report(now)

        yield tell, once
