"""Running statistics of calibration: mean and variance on every plane, exact, that can be saved, restored and merged in any order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from biaskit.calibration.sums import ExactSum, Floats, variance
from biaskit.grid import Layout
from biaskit.prior.resample import resample
from biaskit.prior.value import PlaneStats

if TYPE_CHECKING:
    from typing import Self

GROUPS = 20
"""Number of blocks of images whose means are stored, for jackknife intervals, split halves and convergence."""


class PlaneMoments:
    """Exact count, sum and sum of squares of maps [L, rows, cols], with sums per block and, if wanted, per head."""

    def __init__(self, shape: tuple[int, int, int], groups: int, heads: int | None) -> None:
        self.count = 0
        self.group_count = np.zeros(groups, dtype=np.int64)
        self.sums = {"sum": ExactSum(shape), "squares": ExactSum(shape), "groups": ExactSum((groups, *shape))}
        if heads is not None:
            self.sums["heads"] = ExactSum((shape[0], heads, *shape[1:]))

    def add(self, values: Floats, group: int, per_head: Floats | None) -> None:
        """Add one image: its map [L, rows, cols] and, if heads are stored, its maps [L, heads, rows, cols]."""
        self.count += 1
        self.group_count[group] += 1
        self.sums["sum"].add(values)
        self.sums["squares"].add_squares(values)
        self.sums["groups"].add(values, group)
        if per_head is not None:
            self.sums["heads"].add(per_head)

    def merge(self, other: PlaneMoments) -> None:
        """Add the statistics of other images."""
        self.count += other.count
        self.group_count += other.group_count
        for name, total in self.sums.items():
            total.merge(other.sums[name])

    def stats(self) -> PlaneStats:
        """Return the float32 statistics of a prior."""
        groups = np.maximum(self.group_count, 1)[:, None, None, None]
        heads = self.sums.get("heads")
        return PlaneStats(
            mean=(self.sums["sum"].value() / self.count).astype(np.float32),
            var=variance(self.sums["sum"], self.sums["squares"], self.count).astype(np.float32),
            group_mean=(self.sums["groups"].value() / groups).astype(np.float32),
            group_count=self.group_count.astype(np.int32),
            head_mean=None if heads is None else (heads.value() / self.count).astype(np.float32),
            count=self.count,
        )

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return everything as arrays."""
        return {"count": np.array([self.count]), "group_count": self.group_count, **{name: one.limbs for name, one in self.sums.items()}}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Set everything from `tensors()`."""
        self.count, self.group_count = int(state["count"][0]), state["group_count"].copy()
        for name, total in self.sums.items():
            total.limbs = state[name].copy()


class Moments:
    """The statistics of all planes.

    Args:
        samples: n, the planned number of images; image number s is in block ⌊s · groups / n⌋.
        layers: L. canonical: (rows, cols) of each plane. heads: their number, if stored separately. groups: number of blocks.

    >>> from biaskit.grid import Plane, raster
    >>> tokens = raster(Plane("image", 1, 2))
    >>> layout = Layout(np.arange(2), tokens.planes, tokens.plane, tokens.row, tokens.col)
    >>> moments = Moments(samples=2, layers=1, canonical={"image": (1, 2)})
    >>> moments.add(0, layout, np.array([[0.1, 0.3]]))
    >>> moments.add(1, layout, np.array([[0.3, 0.5]]))
    >>> moments.stats()[0]["image"].mean
    array([[[0.4, 0.8]]], dtype=float32)
    """

    def __init__(
        self, samples: int, layers: int, canonical: Mapping[str, tuple[int, int]], heads: int | None = None, groups: int = GROUPS
    ) -> None:
        self.samples = samples
        self.layers = layers
        self.canonical = dict(canonical)
        self.heads = heads
        self.groups = min(groups, samples)
        self.count = 0
        self.mass = ExactSum((layers,))
        self.planes: dict[str, PlaneMoments] = {}

    def _plane(self, name: str) -> PlaneMoments:
        if name not in self.planes:
            self.planes[name] = PlaneMoments((self.layers, *self.canonical[name]), self.groups, self.heads)
        return self.planes[name]

    def add(self, slot: int, layout: Layout, attention: Floats) -> None:
        """Count one image.

        Args:
            slot: the image's number, 0 … n − 1.
            layout: its N visual tokens.
            attention: [L, N], or [L, heads, N] if heads are stored: softmax over all keys, at visual tokens only.
        """
        density = attention.astype(np.float64) * len(layout)
        pooled = density if self.heads is None else density.mean(1)
        self.count += 1
        self.mass.add(pooled.mean(-1))
        group = slot * self.groups // self.samples
        maps = layout.fold(pooled)
        per_head = [None] * len(maps) if self.heads is None else layout.fold(density)
        for plane, folded, heads in zip(layout.planes, maps, per_head, strict=True):
            size = self.canonical[plane.name]
            self._plane(plane.name).add(resample(folded, *size), group, None if heads is None else resample(heads, *size))

    def alike(self) -> Moments:
        """Return empty statistics of the same shape."""
        return Moments(self.samples, self.layers, self.canonical, self.heads, self.groups)

    def merge(self, other: Moments) -> None:
        """Add the statistics of other images of the same calibration."""
        self.count += other.count
        self.mass.merge(other.mass)
        for name, plane in other.planes.items():
            self._plane(name).merge(plane)

    def stats(self) -> tuple[dict[str, PlaneStats], NDArray[np.float32]]:
        """Return the statistics of each plane, and the visual mass [L]."""
        planes = {name: self.planes[name].stats() for name in self.canonical if name in self.planes}
        return planes, (self.mass.value() / self.count).astype(np.float32)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return everything as arrays, for the state on disk."""
        planes = {f"{name}.{part}": value for name, plane in self.planes.items() for part, value in plane.tensors().items()}
        return {"mass": self.mass.limbs, "count": np.array([self.count]), **planes}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """Set everything from `tensors()`."""
        self.mass.limbs, self.count = state["mass"].copy(), int(state["count"][0])
        for name in self.canonical:
            parts = {key.rpartition(".")[2]: value for key, value in state.items() if key.rpartition(".")[0] == name}
            if parts:
                self._plane(name).restore(parts)
        return self
