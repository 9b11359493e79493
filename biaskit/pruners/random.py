"""The random baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from biaskit.errors import BiaskitError
from biaskit.pruners import pruners
from biaskit.pruners.base import Pruner
from biaskit.pruners.signals import Signals
from biaskit.select import random_select
from biaskit.select.keep import Keep


@pruners.register("random")
@dataclass(frozen=True)
class Random(Pruner):
    """n tokens drawn without replacement from the decision's generator. Use the same K as the method it is compared with."""

    name: ClassVar[str] = "random"
    title: ClassVar[str] = "Random"
    paper: ClassVar[str] = "baseline"

    def choose(self, signals: Signals, budget: int) -> Keep:
        """Draw the tokens.

        Raises:
            BiaskitError: the signals have no generator.
        """
        if signals.generator is None:
            raise BiaskitError("random needs a generator, so that results can be repeated", "pass a seeded torch.Generator in Signals")
        return Keep(random_select(len(signals), budget, signals.generator))
