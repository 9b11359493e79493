"""The assignment of images to the slots of a calibration, independent of the number of processes and restarts."""

from __future__ import annotations

from collections.abc import Container, Sequence

from biaskit.calibration.feed import Task


class Phases:
    """The tasks of a calibration, in phases.

    Slot s gets image s of the seeded order. In each further phase, slots whose image was skipped get the next images of the order, until
    every slot is filled or the images run out.

    Args:
        order: of the source's images. samples: n, the number of slots.

    Attributes:
        tasks: of this phase. empty: number of slots that remain without an image.

    >>> phases = Phases([7, 3, 5, 0], samples=2)
    >>> phases.tasks
    [(0, 7), (1, 3)]
    >>> phases.advance({(1, 3)})
    >>> phases.tasks
    [(1, 5)]
    """

    def __init__(self, order: Sequence[int], samples: int) -> None:
        self.order, self.cursor, self.empty = order, samples, 0
        self.tasks: list[Task] = [(slot, int(order[slot])) for slot in range(samples)]

    def advance(self, skipped: Container[Task]) -> None:
        """Advance to the next phase, given which tasks of this one were skipped."""
        slots = sorted(task[0] for task in self.tasks if task in skipped)
        spare = [int(index) for index in self.order[self.cursor : self.cursor + len(slots)]]
        self.tasks = list(zip(slots, spare, strict=False))
        self.empty += len(slots) - len(spare)
        self.cursor += len(slots)

    def shared(self, size: int, done: Container[Task], rank: int, count: int) -> list[tuple[Task, ...]]:
        """Return a process's share of this phase's batches: fixed slices of its tasks, without the tasks in `done`.

        The batches do not depend on the number of processes, so that an image is always padded together with the same others.

        >>> Phases(range(9), samples=6).shared(2, {(0, 0), (1, 1)}, rank=1, count=2)
        [((4, 4), (5, 5))]
        """
        slices = (self.tasks[start : start + size] for start in range(0, len(self.tasks), size))
        batches = [tuple(task for task in tasks if task not in done) for tasks in slices]
        return [batch for batch in batches if batch][rank::count]
