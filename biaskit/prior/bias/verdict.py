"""Name the pattern of a bias map. All rules and thresholds are here.

| verdict          | rule                                                                                                      |
|------------------|-----------------------------------------------------------------------------------------------------------|
| sink-dominated   | the strongest 1% of the cells hold ≥ 30% of the mass and ≥ 10 × uniform; `why` names the map without them |
| bottom-focused   | bottom third ≥ 1.15 × uniform and ≥ 1.25 × the top third, centre of mass below the middle                 |
| top-focused      | as bottom-focused, with top and bottom exchanged                                                          |
| periphery-focused| outer ring ≥ 1.15 × uniform, and at least three of the four edges ≥ 1.1 × uniform                         |
| centre-focused   | central half × half ≥ 1.15 × uniform, and at least three of the four edges ≤ 1/1.1 × uniform              |
| recency          | bottom-focused, and a ramp over the whole token order: rank correlation with it ≥ 0.8, row means on a     |
|                  | straight line (R² ≥ 0.9) or the law exp(k·i) explains ≥ 0.8 of the variance of the logarithm, and growth  |
|                  | inside the rows too, at least half that of a raster ramp                                                  |
| flat             | none of these, and effective share ≥ 0.99 or its interval reaches that, or even and odd images disagree   |
| mixed            | none of these and not flat, or several of them, none with twice the effect of the others                  |

If the prior has groups of images, every "≥ x × uniform" also requires that the 95% interval excludes uniform: a pattern must be large *and*
not noise. A ramp in token order is bottom-focused too, and with R rows only 1/R of its slope is inside a row. `recency` therefore requires
growth inside the rows; without it a vertical gradient is called bottom-focused.
Sinks that do not dominate (cells of the strongest 1%, ≥ 10 × uniform and > 3 × the next cell) are clipped to the next cell first.
The effect of a pattern is (share − uniform) / (1 − uniform).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biaskit.prior.bias.jackknife import Replicates
from biaskit.prior.bias.measures import RING, Estimate, estimate, strip, top_percent

Array = NDArray[Any]
Maps = NDArray[np.float64]

VERDICTS = ("bottom-focused", "top-focused", "periphery-focused", "centre-focused", "recency", "sink-dominated", "flat", "mixed")

MIN_RATIO = 1.15  # a region's share over uniform that counts as a pattern
MIN_CONTRAST = 1.25  # bottom third over top third
EDGE_RATIO = 1.1  # an edge's share over uniform
SINK_SHARE = 0.30  # mass of the strongest 1%
SINK_RATIO = 10.0  # a sink over uniform; unreachable on grids of a few cells
SINK_GAP = 3.0  # a sink over the strongest cell that is not a sink
RECENCY_RHO, RECENCY_FIT, RECENCY_LAW, RECENCY_DRIFT = 0.8, 0.9, 0.8, 0.5
FLAT_SHARE = 0.99  # effective share; 1 − 0.99 is a coefficient of variation of 0.14 between cells, or a third at 1.16 × uniform on a ramp
DOMINANCE = 2.0  # one pattern's effect over the next

_RULED = (
    "bottom_third",
    "top_third",
    "centre_box",
    "outer_ring",
    "centre_row",
    "centre_col",
    "effective_share",
    "recency",
    "ramp_fit",
    "slope",
    "law",
)
_PLACE = {
    "bottom-focused": ("bottom_third", "the bottom third holds"),
    "top-focused": ("top_third", "the top third holds"),
    "periphery-focused": ("outer_ring", "the outer ring holds"),
    "centre-focused": ("centre_box", "the central half × half holds"),
}


@dataclass(frozen=True)
class _Evidence:
    """The numbers that the rules use, of the map with its sinks clipped."""

    metrics: dict[str, Estimate]
    edges: tuple[float, float, float, float]  # top, bottom, left, right over uniform
    rows: int
    cols: int


def classify(replicates: Replicates, metrics: dict[str, Estimate]) -> tuple[str, str]:
    """Return the verdict on a map [rows, cols] and one sentence that gives the numbers.

    Args:
        replicates: the map with its groups of images.
        metrics: its `biaskit.prior.bias.measures.estimates`.
    """
    mean = replicates.mean
    top = metrics["top_share"]
    dominated = top.value >= SINK_SHARE and _exceeds(top, SINK_RATIO)
    sinks = _sinks(mean, dominated)
    if not dominated and not _above(metrics["peak"], 1.0):
        sinks = sinks[:0]  # one image's outlier, not the model's sink
    if len(sinks) == 0:
        verdict, sentence = _pattern(_evidence(replicates, metrics), metrics.get("split_half"))
        return verdict, _sentence(sentence)
    clipped = replicates.apply(lambda maps: _clip(maps, sinks))
    halves = clipped.split_half()
    agreement = None if halves is None else Estimate(halves[0], *(halves[1] or (None, None)))
    verdict, sentence = _pattern(_evidence(clipped, {name: estimate(name, clipped) for name in _RULED}), agreement)
    if dominated:
        cells = f"strongest {len(sinks)} of {mean.size} cells hold" if len(sinks) > 1 else f"strongest of {mean.size} cells holds"
        held = f"the {cells} {top.value:.1%} of the mass{_interval(top)}"
        return "sink-dominated", _sentence(f"{held}; clipped, the map is {verdict}: {sentence}")
    cells = f"{len(sinks)} sink cell{'s' if len(sinks) > 1 else ''} with {mean.flat[sinks].sum() / mean.sum():.1%}"
    return verdict, _sentence(f"{sentence} (after clipping {cells} of the mass)")


def _sinks(mean: Maps, dominated: bool) -> Array:
    """Flat indices of the sinks of a map [rows, cols]: all of the strongest 1% if they dominate, else those far above the next cell."""
    order = np.argsort(-mean, axis=None, kind="stable")
    top, others = order[: top_percent(mean.size)], order[top_percent(mean.size) :]
    if dominated:
        return top
    alone = (mean.flat[top] > SINK_GAP * mean.flat[others[0]]) & (mean.flat[top] >= SINK_RATIO * mean.mean())
    sinks: Array = top[alone]
    return sinks


def _clip(maps: Maps, cells: Array) -> Maps:
    """Lower the given cells of maps [..., rows, cols] to the strongest of the others."""
    flat = maps.reshape(*maps.shape[:-2], -1).copy()
    others = np.delete(flat, cells, axis=-1).max(axis=-1, keepdims=True)
    flat[..., cells] = np.minimum(flat[..., cells], others)
    return flat.reshape(maps.shape)


def _evidence(replicates: Replicates, metrics: dict[str, Estimate]) -> _Evidence:
    mean = replicates.mean
    boxes = ({"bottom": RING}, {"top": 1 - RING}, {"right": RING}, {"left": 1 - RING})
    top, bottom, left, right = (float(strip(mean, **box)) / RING for box in boxes)
    return _Evidence(metrics, (top, bottom, left, right), *mean.shape)


def _above(found: Estimate, threshold: float) -> bool:
    """True if the value and its interval, if any, lie above the threshold."""
    return found.value > threshold and (found.low is None or found.low > threshold)


def _below(found: Estimate, threshold: float) -> bool:
    return found.value < threshold and (found.high is None or found.high < threshold)


def _exceeds(found: Estimate, ratio: float = MIN_RATIO) -> bool:
    """True if the value is at least `ratio` × uniform, and the interval, if any, excludes uniform."""
    assert found.uniform is not None
    return found.value >= ratio * found.uniform and _above(found, found.uniform)


def _patterns(evidence: _Evidence) -> dict[str, float]:
    """The regional patterns that the map has, with their effects: (share − uniform) / (1 − uniform)."""
    m = evidence.metrics
    bottom, top, row = m["bottom_third"], m["top_third"], m["centre_row"]
    edges = sorted(evidence.edges)
    holds = {
        "bottom-focused": _exceeds(bottom) and bottom.value >= MIN_CONTRAST * top.value and _above(row, 0.5),
        "top-focused": _exceeds(top) and top.value >= MIN_CONTRAST * bottom.value and _below(row, 0.5),
        "periphery-focused": _exceeds(m["outer_ring"]) and edges[1] >= EDGE_RATIO,
        "centre-focused": _exceeds(m["centre_box"]) and edges[2] <= 1 / EDGE_RATIO,
    }
    effects = {}
    for name, (metric, _) in _PLACE.items():
        found = m[metric]
        assert found.uniform is not None
        if holds[name]:
            effects[name] = (found.value - found.uniform) / (1 - found.uniform)
    return effects


def _drift(evidence: _Evidence) -> float:
    """Growth inside the rows, divided by that of a linear ramp in token order with the same growth from row to row.

    With density a + s·(r·cols + c) the centre of mass moves by s·cols·(rows² − 1)/(12·rows) down and s·(cols² − 1)/(12·cols) right.
    """
    rows, cols = evidence.rows, evidence.cols
    down, right = evidence.metrics["centre_row"].value - 0.5, evidence.metrics["centre_col"].value - 0.5
    expected = down * rows * (cols**2 - 1) / (cols**2 * (rows**2 - 1))
    return right / expected if expected > 0 else 0.0


def _is_ramp(evidence: _Evidence) -> bool:
    m = evidence.metrics
    steady = m["ramp_fit"].value >= RECENCY_FIT or _is_law(m)
    ordered = m["recency"].value >= RECENCY_RHO and _above(m["recency"], 0.0)
    return steady and ordered and _drift(evidence) >= RECENCY_DRIFT and _above(m["centre_col"], 0.5)


def _is_law(m: dict[str, Estimate]) -> bool:
    """True if exp(k·i) with k > 0 describes the map."""
    return m["law"].value >= RECENCY_LAW and _above(m["slope"], 0.0)


def _pattern(evidence: _Evidence, agreement: Estimate | None) -> tuple[str, str]:
    """Apply the table to a map without sinks. The returned sentence has no capital letter and no full stop."""
    m = evidence.metrics
    effects = _patterns(evidence)
    ranked = sorted(effects, key=lambda name: -effects[name])
    if not ranked:
        return _without_place(m, agreement)
    if len(ranked) > 1 and effects[ranked[0]] < DOMINANCE * effects[ranked[1]]:
        return "mixed", " and ".join(_held(m, name) for name in ranked)
    name = ranked[0]
    order = f"rank correlation with token order {m['recency'].value:.2f}"
    if name == "bottom-focused" and _is_ramp(evidence):
        law = f"k = {m['slope'].value:.2e} a token of 576 explains {max(m['law'].value, 0):.0%} of log attention"
        return "recency", f"attention grows steadily along the token order, {order}, {law}, and {_held(m, name)}"
    if name == "bottom-focused" and m["recency"].value >= RECENCY_RHO:
        return name, f"{_held(m, name)}; {order}, but {_not_ramp(m)}"
    if name == "periphery-focused":
        return name, f"{_held(m, name)}, with {sum(edge >= EDGE_RATIO for edge in evidence.edges)} of 4 edges bright"
    return name, _held(m, name)


def _without_place(m: dict[str, Estimate], agreement: Estimate | None) -> tuple[str, str]:
    """Verdict for a map without a regional pattern: flat or mixed."""
    flatness = m["effective_share"]
    even = f"effective share {flatness.value:.3f}{_interval(flatness, percent=False)}"
    if flatness.value >= FLAT_SHARE:
        return "flat", f"nearly the same attention everywhere, {even}"
    if flatness.high is not None and flatness.high >= FLAT_SHARE:
        return "flat", f"no cell differs from the others by more than noise, {even}"
    if agreement is not None and agreement.low is not None and agreement.low <= 0:
        return "flat", f"even and odd images show no common pattern, correlation {agreement.value:.2f}{_interval(agreement, percent=False)}"
    centre = f"centre of mass {m['centre_row'].value:.2f} down, {m['centre_col'].value:.2f} across"
    return "mixed", f"uneven, but not towards top, bottom, border or centre: {even}, {centre}"


def _not_ramp(m: dict[str, Estimate]) -> str:
    crooked = f"not as a straight ramp (R² {m['ramp_fit'].value:.2f})" if m["ramp_fit"].value < RECENCY_FIT else ""
    sideways = "without growth along the rows" if not crooked or _is_law(m) else ""
    return " and ".join(filter(None, (crooked, sideways)))


def _held(m: dict[str, Estimate], verdict: str) -> str:
    metric, text = _PLACE[verdict]
    found = m[metric]
    return f"{text} {found.value:.1%} of the mass{_interval(found)}, {found.ratio:.2f} × uniform"


def _interval(found: Estimate, percent: bool = True) -> str:
    """The interval in brackets, or nothing."""
    if found.low is None or found.high is None:
        return ""
    low, high = (f"{found.low:.1%}", f"{found.high:.1%}") if percent else (f"{found.low:.3f}", f"{found.high:.3f}")
    return f" (95% CI {low} to {high})"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
