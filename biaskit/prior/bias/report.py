"""Reports on the positional bias of a model's attention: metrics with confidence intervals, verdict, convergence, comparison of priors.

    report(prior)      → BiasReport: per layer and plane the measures of `prior.bias.measures` and the pattern of `prior.bias.verdict`
    convergence(prior) → how close the prior was after the first n images
    compare(a, b)      → how far two priors agree

Intervals are over images (`biaskit.prior.bias.jackknife`); they need a prior with groups of images, as calibrated priors have.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biaskit.display import html_table
from biaskit.errors import BiaskitError
from biaskit.prior.bias.correlation import pearson, spearman, top_overlap
from biaskit.prior.bias.jackknife import Replicates
from biaskit.prior.bias.measures import Estimate, estimates
from biaskit.prior.bias.verdict import classify
from biaskit.prior.layers import Layers, read_layers
from biaskit.prior.planes import primary_first
from biaskit.prior.resample import resample
from biaskit.prior.store import load_prior
from biaskit.prior.value import PlaneStats, Prior
from biaskit.registry import named_arguments

__all__ = ["BiasReport", "Estimate", "LayerBias", "bias_report", "compare", "convergence", "report"]

TOP = 0.25  # share of the strongest cells whose overlap `compare` reports


@dataclass(frozen=True)
class LayerBias:
    """The bias of one plane at one layer.

    Attributes:
        layer: 0-based decoder layer whose attention was read.
        plane: `image`, `canvas`, …
        rows, cols: the plane's size in visual tokens.
        metrics: the names of `biaskit.prior.bias.measures.MEASURES`, and `split_half` if there are groups of images.
        verdict: one of `biaskit.prior.bias.verdict.VERDICTS`.
        why: one sentence with the numbers behind it.
    """

    layer: int
    plane: str
    rows: int
    cols: int
    metrics: dict[str, Estimate]
    verdict: str
    why: str

    def __repr__(self) -> str:
        """One line: layer, plane, verdict and reason."""
        return f"LayerBias(layer {self.layer}, {self.plane} {self.rows}×{self.cols}: {self.verdict}. {self.why})"


@dataclass(frozen=True)
class BiasReport:
    """The result of `report`.

    Attributes:
        model: the model's id or folder.
        n_images: images behind the prior; 0 if unknown.
        layers: one entry per plane of at least 2 × 2 cells and layer; the primary plane comes first, layers ascend.
    """

    model: str
    n_images: int
    layers: list[LayerBias]

    def __repr__(self) -> str:
        """One line: the model and each layer's verdict."""
        found = "; ".join(f"layer {entry.layer} {entry.plane}: {entry.verdict}" for entry in self.layers)
        return f"BiasReport({self.model or 'unknown model'}, {self.n_images} images; {found or 'no plane with a pattern'})"

    def _repr_html_(self) -> str:
        rows = [[entry.layer, entry.plane, f"{entry.rows}×{entry.cols}", entry.verdict, entry.why] for entry in self.layers]
        caption = f"{self.model or 'unknown model'}, {self.n_images} images"
        return html_table(["layer", "plane", "size", "verdict", "why"], rows, caption)

    def get(self, layer: int, plane: str) -> LayerBias | None:
        """Return the entry of a layer and plane; None if the plane is too small to have one."""
        return next((entry for entry in self.layers if (entry.layer, entry.plane) == (layer, plane)), None)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON."""
        rows = [
            {
                "layer": entry.layer,
                "plane": entry.plane,
                "rows": entry.rows,
                "cols": entry.cols,
                "verdict": entry.verdict,
                "why": entry.why,
                "metrics": {name: found.to_json() for name, found in entry.metrics.items()},
            }
            for entry in self.layers
        ]
        return {"model": self.model, "n_images": self.n_images, "layers": rows}


@named_arguments
def bias_report(
    prior: Prior | str | os.PathLike[str], *, layers: Layers | None = None, planes: str | Sequence[str] | None = None
) -> BiasReport:
    """Measure and name the positional bias of a prior.

    Args:
        prior: the prior, or a name or path for `load_prior`.
        layers: 0-based decoder layers (1, (1, 4), "0-7", "all"), all by default.
        planes: a plane or several, all by default. Planes smaller than 2 × 2 cells (a newline column) are left out.

    Raises:
        PriorError: the prior lacks a layer or plane that was asked for.

    >>> values = np.linspace(0.5, 1.5, 16, dtype=np.float32).reshape(1, 4, 4)
    >>> prior = Prior({"image": PlaneStats(values)}, (1,), np.ones(1, dtype=np.float32), {"model": "org/name", "model_type": "llava"})
    >>> bias_report(prior).layers[0].verdict
    'recency'
    """
    prior = load_prior(prior)
    chosen = read_layers(layers)
    wanted = prior.layers if chosen is None or isinstance(chosen, str) else tuple(sorted(set(chosen)))
    planes = [planes] if isinstance(planes, str) else planes
    for name in planes or ():
        prior.map(name, prior.layers[0])  # raises for a plane that is not there
    names = [name for name in primary_first(prior.planes) if planes is None or name in planes]
    found = [_bias(prior, name, layer) for name in names if min(prior.planes[name].mean.shape[1:]) >= 2 for layer in wanted]
    return BiasReport(prior.model, prior.n_images, found)


report = bias_report


def _bias(prior: Prior, plane: str, layer: int) -> LayerBias:
    stats, index = prior.planes[plane], prior.layer(layer)
    groups = None if stats.group_mean is None else stats.group_mean[:, index]
    replicates = Replicates.of(stats.mean[index], groups, stats.group_count)
    metrics = estimates(replicates)
    verdict, why = classify(replicates, metrics)
    rows, cols = stats.mean.shape[1:]
    return LayerBias(layer, plane, rows, cols, metrics, verdict, why)


def convergence(prior: Prior, at: Sequence[int] = (10, 20, 50, 100, 200, 500, 1000)) -> list[dict[str, Any]]:
    """Return how close the prior was to its final state after its first n images.

    Groups are consecutive blocks of the randomly ordered images, so the mean over the first blocks is the result of a calibration that
    stopped there. Each n of `at` is moved to the nearest block boundary (the earlier one of two equally near), and each boundary is
    reported once.

    Returns:
        A list of dicts, by plane (primary first), layer and n, empty for a prior without groups of images:
        `n` (images of that plane at the boundary), `plane`, `layer`,
        `r` (Pearson correlation of the first n images' map with the final map, which includes these n images),
        `l1` (mean |difference| over the mean of the final map),
        `unseen_r` (Pearson correlation with the map of the images after n, without that overlap; None at the end).

    >>> maps = np.ones((2, 1, 2, 2), np.float32) + np.eye(2, dtype=np.float32)
    >>> stats = PlaneStats(maps[0], group_mean=maps, group_count=np.array([5, 5], np.int32), count=10)
    >>> prior = Prior({"image": stats}, (1,), np.ones(1, np.float32), {"model_type": "llava"})
    >>> [(found["n"], round(found["r"], 3)) for found in convergence(prior, at=(5, 10))]
    [(5, 1.0), (10, 1.0)]
    """
    rows: list[dict[str, Any]] = []
    for name in primary_first(prior.planes):
        stats = prior.planes[name]
        if stats.group_mean is None or stats.group_count is None or stats.mean[0].size < 2:
            continue
        ends = _boundaries(stats.group_count, at)
        rows += [_converged(stats, name, layer, index, end) for index, layer in enumerate(prior.layers) for end in ends]
    return rows


def _boundaries(counts: NDArray[np.int32], at: Sequence[int]) -> list[int]:
    """Return the numbers of groups for the wanted numbers of images: ascending, each with images that the one before does not have."""
    sizes = np.cumsum(counts, dtype=np.int64)
    boundaries = {int(size): int(np.searchsorted(sizes, size)) + 1 for size in sizes if size > 0}
    if not boundaries:
        return []
    nearest = {min(boundaries, key=lambda size: (abs(size - want), size)) for want in at}
    return [boundaries[size] for size in sorted(nearest)]


def _converged(stats: PlaneStats, plane: str, layer: int, index: int, end: int) -> dict[str, Any]:
    assert stats.group_mean is not None
    assert stats.group_count is not None
    counts = stats.group_count.astype(np.float64)
    mass = stats.group_mean[:, index].astype(np.float64).reshape(len(counts), -1) * counts[:, None]
    final = mass.sum(axis=0) / counts.sum()
    first = mass[:end].sum(axis=0) / counts[:end].sum()
    rest = counts[end:].sum()
    level = final.mean()
    return {
        "n": int(counts[:end].sum()),
        "plane": plane,
        "layer": layer,
        "r": float(pearson(first, final)),
        "l1": float(np.abs(first - final).mean() / level) if level > 0 else 0.0,
        "unseen_r": float(pearson(first, mass[end:].sum(axis=0) / rest)) if rest > 0 else None,
    }


def compare(a: Prior, b: Prior) -> list[dict[str, Any]]:
    """Return how well two priors agree, on every plane and layer that both have.

    Returns:
        A list of dicts, by plane (a's primary first) and layer:
        `plane`, `layer`, `rows`, `cols` (the grid compared on),
        `resampled` (True if the sizes differ: both maps are then resampled to the smaller rows and the smaller cols),
        `pearson`, `spearman`,
        `top_k` (Jaccard overlap of the strongest 25% of the cells) and `top_k_chance` (the same for random cells),
        `mean_abs_diff` (in multiples of uniform: both maps are first divided by their means).

    Raises:
        BiaskitError: the priors share no plane or no layer.

    >>> values = np.linspace(0.5, 1.5, 16, dtype=np.float32).reshape(1, 4, 4)
    >>> prior = Prior({"image": PlaneStats(values)}, (1,), np.ones(1, dtype=np.float32), {"model": "org/name", "model_type": "llava"})
    >>> compare(prior, prior)[0]["pearson"]
    1.0
    """
    planes = [name for name in primary_first(a.planes) if name in b.planes]
    layers = [layer for layer in a.layers if layer in b.layers]
    if not planes or not layers:
        what, mine, theirs = ("layer", a.layers, b.layers) if planes else ("plane", tuple(a.planes), tuple(b.planes))
        raise BiaskitError(
            f"the priors share no {what}: {', '.join(map(str, mine))} and {', '.join(map(str, theirs))}",
            f"compare priors that were calibrated on the same {what}s",
        )
    return [_compared(a, b, plane, layer) for plane in planes for layer in layers]


def _compared(a: Prior, b: Prior, plane: str, layer: int) -> dict[str, Any]:
    maps = [prior.map(plane, layer) for prior in (a, b)]
    rows, cols = (min(size) for size in zip(*(m.shape for m in maps), strict=True))
    x, y = (resample(m, rows, cols).ravel() for m in maps)
    x, y = x / x.mean(), y / y.mean()
    top, chance = top_overlap(x, y, TOP)
    return {
        "plane": plane,
        "layer": layer,
        "rows": rows,
        "cols": cols,
        "resampled": maps[0].shape != maps[1].shape,
        "pearson": float(pearson(x, y)),
        "spearman": float(spearman(x, y)),
        "top_k": top,
        "top_k_chance": chance,
        "mean_abs_diff": float(np.abs(x - y).mean()),
    }
