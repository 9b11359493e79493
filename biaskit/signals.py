"""What a pruner gets of one sample, `Signals`, and what it returns, `Keep`; and the rule that turns a share into a number of tokens.

A pruner declares what it reads in `needs`, a set of `Reading`s; the engine records only that. The readings that most methods use
have names: ATTENTION, HIDDEN, TEXT_HIDDEN, KEYS, TEXT_KEYS, EMBEDS, TEXT_EMBEDS. `signals[ATTENTION]` is the tensor.
"""

from __future__ import annotations

from biaskit.pruners.readings import ATTENTION, EMBEDS, HIDDEN, KEYS, TEXT_EMBEDS, TEXT_HIDDEN, TEXT_KEYS, Reading
from biaskit.pruners.signals import Signals
from biaskit.select.keep import Keep, budget

__all__ = ["ATTENTION", "EMBEDS", "HIDDEN", "KEYS", "TEXT_EMBEDS", "TEXT_HIDDEN", "TEXT_KEYS", "Keep", "Reading", "Signals", "budget"]
