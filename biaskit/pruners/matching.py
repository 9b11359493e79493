"""Match budgets by the mean number of visual tokens per layer, so that methods acting at different layers have equal cost."""

from __future__ import annotations

import math
from collections.abc import Callable

from biaskit.errors import BiaskitError
from biaskit.pruners.base import Pruner
from biaskit.select.schedules import layer_counts

MANY = 1_000_000
"""Visual tokens of an imaginary prompt on which shares are compared, large enough that rounding to whole tokens is negligible."""


def layer_mean(pruner: Pruner, n_tokens: int, depth: int) -> float:
    """Return how many of N visual tokens a decoder layer sees on average, of a model with `depth` layers.

    Example:
        >>> from biaskit.pruners import get_pruner
        >>> [layer_mean(get_pruner("fastv", budget=n), 576, 32) for n in (192, 128, 64)]
        [216.0, 156.0, 96.0]
    """
    counts = layer_counts(n_tokens, depth, [(stage.layer, stage.tokens(n_tokens)) for stage in pruner.stages()])
    return sum(counts) / depth


def matched(make: Callable[[float], Pruner], share: float, depth: int, label: str) -> Pruner:
    """Return the method with the retention at which the mean over layers is a given share of N.

    Args:
        make: builds the method from its retention. share: the target mean over layers, as a share of N.
        depth: decoder layers of the model. label: the method's name in errors.

    If the mean falls in steps (FitPrune, whose α do), the next one above is taken; results record the real one.

    Raises:
        BiaskitError: its unpruned first layers alone exceed the share.

    Example:
        >>> from biaskit.pruners import get_pruner
        >>> found = matched(lambda share: get_pruner("fastv", retention=share), 128 / 576, 32, "fastv")
        >>> round(found.retention * 576, 2)  # 22.2 of the cards: 98.13 tokens after two whole layers are 128 in the mean
        98.13
    """

    def mean(retention: float) -> float:
        return layer_mean(make(retention), MANY, depth) / MANY

    if abs(mean(share) - share) < 2 / MANY:
        return make(share)
    low, high = 1 / MANY, 1.0
    if mean(low) > share + 2 / MANY:
        raise BiaskitError(
            f"{label}: a layer mean of {share:.2%} of the visual tokens cannot be reached: its first layers alone give {mean(low):.2%}",
            "ask for more, act earlier (k=0 where the method can), or leave the method out",
        )
    while high - low > 1e-7:
        middle = (low + high) / 2
        low, high = (middle, high) if mean(middle) < share else (low, middle)
    return make(math.ceil(high * 1e6) / 1e6)
