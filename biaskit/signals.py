"""What a pruner may see of one sample, `Signals`, and what it answers, `Keep`; and the one rule that turns a share into a whole number.

A pruner names what it reads in `needs`; the engine records that and leaves the rest None. Names in `needs`: `attention`, `hidden`,
`text_hidden`, `keys`, `embeds`, `final_norm`. Layout, layer, the prior and the generator are always there.
"""

from __future__ import annotations

from biaskit.pruners.signals import NEEDS, Signals
from biaskit.select.keep import Keep, budget

__all__ = ["NEEDS", "Keep", "Signals", "budget"]
