"""What a heatmap figure shows: the panels' maps in multiples of uniform, the scales they share, their words. No matplotlib."""

from __future__ import annotations

import json
import math
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

_ROBUST = 99.0  # percentile of |log2| in a map that the colours must reach; what lies beyond is clipped and marked at the colour bar
_HEADROOM = 0.15  # log2 above it, so that a cell a little stronger is not painted as a sink
_FAINTEST, _STRONGEST = 1.25, 8.0  # bounds of the colour scale's end, in multiples of uniform: a flat map shall look flat
_FINE = ((0.45, (1 / 1.25, 1 / 1.1, 1.0, 1.1, 1.25)), (1.6, (0.5, 1 / 1.5, 1 / 1.25, 1.0, 1.25, 1.5, 2.0)))  # up to |log2| → ticks
_PROFILE_TICKS = (0.0, 0.5, 0.8, 0.9, 1.1, 1.2, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0)


@dataclass(frozen=True, eq=False)
class Panel:
    """One prior at one layer.

    Attributes:
        prior, layer: which; the layer is 0-based.
        maps: plane → [rows, cols], log2 of the attention over its mean over all visual tokens.
        main: the plane in the middle.
        name: what the prior is called.
        verdict: the main plane's, "" where it is too small to have one.
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

    def profiles(self, limit: float = math.inf) -> tuple[Maps, Maps]:
        """Mean over cols for every row, and over rows for every col, in multiples of uniform, of the map clipped at `limit` (log2)."""
        values = np.exp2(np.minimum(self.maps[self.main], limit))
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
        raise BiaskitError("no layer to draw", "name at least one layer, or leave the layers out to draw all")
    return found


def shown_planes(prior: Prior, planes: Sequence[str] | None = None) -> list[str]:
    """The planes to show, the main one first (`primary_first`).

    Raises:
        PriorError: the prior lacks a plane that was asked for.
        BiaskitError: an empty list of planes.
    """
    for name in planes or ():
        prior.map(name, prior.layers[0])  # raises for a plane that is not there
    names = list(prior.planes if planes is None else dict.fromkeys(planes))
    if not names:
        raise BiaskitError("no plane to draw", "name at least one plane, or leave the planes out to draw all")
    return primary_first(prior.planes, names)


def _relative(prior: Prior, layer: int) -> dict[str, Maps]:
    """Plane → log2 of the map over its mean over all visual tokens; a cell without any attention is far below every scale."""
    maps = {name: prior.map(name, layer) for name in prior.planes}
    level = sum(float(m.sum()) for m in maps.values()) / sum(m.size for m in maps.values())
    return {name: np.log2(np.maximum(m / level, 1e-6)) for name, m in maps.items()}


def colour_limit(maps: Sequence[Maps]) -> float:
    """Half-width of the colour scale of maps in log2: reaches the 99th percentile of every one, so a map's few sinks do not set it.

    >>> colour_limit([np.log2(np.array([[0.5, 1.0, 2.0]]))])
    1.25
    """
    robust = max(float(np.percentile(np.abs(values), _ROBUST, method="lower")) for values in maps)
    wide = math.ceil((robust + _HEADROOM) * 4) / 4
    return min(max(wide, math.log2(_FAINTEST)), math.log2(_STRONGEST))


def colour_ticks(limit: float, fine: bool) -> list[float]:
    """Multiples of uniform to label on a log2 scale of ± limit; a short colour bar has no room for fine ones.

    >>> colour_ticks(1.0, fine=True)
    [0.5, 0.6666666666666666, 0.8, 1.0, 1.25, 1.5, 2.0]
    """
    for reach, ticks in _FINE:
        if limit <= reach and (fine or limit < 1):
            return [tick for tick in ticks if abs(math.log2(tick)) <= limit + 1e-9]
    top = math.floor(limit + 1e-9)
    return [2.0**power for power in range(-top, top + 1)]


def profile_reach(found: Sequence[Panel], limit: float) -> tuple[float, float]:
    """Limits of all profiles, in multiples of uniform: those of the maps as coloured, so bars that a sink lifts higher are cut off."""
    values = np.concatenate([profile for panel in found for profile in panel.profiles(limit)])
    return max(0.0, 1 - 1.15 * max(1 - float(values.min()), 0.2)), 1 + 1.15 * max(float(values.max()) - 1, 0.2)


def profile_ticks(reach: tuple[float, float]) -> list[float]:
    """Uniform, and the outermost round numbers whose labels do not touch its own.

    >>> profile_ticks((0.0, 2.5))
    [0.0, 1.0, 2.0]
    """
    apart = 0.2 * (reach[1] - reach[0])
    inside = [tick for tick in _PROFILE_TICKS if reach[0] <= tick <= reach[1] and abs(tick - 1) >= apart]
    return [*[t for t in inside if t < 1][:1], 1.0, *[t for t in inside if t > 1][-1:]]


def multiple(tick: float) -> str:
    """A multiple of uniform in few characters.

    >>> multiple(1.5), multiple(0.125)
    ('1.5', '0.125')
    """
    return f"{tick:.2f}".rstrip("0").rstrip(".") if tick >= 0.2 else f"{tick:.3g}"


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
