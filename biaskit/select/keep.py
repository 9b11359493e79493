"""Keep, and the one rounding rule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from biaskit.errors import BiaskitError


@dataclass(frozen=True, eq=False)
class Keep:
    """Which visual tokens stay.

    Attributes:
        indices: [n] int64, ascending, into the N visual tokens of the sample; on any device.
        info: what the method wants to report about this decision, such as the density of its graph.
    """

    indices: Tensor
    info: Mapping[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return n, the number of tokens kept."""
        return len(self.indices)


def budget(n_tokens: int, retention: float) -> int:
    """Return how many of `n_tokens` visual tokens to keep: retention × N, halves up, at least 1, at most N; 0 of 0.

    `retention` is taken as the decimal number it prints as: 0.29 of 50 is 14.5 and gives 15, although the product in binary is below 14.5.

    Raises:
        BiaskitError: retention is not in (0, 1].
    """
    if not 0 < retention <= 1:
        raise BiaskitError(f"retention is {retention}, not in 0 < r ≤ 1", "it is the share of visual tokens kept: 0.1 keeps a tenth")
    return min(max(math.floor(round(retention * n_tokens, 9) + 0.5), 1), n_tokens)
