"""Running statistics of calibration: mean and variance on every plane, in float64, that can be saved, restored and merged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from biaskit.grid import Layout
from biaskit.prior.resample import resample
from biaskit.prior.value import PlaneStats

if TYPE_CHECKING:
    from typing import Self

Floats = NDArray[np.float64]

GROUPS = 20
"""Blocks of images whose means are kept: the raw material of jackknife intervals, split halves and convergence."""


class PlaneMoments:
    """Count, mean and sum of squared deviations of maps [L, rows, cols] (Welford), sums per block and, if wanted, per head."""

    def __init__(self, shape: tuple[int, int, int], groups: int, heads: int | None) -> None:
        self.count = 0
        self.mean: Floats = np.zeros(shape)
        self.squares: Floats = np.zeros(shape)
        self.group_sum: Floats = np.zeros((groups, *shape))
        self.group_count = np.zeros(groups, dtype=np.int64)
        self.head_sum: Floats | None = None if heads is None else np.zeros((shape[0], heads, *shape[1:]))

    def add(self, values: Floats, group: int, per_head: Floats | None) -> None:
        """Count one image: its map [L, rows, cols] and, if heads are kept, its maps [L, heads, rows, cols]."""
        self.count += 1
        delta = values - self.mean
        self.mean += delta / self.count
        self.squares += delta * (values - self.mean)
        self.group_sum[group] += values
        self.group_count[group] += 1
        if self.head_sum is not None and per_head is not None:
            self.head_sum += per_head

    def merge(self, other: PlaneMoments) -> None:
        """Take in the statistics of other images (Chan, Golub, LeVeque 1979)."""
        total = self.count + other.count
        if not total:
            return
        delta = other.mean - self.mean
        self.mean += delta * (other.count / total)
        self.squares += other.squares + delta**2 * (self.count * other.count / total)
        self.count = total
        self.group_sum += other.group_sum
        self.group_count += other.group_count
        if self.head_sum is not None and other.head_sum is not None:
            self.head_sum += other.head_sum

    def stats(self) -> PlaneStats:
        """Return the float32 statistics of a prior."""
        groups = np.maximum(self.group_count, 1)[:, None, None, None]
        return PlaneStats(
            mean=self.mean.astype(np.float32),
            var=(self.squares / max(self.count - 1, 1)).astype(np.float32),
            group_mean=(self.group_sum / groups).astype(np.float32),
            group_count=self.group_count.astype(np.int32),
            head_mean=None if self.head_sum is None else (self.head_sum / self.count).astype(np.float32),
            count=self.count,
        )


class Moments:
    """The statistics of all planes.

    Args:
        samples: n, how many images there will be; image number s falls into block ⌊s · groups / n⌋.
        layers: L. canonical: (rows, cols) of each plane. heads: number of heads if they are kept apart. groups: blocks.

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
        self.mass: Floats = np.zeros(layers)
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
            attention: [L, N], or [L, heads, N] if heads are kept: softmax over all keys, visual tokens only.
        """
        density = attention.astype(np.float64) * len(layout)
        pooled = density if self.heads is None else density.mean(1)
        self.count += 1
        self.mass += pooled.mean(-1)
        group = slot * self.groups // self.samples
        maps = layout.fold(pooled)
        per_head = [None] * len(maps) if self.heads is None else layout.fold(density)
        for plane, folded, heads in zip(layout.planes, maps, per_head, strict=True):
            size = self.canonical[plane.name]
            self._plane(plane.name).add(resample(folded, *size), group, None if heads is None else resample(heads, *size))

    def merge(self, other: Moments) -> None:
        """Take in the statistics of other images of the same calibration."""
        self.count += other.count
        self.mass += other.mass
        for name, plane in other.planes.items():
            self._plane(name).merge(plane)

    def stats(self) -> tuple[dict[str, PlaneStats], NDArray[np.float32]]:
        """Return the statistics of each plane, and the visual mass [L]."""
        planes = {name: self.planes[name].stats() for name in self.canonical if name in self.planes}
        return planes, (self.mass / self.count).astype(np.float32)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return everything as arrays, for the state on disk."""
        state: dict[str, NDArray[Any]] = {"mass": self.mass, "count": np.array([self.count])}
        for name, plane in self.planes.items():
            parts = {key: value for key, value in vars(plane).items() if isinstance(value, np.ndarray)}
            state |= {f"{name}.{key}": value for key, value in parts.items()} | {f"{name}.count": np.array([plane.count])}
        return state

    def restore(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """Set everything from `tensors()`; the same number goes in as came out."""
        self.mass, self.count = state["mass"].copy(), int(state["count"][0])
        for key in state:
            name, _, part = key.rpartition(".")
            if name:
                value = int(state[key][0]) if part == "count" else state[key].copy()
                setattr(self._plane(name), part, value)
        return self
