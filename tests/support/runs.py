"""Runs made up for tests: folders as `biaskit validate` writes them, whose truth is known."""

from __future__ import annotations

import json

import numpy as np

DIMS = {"layers": 8, "hidden": 64, "inner": 192, "heads": 4, "kv_heads": 2, "head_dim": 16, "vocab": 512}
TITLES = {"fastv": "FastV", "d2pruner": "D2Pruner", "none": "no pruning", "theirs": "Their method"}
ROWS = ("top", "middle", "bottom")
# what share of the questions that the unpruned model gets right is still right: method → retention → share, by row of the image
KEPT = {
    "random": {0.5: (0.90,) * 3, 0.25: (0.75,) * 3, 0.1: (0.50,) * 3},
    "uniform": {0.5: (0.92,) * 3, 0.25: (0.80,) * 3, 0.1: (0.55,) * 3},
    "fastv": {0.5: (0.80, 0.90, 0.98), 0.25: (0.45, 0.70, 0.95), 0.1: (0.20, 0.40, 0.85)},
    "fastv+prior": {0.5: (0.95, 0.96, 0.97), 0.25: (0.85, 0.86, 0.90), 0.1: (0.65, 0.68, 0.75)},
    "d2pruner@strength=0": {0.5: (0.85, 0.92, 0.97), 0.25: (0.55, 0.75, 0.93), 0.1: (0.30, 0.50, 0.80)},
    "d2pruner+prior": {0.5: (0.96, 0.97, 0.98), 0.25: (0.90, 0.91, 0.92), 0.1: (0.75, 0.76, 0.80)},
    "divprune": {0.5: (0.93,) * 3, 0.25: (0.82,) * 3, 0.1: (0.60,) * 3},
    "dart": {0.5: (0.91,) * 3, 0.25: (0.80,) * 3, 0.1: (0.52,) * 3},
}
SWEEPS = {
    "d2pruner@alpha=0+prior": 0.93, "d2pruner@alpha=0.25+prior": 0.97, "d2pruner@alpha=0.5+prior": 1.03, "d2pruner@alpha=0.75+prior": 1.02,
    "d2pruner@strength=0.25+prior": 0.80, "d2pruner@strength=0.5+prior": 0.9, "d2pruner@strength=0.75+prior": 0.97,
    "d2pruner@pivot_mode=mis+prior": 0.98,
}  # fmt: skip


def plain(method):
    """The pruner's key, its settings, and whether there is a prior."""
    words = method.removesuffix("+prior").split("@")
    settings = dict(word.split("=") for word in words[1:])
    return words[0], settings, method.endswith("+prior")


def parameters(method, retention):
    pruner, settings, _ = plain(method)
    if pruner == "none":
        return {}
    known = {"retention": retention, "budget": None, "layer": 2}
    if pruner in ("fastv", "d2pruner"):
        known |= {"strength": 1.0, "mode": "ratio"}
    if pruner == "d2pruner":
        known |= {"alpha": 1.0, "theta": 0.8, "pivot_ratio": 0.7, "pivot_mode": "topk"}
    for name, value in settings.items():
        known[name] = value if name in ("pivot_mode", "debias", "mode", "rows") else float(value)
    return known


def make_run(
    folder, tasks=("scenes-where", "scenes-presence"), n=300, unpruned=0.9, kept=None, sweeps=False, seed=0, per_image=1, graded=False,
    model="demo", retentions=(0.5, 0.25, 0.1), metric="iou50",
):  # fmt: skip
    """Write results.jsonl and run.json; questions are right as the tables above say, drawn with common luck for all methods."""
    folder.mkdir(parents=True, exist_ok=True)
    shares = dict(KEPT if kept is None else kept)
    if sweeps:
        for method, factor in SWEEPS.items():
            shares[method] = {r: tuple(min(1.0, v * factor) for v in row) for r, row in KEPT["d2pruner+prior"].items()}
    random = np.random.default_rng(seed)
    lines, cells = [], [("none", 1.0, None)]
    cells += [(method, r, shares[method]) for method in shares for r in retentions]
    for task in tasks:
        right = random.random(n) < unpruned
        luck = random.random((n, 1)) * 0.5 + random.random((n, len(cells))) * 0.5
        luck = np.argsort(np.argsort(luck, axis=0), axis=0) / n  # uniform again, but correlated between methods
        for column, (method, retention, share) in enumerate(cells):
            for i in range(n):
                row = i % 3
                ok = bool(right[i] and (share is None or luck[i, column] < share[retention][row]))
                lines.append(_record(task, method, retention, i, ok, ROWS[row], per_image, graded, metric))
    (folder / "results.jsonl").write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines), encoding="utf-8")
    manifest = {
        "schema": 1, "commands": [f"biaskit validate --model {model}"],
        "model": {"name": model, "revision": "r1", "model_type": "llava"},
        "dims": DIMS, "dtype": "float32", "attention": "sdpa", "device": "cpu", "n": n, "seed": seed,
        "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
        "tasks": [{"name": task, "metric": metric, "fingerprint": "0" * 64, "n": n} for task in tasks],
        "priors": {}, "cells": [{"cell": method if method == "none" else f"{method}/r{r:g}"} for method, r, _ in cells],
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return folder


def _record(task, method, retention, i, ok, row, per_image, graded, metric):
    pruner, _, prior = plain(method)
    kept = 144 if pruner == "none" else max(1, int(144 * retention + 0.5))
    known = parameters(method, retention)
    title = TITLES.get(pruner, pruner) + (", debiased" if method == "fastv+prior" else "")
    layer = known.get("layer", 2)
    score = (0.6 + 0.4 * ((i * 7) % 11) / 11 if ok else 0.2 * ((i * 3) % 7) / 7) if graded else float(ok)
    return {
        "answer": "x", "budget": None if pruner == "none" else kept, "cache_bytes": 8 * 64 * 2 * (14 + kept),
        "cell": "none" if pruner == "none" else f"{method}/r{retention:g}",
        "id": f"{task}/{i}", "image": f"image-{i // per_image}.png",
        "layer_tokens": [[0, 144]] if pruner == "none" else [[0, 144], [layer, kept]],
        "mean_tokens": (layer * 144 + (8 - layer) * kept) / 8, "method": title, "n_kept": kept, "n_text": 14, "n_visual": 144,
        "parameters": known, "prior": "ab" * 32 if prior else None, "prompt": "?", "pruner": pruner, "retention": retention,
        "scores": {metric: score, "iou": 0.9 * score, "parsed": 1.0}, "seed": 0,
        "tags": {"row": row, "size": ("small", "large")[i % 2]}, "task": task, "truth": [0, 0, 1, 1],
    }  # fmt: skip
