"""The methods of the field once more, slowly: loops and float64 NumPy, written from the method cards' equations.

As in `oracles`: selections return the order of choice and, where cosines decide, how close the closest decision was.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from oracles import cosine, cosine_matrix, descending

Floats = NDArray[np.float64]


def gap(values: Sequence[float]) -> float:
    """Distance of the largest to the next smaller one: equal values do not count, for a tie is decided by the index."""
    values = list(values)
    top = max(values)
    return min((top - v for v in values if v < top), default=np.inf)


def visionzip(scores: Sequence[float], keys: Floats, features: Floats, dominant: int, contextual: int) -> tuple[list[int], Floats, float]:
    """(places as released, their contents, closest decision)."""
    order = descending(scores)
    first = sorted(order[:dominant])
    rest = [i for i in range(len(scores)) if i not in first]
    places, contents, closest = list(first), [features[i] for i in first], np.inf
    contextual = min(contextual, len(rest))
    if contextual:
        step = max(1, len(rest) // contextual)
        targets = [rest[k * step] for k in range(contextual)]
        joined: dict[int, list[int]] = {t: [] for t in targets}
        for i in rest:
            if i not in targets:
                similar = [cosine(keys[i], keys[t]) for t in targets]
                closest = min(closest, gap(similar))
                joined[targets[similar.index(max(similar))]].append(i)
        for t in targets:
            places.append(t)
            contents.append(features[t] + (np.mean([features[i] for i in joined[t]], axis=0) if joined[t] else 0))
    return places, np.array(contents).reshape(len(places), -1), closest


def vispruner(scores: Sequence[float], features: Floats, n: int, important: float, step: int) -> tuple[list[int], float]:
    order, similarity, closest = descending(scores), cosine_matrix(features), np.inf
    first = int(n * important + 1e-9)
    kept, rest, wanted = order[:first], order[first:], n - first
    while wanted and len(rest) > wanted:
        even, odd = rest[0::2], rest[1::2]
        c = [max(similarity[i, j] for j in odd) for i in even]
        differences = np.diff(np.unique(c))
        closest = min([closest, *differences])
        by_similarity = descending(c)
        rest = [even[k] for k in by_similarity[min(step, len(rest) - wanted) :]] + odd
    return kept + rest[:wanted], closest


def scope(scores: Sequence[float], features: Floats, n: int, alpha: float) -> tuple[list[int], float]:
    similarity = cosine_matrix(features)
    covered, chosen, closest = np.zeros(len(scores)), [], np.inf
    while len(chosen) < n:
        gains = {
            i: float(scores[i]) ** alpha * sum(max(0.0, similarity[u, i] - covered[u]) for u in range(len(scores)))
            for i in range(len(scores))
            if i not in chosen
        }
        best = max(gains, key=lambda i: (gains[i], -i))
        closest = min(closest, gap(list(gains.values())))
        chosen.append(best)
        covered = np.maximum(covered, similarity[best])
    return chosen, closest
