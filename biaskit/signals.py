"""What a pruner may see of one sample, `Signals`, and what it answers, `Keep`; and the one rule that turns a share into a whole number.

A pruner names what it reads in `needs`, a set of `Reading`s; the engine records that and nothing else. The readings that most methods use
have names: ATTENTION, HIDDEN, TEXT_HIDDEN, KEYS, TEXT_KEYS, EMBEDS, TEXT_EMBEDS. `signals[ATTENTION]` is the tensor.
"""

from __future__ import annotations

from biaskit.pruners.readings import ATTENTION, EMBEDS, HIDDEN, KEYS, TEXT_EMBEDS, TEXT_HIDDEN, TEXT_KEYS, Reading
from biaskit.pruners.signals import Signals
from biaskit.select.keep import Keep, budget

__all__ = ["ATTENTION", "EMBEDS", "HIDDEN", "KEYS", "TEXT_EMBEDS", "TEXT_HIDDEN", "TEXT_KEYS", "Keep", "Reading", "Signals", "budget"]
