"""Statistics of FitPrune's calibration: how many tokens each layer would delete at every α, image by image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from biaskit.calibration.sums import ExactSum, Floats
from biaskit.grid import Layout
from biaskit.pruners.schedule import ALPHAS
from biaskit.select import fitprune_deletions_many

if TYPE_CHECKING:
    from typing import Self

_PARTS = ("share", "entering", "squares")


class Deletions:
    """Sums over images, at every α of `ALPHAS` and every layer: the share deleted, the tokens that enter, and their squares. All exact.

    An image's attention maps are not stored: they are dropped as soon as its deletions are counted.

    >>> from biaskit.grid import Plane, raster
    >>> tokens = raster(Plane("image", 1, 3))
    >>> layout = Layout(np.arange(3), tokens.planes, tokens.plane, tokens.row, tokens.col)
    >>> deletions = Deletions(layers=2)
    >>> deletions.add(0, layout, np.array([[[0.0, 1, 3], [0, 1, 3]], [[0, 1, 3], [0, 1, 3]]]))
    >>> deletions.mean("entering")[-1].tolist()
    [3.0, 1.0]
    """

    def __init__(self, layers: int) -> None:
        self.layers, self.count = layers, 0
        self.sums = {part: ExactSum((len(ALPHAS), layers)) for part in _PARTS}

    def add(self, slot: int, layout: Layout, values: Floats) -> None:
        """Count one image: its maps [L, 2, N], cross and self."""
        values = values.astype(np.float64)
        deleted = fitprune_deletions_many(values[:, 0], values[:, 1], ALPHAS).astype(np.float64)
        entering = len(layout) - np.cumsum(deleted, axis=1) + deleted
        self.count += 1
        self.sums["share"].add(deleted / len(layout))
        self.sums["entering"].add(entering)
        self.sums["squares"].add(entering**2)

    def mean(self, part: str) -> Floats:
        """Return a mean over images, [A, L]."""
        return self.sums[part].value() / self.count

    def alike(self) -> Deletions:
        """Return empty sums of the same shape."""
        return Deletions(self.layers)

    def merge(self, other: Deletions) -> None:
        """Add the sums over other images of the same calibration."""
        self.count += other.count
        for part, total in self.sums.items():
            total.merge(other.sums[part])

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return everything as arrays, for the state on disk."""
        return {"count": np.array([self.count]), **{part: total.limbs for part, total in self.sums.items()}}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """Set everything from `tensors()`."""
        self.count = int(state["count"][0])
        for part, total in self.sums.items():
            total.limbs = state[part].copy()
        return self
