"""What `biaskit priors` prints for people: rich tables of provenance, bias metrics, comparisons. Loaded by those commands only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from biaskit.cli.console import echo, echo_table
from biaskit.prior.revision import read_settings

if TYPE_CHECKING:
    from biaskit.prior.bias.report import BiasReport
    from biaskit.prior.store import PriorFile
    from biaskit.prior.value import Prior

PER_TABLE = 3  # maps side by side in a metrics table: fits 80 columns


def _layers(layers: Sequence[int]) -> str:
    """0, 1, 2, 5 → `0-2,5`."""
    runs: list[list[int]] = []
    for k in layers:
        if runs and k == runs[-1][1] + 1:
            runs[-1][1] = k
        else:
            runs.append([k, k])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def plane_sizes(prior: Prior) -> str:
    """Write `base 24x24, canvas 48x48`."""
    return ", ".join(f"{name} {s.mean.shape[1]}x{s.mean.shape[2]}" for name, s in prior.planes.items())


def print_list(found: Sequence[PriorFile]) -> None:
    """Print one line per prior; unreadable ones say why."""
    rows: list[tuple[object, ...]] = []
    for item in found:
        if item.prior is None:
            rows.append((item.name, item.place, f"unreadable: {item.error}", "", "", "", "", item.path))
        else:
            p = item.prior
            rows.append(
                (
                    item.name,
                    item.place,
                    p.model or "unknown",
                    p.model_type,
                    _layers(p.layers),
                    plane_sizes(p),
                    p.n_images or "unknown",
                    item.path,
                )
            )
    echo_table(("name", "place", "model", "type", "layers", "planes", "images", "file"), rows)


def _provenance(prior: Prior) -> list[tuple[str, str]]:
    rows = []
    for key, text in prior.meta.items():
        if key == "skipped":
            continue  # n_skipped says how many, --json who and why
        if key == "prompt":
            try:
                prompts = json.loads(text)
            except ValueError:
                prompts = text
            text = "\n".join(map(str, prompts)) if isinstance(prompts, list) else text
        if key == "processor":
            text = "\n".join(f"{name} = {json.dumps(value)}" for name, value in read_settings(text).items()) or text
        rows.append((key, text))
    rows.append(("layers", _layers(prior.layers)))
    for name, stats in prior.planes.items():
        parts = [f"{stats.mean.shape[1]} rows x {stats.mean.shape[2]} cols", f"{stats.count} images" if stats.count else "images unknown"]
        parts += ["variance"] * (stats.var is not None)
        parts += [] if stats.group_mean is None else [f"{len(stats.group_mean)} groups"]
        parts += [] if stats.head_mean is None else [f"{stats.head_mean.shape[1]} heads"]
        rows.append((f"plane {name}", ", ".join(parts)))
    mass = ", ".join(f"{k}: {value:.3f}" for k, value in zip(prior.layers, prior.visual_mass, strict=True))
    return [*rows, ("visual mass", f"{mass} (by layer)" if prior.meta.get("kind") != "imported" else "unknown, set to 1")]


_LAW = {"slope": "k of exp(k·i), per token of 576", "law": "variance that exp(k·i) explains"}
"""Measures of the recency law, for people."""


def _interval(value: float, low: float | None, high: float | None, form: str = ".3f") -> str:
    return f"{value:{form}}" if low is None or high is None else f"{value:{form}} [{low:{form}}, {high:{form}}]"


def _correlation(point: dict[str, Any]) -> str:
    unseen = point.get("unseen_r")
    return f"{point['r']:.3f}" + ("" if unseen is None else f" ({unseen:.3f})")


def print_show(prior: Prior, report: BiasReport, convergence: Sequence[dict[str, Any]]) -> None:
    """Print provenance, verdict per map, metrics with 95 % intervals, and how fast the map converged."""
    echo_table(("", ""), _provenance(prior), "provenance")
    maps = report.layers
    echo("")
    echo_table(("plane", "layer", "verdict", "why"), [(m.plane, m.layer, m.verdict, m.why) for m in maps], "bias")
    for start in range(0, len(maps), PER_TABLE):
        some = maps[start : start + PER_TABLE]
        names = list(dict.fromkeys(name for m in some for name in m.metrics))
        held = [[m.metrics.get(name) for m in some] for name in names]
        forms = [".2e" if name == "slope" else ".3f" for name in names]
        cells = [["" if e is None else _interval(e.value, e.low, e.high, form) for e in row] for row, form in zip(held, forms, strict=True)]
        rows = [(_LAW.get(name, name), *row) for name, row in zip(names, cells, strict=True)]
        echo("")
        echo_table(("metric", *(f"{m.plane} {m.layer}" for m in some)), rows)
    if convergence:
        counts = sorted({int(point["n"]) for point in convergence})
        r = {(point["plane"], point["layer"], point["n"]): _correlation(point) for point in convergence}
        keys = list(dict.fromkeys((point["plane"], point["layer"]) for point in convergence))
        rows_r = [(*key, *(r.get((*key, n), "") for n in counts)) for key in keys]
        title = "correlation of the first n images' map with the final one (with that of the images after n)"
        echo("")
        echo_table(("plane", "layer", *(f"n={n}" for n in counts)), rows_r, title)


def print_diff(
    maps: Sequence[dict[str, Any]], meta: dict[str, tuple[str | None, str | None]], notes: Sequence[str], names: tuple[str, str]
) -> None:
    """Print the maps side by side, then what differs in the metadata."""
    rows = [
        (
            m["plane"],
            m["layer"],
            f"{m['rows']}x{m['cols']}{' (resampled)' if m['resampled'] else ''}",
            f"{m['pearson']:.3f}",
            f"{m['spearman']:.3f}",
            f"{m['top_k']:.2f} ({m['top_k_chance']:.2f})",
            f"{m['mean_abs_diff']:.3f}",
            f"{m['level_a']:.3g} / {m['level_b']:.3g}",
        )
        for m in maps
    ]
    headers = ("plane", "layer", "grid", "Pearson", "Spearman", "top 25% overlap (chance)", "|a-b| / uniform", "levels")
    echo_table(headers, rows)
    if meta:
        other = [(key, a if a is not None else "-", b if b is not None else "-") for key, (a, b) in meta.items()]
        echo("")
        echo_table(("differs", *names), other)
    if notes:
        echo("")
        echo_table(("not compared",), [(note,) for note in notes])
