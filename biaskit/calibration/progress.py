"""Progress of a calibration, and its progress bar."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from biaskit.calibration.feed import Skip
from biaskit.display import Bars, wants_progress


@dataclass(frozen=True)
class Progress:
    """Images done on all processes, of how many, and images skipped on this process since the last report."""

    done: int
    total: int
    skipped: tuple[Skip, ...] = ()


Report = Callable[[Progress], None]


@contextmanager
def reported(report: Report | None, title: str, progress: bool | None) -> Iterator[Report]:
    """Yield a function to call after every batch: it draws a bar, prints skipped images above it, and calls `report`.

    Args:
        progress: draw the bar; None: on a terminal and in a notebook, unless there is a `report`. Of several processes the first one
            draws, and each prints its skipped images.
    """
    shown = wants_progress(False if progress is None and report is not None else progress)
    with Bars("images", shown=shown and os.environ.get("RANK", "0") == "0") as bars:

        def tell(progress: Progress) -> None:
            for skip in progress.skipped if shown else ():
                bars.say(f"skipped {skip.name}: {skip.reason}")
            bars.show(title, progress.done, progress.total)
            if report is not None:
                report(progress)

        yield tell
