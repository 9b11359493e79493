"""Every selection once more, slowly: loops and float64 NumPy, written from the methods' equations and not from the fast code.

Selections return the order of choice, and where it matters how close the closest decision was.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def descending(scores: Sequence[float]) -> list[int]:
    """Indices by falling score, equal scores by rising index."""
    return sorted(range(len(scores)), key=lambda i: (-scores[i], i))


def cosine(a: Floats, b: Floats) -> float:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    length = np.sqrt((a * a).sum()) * np.sqrt((b * b).sum())
    return float((a * b).sum() / length) if length > 0 else 0.0


def cosine_matrix(features: Floats) -> Floats:
    return np.array([[cosine(a, b) for b in features] for a in features])


def fused_similarity(features: Floats, where: NDArray[np.int64], alpha: float, diagonal: str) -> NDArray[np.float32]:
    """Equations 4–7, [N, N]. Single precision from the min–max on, because a comparison with θ may be meant to be exact."""
    n = len(features)
    similarity = cosine_matrix(features)
    pairs = [similarity[i, j] for i in range(n) for j in range(n) if i != j or diagonal == "included"]
    low, high = np.float32(min(pairs, default=1)), np.float32(max(pairs, default=1))
    fused = np.zeros((n, n), np.float32)
    for i in range(n):
        for j in range(n):
            scaled = np.float32(1) if high - low < 1e-6 else (np.float32(similarity[i, j]) - low) / (high - low)
            apart = np.abs(where[i] - where[j])
            beside = apart[0] == 0 and max(apart[1], apart[2]) == 1
            fused[i, j] = np.float32(alpha) * scaled + np.float32(1 - alpha) * np.float32(beside)
    return fused


def independent(order: Sequence[int], edges: NDArray[np.bool_], alive: set[int], limit: int) -> list[int]:
    """Take the best that is alive, kill its neighbours, until `limit`."""
    alive, taken = set(alive), []
    for i in order:
        if len(taken) >= limit:
            break
        if i in alive:
            taken.append(i)
            alive -= {i} | {j for j in alive if edges[i, j]}
    return taken


def d2(
    scores: Sequence[float],
    fused: NDArray[np.float32],
    n: int,
    theta: float,
    pivot_ratio: float,
    pivot_mode: str,
    exclude: bool,
    fill: str,
) -> list[int]:
    total = len(scores)

    def graph(threshold: float) -> NDArray[np.bool_]:
        return (fused > np.float32(threshold)) & ~np.eye(total, dtype=bool)

    def touching(tokens: Sequence[int], edges: NDArray[np.bool_]) -> set[int]:
        return {j for j in range(total) if any(edges[i, j] for i in tokens)}

    edges, order, everyone = graph(theta), descending(scores), set(range(total))
    n_pivots = int(Fraction(str(pivot_ratio)) * n)
    pivots = order[:n_pivots] if pivot_mode == "topk" else independent(order, edges, everyone, n_pivots)
    alive = everyone - set(pivots) - (touching(pivots, edges) if exclude else set())
    chosen = pivots + independent(order, edges, alive, n - len(pivots))
    blocking = list(chosen) if exclude else chosen[len(pivots) :]
    if fill == "layers":
        while len(chosen) < n:
            chosen += independent(order, edges, everyone - set(chosen), n - len(chosen))
    if fill == "raise_theta":
        while len(chosen) < n and theta < 1:
            theta = min(theta + 0.05, 1.0)
            edges = graph(theta)
            more = independent(order, edges, everyone - set(chosen) - touching(blocking, edges), n - len(chosen))
            chosen, blocking = chosen + more, blocking + more
    if fill != "none":
        chosen += [i for i in order if i not in chosen][: n - len(chosen)]
    return chosen


def mmr(weights: Sequence[float], features: Floats, n: int, lam: float) -> tuple[list[int], float]:
    w = np.asarray(weights, np.float64)
    importance = (w - w.min()) / (w.max() - w.min() + 1e-6)
    similarity = cosine_matrix(features)
    chosen, closest = [descending(list(importance))[0]], np.inf
    while len(chosen) < n:
        value = {i: lam * importance[i] - (1 - lam) * max(similarity[i, j] for j in chosen) for i in range(len(w)) if i not in chosen}
        best = max(value, key=lambda i: (value[i], -i))
        closest = min([closest, *(value[best] - v for i, v in value.items() if i != best)])
        chosen.append(best)
    return chosen, closest


def max_min(features: Floats, n: int) -> tuple[list[int], float]:
    distance = 1 - cosine_matrix(features)
    everyone = range(len(features))
    chosen: list[int] = []
    closest = np.inf
    while len(chosen) < n:
        value = {i: min((distance[i, j] for j in (chosen or everyone) if j != i), default=0.0) for i in everyone if i not in chosen}
        best = max(value, key=lambda i: (value[i], -i))
        closest = min([closest, *(value[best] - v for v in value.values() if v < value[best])])  # a pair's two ends are one distance
        chosen.append(best)
    return chosen, closest


def dart(
    scores: Sequence[float],
    features: Floats,
    text_scores: Sequence[float],
    text_features: Floats,
    n: int,
    pivots: int,
    text_pivots: int,
) -> tuple[list[int], float]:
    chosen = descending(scores)[: min(pivots, n)]
    centres = [features[i] for i in chosen] + [text_features[i] for i in descending(text_scores)[:text_pivots]]
    missing, closest = n - len(chosen), np.inf
    quota = int(np.ceil(missing / len(centres)))
    for centre in centres:
        value = {i: cosine(features[i], centre) for i in range(len(features)) if i not in chosen}
        order = sorted(value, key=lambda i: (value[i], i))
        take = min(quota, n - len(chosen))
        if 0 < take < len(order):
            closest = min(closest, value[order[take]] - value[order[take - 1]])
        chosen += order[:take]
    return chosen, closest


def spaced(total: int, n: int) -> list[int]:
    return [int(np.floor((2 * i + 1) * total / (2 * n) + 1e-12)) for i in range(n)]


def shared_out(sizes: Sequence[int], n: int) -> list[int]:
    exact = [Fraction(n * size, sum(sizes)) for size in sizes]
    shares = [int(e) for e in exact]
    while sum(shares) < n:
        rest = [e - s for e, s in zip(exact, shares, strict=True)]
        shares[rest.index(max(rest))] += 1
    return shares


def lattice(rows: int, cols: int, n: int) -> list[tuple[int, int]]:
    """The (row, col) of n nodes in a full plane."""
    shapes = []
    for down in range(1, rows + 1):
        for across in range(1, cols + 1):
            if down * across >= n and ((down - 1) * across < n or down * (across - 1) < n):
                needed = down * across >= n > (down - 1) * across or down * across >= n > down * (across - 1)
                ratio = Fraction(down * cols, across * rows)
                if needed:
                    shapes.append((max(ratio, 1 / ratio), down * across, down, across))
    _, _, down, across = min(shapes)
    nodes = [(a, b) for a in spaced(rows, down) for b in spaced(cols, across)]
    return [nodes[i] for i in spaced(len(nodes), n)]
