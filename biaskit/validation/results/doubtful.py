"""Warnings about cells whose scores need care: far below a random choice of tokens, or mostly answers that cannot be read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

FAR = 0.1
"""How far a score in [0, 1] must be below that of a random choice, in addition to being significant (95 %)."""
UNREADABLE = 0.5
"""Share of unreadable answers from which on a cell is reported."""
NAMED = 6
"""Cells that a line names, the worst first; it counts the others."""


@dataclass(frozen=True)
class Scored:
    """A cell's score on one task.

    Attributes:
        label: of the cell. pruner: registry key. budget: as text, equal for cells at the same budget.
        score: mean, in [0, 1]. n: answers. parsed: share that could be read; None if the task does not record it.
        renumbered: True if the position ids of kept tokens were renumbered.
    """

    label: str
    pruner: str
    budget: str
    score: float
    n: int
    parsed: float | None = None
    renumbered: bool = False


def doubts(task: str, cells: Sequence[Scored]) -> list[str]:
    """Return a line about cells of a task far below `random` at the same budget, and one about cells with unreadable answers.

    >>> random = Scored("random/r0.5", "random", "50 %", 0.92, 1000, 1.0)
    >>> doubts("where", [random, Scored("fastv/r0.5", "fastv", "50 %", 0.43, 1000, 1.0)])
    ['where: fastv/r0.5 (43.0 %, random 92.0 %): far below a random choice of as many tokens; read some answers before comparing methods']
    """
    chance = {cell.budget: cell for cell in cells if cell.pruner == "random"}
    low = [cell for cell in cells if cell.budget in chance and _far_below(cell, chance[cell.budget])]
    low.sort(key=lambda cell: cell.score - chance[cell.budget].score)
    mute = sorted((cell for cell in cells if cell.parsed is not None and cell.parsed < UNREADABLE), key=lambda cell: cell.parsed or 0.0)
    lines = []
    for found, words, what in (
        (low, [f"{100 * cell.score:.1f} %, random {100 * chance[cell.budget].score:.1f} %" for cell in low],
         "far below a random choice of as many tokens; read some answers before comparing methods"),
        (mute, [f"{100 * (1 - (cell.parsed or 0.0)):.1f} %" for cell in mute], "so many of the answers cannot be read, and count as wrong"),
    ):  # fmt: skip
        if found:
            named = ", ".join(f"{cell.label} ({text})" for cell, text in list(zip(found, words, strict=True))[:NAMED])
            others = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
            lines.append(f"{task}: {named}{others}: {what}{_positions(found)}")
    return lines


def _far_below(cell: Scored, chance: Scored) -> bool:
    spread = sum(max(one.score * (1 - one.score), 0.0) / max(one.n, 1) for one in (cell, chance))
    return chance.score - cell.score > max(FAR, 1.96 * math.sqrt(spread))


def _positions(cells: Sequence[Scored]) -> str:
    names = dict.fromkeys(cell.pruner for cell in cells if cell.renumbered)
    return (
        f". Position ids with one axis were renumbered: run {', '.join(f'{name}@positions=original' for name in names)} too"
        if names
        else ""
    )
