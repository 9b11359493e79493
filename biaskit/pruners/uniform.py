"""The evenly spaced baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from biaskit.pruners import pruners
from biaskit.pruners.base import Pruner, param
from biaskit.pruners.signals import Signals
from biaskit.select import cells, uniform_select
from biaskit.select.keep import Keep


@pruners.register("uniform")
@dataclass(frozen=True)
class Uniform(Pruner):
    """Evenly spaced tokens, along the sequence or on the grid. Use the same K as the method it is compared with."""

    name: ClassVar[str] = "uniform"
    title: ClassVar[str] = "Uniform"
    paper: ClassVar[str] = "baseline"

    spacing: Literal["sequence", "grid"] = param(
        "sequence", "evenly spaced along the sequence, or on the grid (both directions of every plane)"
    )

    def choose(self, signals: Signals, budget: int) -> Keep:
        """Take evenly spaced tokens."""
        where = cells(signals.layout, newline_column=False) if self.spacing == "grid" else None
        return Keep(uniform_select(len(signals), budget, where=where))
