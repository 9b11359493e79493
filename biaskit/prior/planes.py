"""`PlaneStats`, the statistics of one plane that calibration stores, and the checks of its tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biaskit.errors import PriorError
from biaskit.prior.format import REBUILD

Floats = NDArray[np.float32]

_PRIMARY = ("image", "canvas", "base")


@dataclass(frozen=True, eq=False)
class PlaneStats:
    """Statistics of one plane. Values are attention × N: uniform attention over all N visual tokens at full mass is 1.0.

    Attributes:
        mean: [L, rows, cols] float32, averaged over images: A_bias.
        var: [L, rows, cols] float32, sample variance over images (ddof=1; 0 where there was one image).
        group_mean: [G, L, rows, cols] float32, means over G consecutive blocks of the randomly ordered images, for jackknife intervals,
            split-half and convergence checks.
        group_count: [G] int32, images of each block; if 0, `group_mean` is 0.
        head_mean: [L, heads, rows, cols] float32, as `mean`, for every head.
        count: images that had this plane; 0 means unknown (imported priors).
    """

    mean: Floats
    var: Floats | None = None
    group_mean: Floats | None = None
    group_count: NDArray[np.int32] | None = None
    head_mean: Floats | None = None
    count: int = 0

    def __repr__(self) -> str:
        """One line: the tensors' sizes."""
        layers, rows, cols = self.mean.shape
        parts = [name for name in ("var", "group_mean", "head_mean") if getattr(self, name) is not None]
        return f"PlaneStats({rows}×{cols} at {layers} layers, {self.count} images{', with ' + ', '.join(parts) if parts else ''})"


def primary_first(planes: Mapping[str, PlaneStats], names: Iterable[str] | None = None) -> list[str]:
    """Return names of planes with the primary one, for figures and verdicts, first: image, canvas or base, else the largest.

    Args:
        planes: of a prior. names: only these, one or more; by default all.

    >>> sizes = {"newline": (24, 1), "canvas": (24, 24), "base": (12, 12)}
    >>> planes = {name: PlaneStats(np.ones((1, *size), np.float32)) for name, size in sizes.items()}
    >>> primary_first(planes), primary_first(planes, ["newline", "base"])
    (['canvas', 'newline', 'base'], ['base', 'newline'])
    """
    found = list(planes if names is None else names)
    usual = [name for name in _PRIMARY if name in found]
    primary = usual[0] if usual else max(sorted(found), key=lambda name: planes[name].mean.size)
    return [primary, *(name for name in found if name != primary)]


def check_plane(name: str, stats: PlaneStats, n_layers: int) -> None:
    """Check that a plane's statistics are consistent and possible for `n_layers` layers.

    Raises:
        PriorError: the message names the tensor and what is wrong with it.
    """
    if stats.mean.ndim != 3 or 0 in stats.mean.shape:
        raise PriorError(f"{name}.mean has shape {list(stats.mean.shape)}, not [layers, rows, cols]", REBUILD)
    rows, cols = stats.mean.shape[1:]
    check_values(f"{name}.mean", stats.mean, (n_layers, rows, cols))
    if not stats.mean.any(axis=(1, 2)).all():
        window = "with other --layers or shorter prompts if that layer has a sliding window that ends behind the image"
        raise PriorError(f"{name}.mean is all zero at a layer", f"{REBUILD}; {window}")
    if stats.count < 0:
        raise PriorError(f"count of plane {name} is {stats.count}", REBUILD)
    if stats.var is not None:
        check_values(f"{name}.var", stats.var, (n_layers, rows, cols))
    if stats.head_mean is not None:
        check_values(f"{name}.head_mean", stats.head_mean, (n_layers, max(stats.head_mean.shape[1:2], default=0), rows, cols))
    if (stats.group_mean is None) != (stats.group_count is None):
        raise PriorError(f"{name}.group_mean and {name}.group_count come together, one is missing", REBUILD)
    if stats.group_mean is None or stats.group_count is None:
        return
    groups = len(stats.group_mean) if stats.group_mean.ndim else 0
    check_values(f"{name}.group_mean", stats.group_mean, (groups, n_layers, rows, cols))
    check_values(f"{name}.group_count", stats.group_count, (groups,), np.int32)
    total = int(stats.group_count.sum(dtype=np.int64))
    if total != stats.count:
        raise PriorError(f"{name}.group_count adds up to {total}, not to the {stats.count} images of the plane", REBUILD)
    if stats.group_mean[stats.group_count == 0].any():
        raise PriorError(f"{name}.group_mean is not 0 for a block without images", REBUILD)


def check_values(name: str, values: NDArray[Any], shape: tuple[int, ...], dtype: type[np.generic] = np.float32) -> None:
    """Check a tensor's dtype and shape, that no axis is empty, and that its values are finite and not negative.

    Raises:
        PriorError: the message names the tensor and what is wrong with it.
    """
    if values.dtype != dtype:
        raise PriorError(f"{name} is {values.dtype}, not {np.dtype(dtype)}", REBUILD)
    if values.shape != shape or 0 in shape:
        raise PriorError(f"{name} has shape {list(values.shape)}, not {list(shape)}", REBUILD)
    if not np.isfinite(values).all():
        raise PriorError(f"{name} has values that are not finite", REBUILD)
    if values.min() < 0:
        raise PriorError(f"{name} has negative values, down to {values.min():.4g}", REBUILD)
