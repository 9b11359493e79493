"""What a heatmap figure shows: the panels' maps in multiples of uniform, shared scales, titles and captions. No matplotlib."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biaskit.errors import BiaskitError
from biaskit.prior.bias.report import BiasReport, report
from biaskit.prior.planes import primary_first
from biaskit.prior.value import Prior

Maps = NDArray[np.float64]

TALLEST = 6.0  # a profile bar higher than this, in multiples of uniform, is cut off and its value written
_PROFILE_TICKS = (0.0, 0.5, 0.8, 0.9, 1.1, 1.2, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0)


@dataclass(frozen=True, eq=False)
class Panel:
    """One prior at one layer.

    Attributes:
        prior, layer: which; the layer is 0-based.
        maps: plane → [rows, cols], log2 of the attention over its mean over all visual tokens.
        main: the plane in the middle.
        name: what the prior is called.
        verdict: of the main plane, "" if it is too small for one.
    """

    prior: Prior
    layer: int
    maps: dict[str, Maps]
    main: str
    name: str
    verdict: str

    @property
    def layer_text(self) -> str:
        """The layer, also as the paper's K."""
        return f"layer {self.layer} (K = {self.layer + 1})"

    def profiles(self) -> tuple[Maps, Maps]:
        """Mean over cols for every row, and over rows for every col, of the main plane, in multiples of uniform."""
        values = np.exp2(self.maps[self.main])
        return values.mean(axis=1), values.mean(axis=0)


def panels(
    group: Sequence[Prior],
    layers: Sequence[int] | None = None,
    planes: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    reports: Sequence[BiasReport] | None = None,
) -> list[Panel]:
    """One panel per prior and layer, prior by prior; the arguments are those of `biaskit.figures.heatmap.heatmap`.

    Raises:
        BiaskitError: nothing to draw, or labels that do not match.
        PriorError: a prior lacks a layer or plane that was asked for.
    """
    if not group:
        raise BiaskitError("no prior to draw", "give at least one prior")
    if labels is not None and len(labels) != len(group):
        raise BiaskitError(f"{len(labels)} labels for {len(group)} priors", "give one label per prior")
    found = []
    for index, prior in enumerate(group):
        shown = shown_planes(prior, planes)
        wanted = prior.layers if layers is None else tuple(dict.fromkeys(layers))
        known = reports[index] if reports is not None else report(prior, layers=wanted, planes=shown[:1])
        name = labels[index] if labels is not None else (prior.model.rstrip("/").split("/")[-1] or "unknown model")
        for layer in wanted:
            maps = _relative(prior, layer)
            bias = known.get(layer, shown[0])
            found.append(Panel(prior, layer, {p: maps[p] for p in shown}, shown[0], name, bias.verdict if bias else ""))
    if not found:
        raise BiaskitError("no layer to draw", "name at least one layer, or omit the layers to draw all")
    return found


def shown_planes(prior: Prior, planes: Sequence[str] | None = None) -> list[str]:
    """The planes to show, the main one first (`primary_first`).

    Raises:
        PriorError: the prior lacks a plane that was asked for.
        BiaskitError: an empty list of planes.
    """
    for name in planes or ():
        prior.map(name, prior.layers[0])  # raises for a missing plane
    names = list(prior.planes if planes is None else dict.fromkeys(planes))
    if not names:
        raise BiaskitError("no plane to draw", "name at least one plane, or omit the planes to draw all")
    return primary_first(prior.planes, names)


def _relative(prior: Prior, layer: int) -> dict[str, Maps]:
    """Plane → log2 of the map over its mean over all visual tokens; a cell without attention is far below every scale."""
    maps = {name: prior.map(name, layer) for name in prior.planes}
    level = sum(float(m.sum()) for m in maps.values()) / sum(m.size for m in maps.values())
    return {name: np.log2(np.maximum(m / level, 1e-6)) for name, m in maps.items()}


def profile_reach(found: Sequence[Panel]) -> tuple[float, float]:
    """Limits of the profiles of these panels, in multiples of uniform: all their values, up to `TALLEST`."""
    values = np.concatenate([profile for panel in found for profile in panel.profiles()])
    top = min(float(values.max()), TALLEST)
    return max(0.0, 1 - 1.15 * max(1 - float(values.min()), 0.2)), 1 + 1.15 * max(top - 1, 0.2)


def cut_runs(values: Maps, top: float) -> list[tuple[int, float]]:
    """Return the bars that end above `top`: of each run of neighbours the highest, as (index, value).

    Example:
        >>> cut_runs(np.array([7.0, 9.0, 1.0, 8.0]), 6.0)
        [(1, 9.0), (3, 8.0)]
    """
    high = np.flatnonzero(values > top)
    runs = np.split(high, np.flatnonzero(np.diff(high) > 1) + 1) if len(high) else []
    return [(int(run[np.argmax(values[run])]), float(values[run].max())) for run in runs]


def profile_ticks(reach: tuple[float, float]) -> list[float]:
    """Uniform, and the outermost round numbers whose labels do not touch its own.

    >>> profile_ticks((0.0, 2.5))
    [0.0, 1.0, 2.0]
    """
    distance = 0.2 * (reach[1] - reach[0])
    inside = [tick for tick in _PROFILE_TICKS if reach[0] <= tick <= reach[1] and abs(tick - 1) >= distance]
    return [*[t for t in inside if t < 1][:1], 1.0, *[t for t in inside if t > 1][-1:]]


def caption(prior: Prior) -> str:
    """How many images, and the prompt."""
    count = f"mean over {prior.n_images:,} images" if prior.n_images else "number of images unknown"
    try:
        prompts: Any = json.loads(prior.meta.get("prompt", "[]"))
    except json.JSONDecodeError:
        prompts = None
    if not isinstance(prompts, list):
        prompts = [prior.meta["prompt"]]
    if not prompts:
        return count
    more = f" and {len(prompts) - 1} more" if len(prompts) > 1 else ""
    return f"{count} · prompt “{' '.join(str(prompts[0]).split())}”{more}"
