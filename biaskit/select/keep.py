"""Keep, the result of a selection, and `budget`, the rule for rounding a share to a number of tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from biaskit.errors import BiaskitError


@dataclass(frozen=True, eq=False)
class Keep:
    """The visual tokens that are kept.

    Attributes:
        indices: [n] int64, ascending, into the N visual tokens of the sample; on any device. A kept row has the position id and cell of
            its index.
        info: numbers that the method reports about this decision, such as the density of its graph.
        values: [n, d] new hidden states of these tokens from layer K on, for methods that merge tokens; None: unchanged. A model that adds
            features of the tower after later layers too (DeepStack) still adds those of the index.

    Example:
        >>> import torch
        >>> keep = Keep(torch.tensor([5, 2]), {"merged": 1.0}, torch.tensor([[5.0], [2.0]])).ascending()
        >>> len(keep), keep.indices.tolist(), keep.values.tolist()
        (2, [2, 5], [[2.0], [5.0]])
    """

    indices: Tensor
    info: Mapping[str, float] = field(default_factory=dict)
    values: Tensor | None = None

    def __len__(self) -> int:
        """Return n, the number of tokens kept."""
        return len(self.indices)

    def ascending(self) -> Keep:
        """Return the same with ascending indices."""
        if self.values is None and self.indices.device.type == "cpu":  # NumPy checks the order faster
            return replace(self, indices=torch.from_numpy(np.sort(self.indices.numpy())))
        indices, order = self.indices.sort()
        return replace(self, indices=indices, values=None if self.values is None else self.values[order.to(self.values.device)])


def budget(n_tokens: int, retention: float) -> int:
    """Return how many of `n_tokens` visual tokens to keep: retention × N, halves up, at least 1, at most N; 0 for N = 0.

    `retention` is taken as the decimal number that it prints as: 0.29 of 50 is 14.5 and gives 15, although the binary product is below.

    Example:
        >>> budget(576, 0.25), budget(50, 0.29), budget(3, 0.01)
        (144, 15, 1)

    Raises:
        BiaskitError: retention is not in (0, 1].
    """
    if not 0 < retention <= 1:
        raise BiaskitError(f"retention is {retention}, not in 0 < r ≤ 1", "it is the share of visual tokens kept: 0.1 keeps a tenth")
    return min(max(math.floor(round(retention * n_tokens, 9) + 0.5), 1), n_tokens)
