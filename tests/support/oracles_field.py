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


def hiprune(middle: Sequence[float], late: Sequence[float], where: NDArray[np.int64], n: int, alpha: float, buffers: str) -> list[int]:
    anchors = descending(middle)[: round(n * alpha / 5)]
    chosen = list(anchors)
    cols = int(where[:, 2].max()) + 1
    for a in anchors:
        for down, right in ((-1, 0), (0, -1), (0, 1), (1, 0)):
            if buffers == "flat":
                beside = [min(max(a + down * cols + right, 0), len(middle) - 1)]
            else:
                beside = [i for i, cell in enumerate(where) if (cell == where[a] + [0, down, right]).all()]
            chosen += [i for i in beside if i not in chosen]
    chosen = chosen[:n]
    return chosen + [i for i in descending(late) if i not in chosen][: n - len(chosen)]


def dpp(relevance: Sequence[float], features: Floats, n: int, kernel: str, weight: float) -> tuple[list[int], float]:
    """The subset by determinants outright: each pick is the one with the largest det of the kernel on the chosen set."""
    rho = np.array(relevance, np.float64)
    low, spread = rho.min(), rho.max() - rho.min()
    similarity = cosine_matrix(features)
    if kernel == "product":
        r = (rho - low + 1e-6) / spread if spread else np.ones(len(rho))
        full = r[:, None] * similarity * r[None]
    else:
        r = (rho - low) / (spread + 1e-6) if spread else np.ones(len(rho))
        if kernel == "blend":
            full = (1 - weight) * similarity + weight * r[:, None] * similarity * r[None]
        else:
            r = np.exp(weight / (2 * (1 - weight)) * r) if spread else r
            full = r[:, None] * similarity * r[None]
    chosen: list[int] = []
    closest, before = np.inf, 1.0
    while len(chosen) < n:
        left = [i for i in range(len(rho)) if i not in chosen]
        gains = {i: np.linalg.det(full[np.ix_([*chosen, i], [*chosen, i])]) / before for i in left}
        best = max(gains, key=lambda i: (gains[i], -i))
        if gains[best] < 1e-9:
            closest = closest if gains[best] < 1e-13 else 0.0  # used up, or too near to that to call
            return chosen + [i for i in descending(relevance) if i not in chosen][: n - len(chosen)], closest
        closest = min([closest, *(gains[best] - g for i, g in gains.items() if i != best)])
        chosen.append(best)
        before = np.linalg.det(full[np.ix_(chosen, chosen)])
    return chosen, closest


def outliers(attention: Sequence[float]) -> int:
    low, high = np.percentile(np.array(attention, np.float64), [25, 75])
    return max(sum(1 for a in attention if a > high + 1.5 * (high - low)), 1)


def prumerge(
    attention: Sequence[float], keys: Floats, features: Floats, n: int | None, plus: bool, neighbours: int
) -> tuple[list[int], Floats, float]:
    """(places as released, their contents, closest decision)."""
    total, order, closest = len(attention), descending(attention), np.inf
    if n is None:
        few = outliers(attention)
        kept = order[:few]
        if plus:
            stride = max(int(int(total / few) / 3), 1)
            kept = kept + [i for i in range(0, total - 1, stride) if i not in kept]
    else:
        places = total if n >= total else max(n - 1, 1)
        few = min(outliers(attention), places) if plus else places
        others = sorted(order[few:])
        missing = places - few
        kept = order[:few] + [others[int(np.floor((2 * k + 1) * len(others) / (2 * missing) + 1e-12))] for k in range(missing)]
    contents = []
    for i in kept:
        similar = {j: cosine(keys[i], keys[j]) for j in range(total) if j != i}
        near = sorted(similar, key=lambda j: (-similar[j], j))
        if neighbours < len(near) and neighbours:
            closest = min(closest, gap([similar[near[neighbours - 1]], similar[near[neighbours]]]))
        contents.append(features[i] + sum((attention[j] * features[j] for j in near[:neighbours]), np.zeros(features.shape[1])))
    rest = [i for i in range(total) if i not in kept]
    if rest and n != 1:
        kept = [*kept, min(rest, key=lambda i: (-attention[i], i))]
        contents.append(sum(attention[i] * features[i] for i in rest))
    return kept, np.array(contents).reshape(len(kept), -1), closest


def tome(keys: Floats, features: Floats, sizes: Sequence[float], r: int, protected: int) -> tuple[list[int], Floats, list[float], float]:
    """(tokens that name the rows, contents, sizes, closest decision)."""
    total, closest = len(keys), np.inf
    even, odd = list(range(0, total, 2)), list(range(1, total, 2))
    r = max(min(r, (total - protected) // 2), 0)
    best = {}
    for a in even:
        similar = [cosine(keys[a], keys[b]) for b in odd]
        if odd and not (protected and a == 0):
            closest = min(closest, gap(similar))
            best[a] = (max(similar), odd[similar.index(max(similar))])
    order = sorted(best, key=lambda a: (-best[a][0], a))
    if 0 < r < len(order):
        closest = min(closest, gap([best[order[r - 1]][0], best[order[r]][0]]))
    rows = [a for a in even if a not in order[:r]] + odd
    contents, after = [], []
    for row in rows:
        members = [row] + [a for a in order[:r] if best[a][1] == row]
        after.append(sum(sizes[i] for i in members))
        contents.append(sum(sizes[i] * features[i] for i in members) / after[-1])
    return rows, np.array(contents).reshape(len(rows), -1), after, closest


def hired(early: Sequence[float], regions: Sequence[int], sizes: Sequence[int], n: int, alpha: float) -> tuple[int, list[int]]:
    """Budgets as released, decimals cut off."""
    whole = min(int(n * alpha + 1e-9), len(early))
    rest = min(n - whole, sum(sizes))
    marked = descending(early)[: int(len(early) * (1 - alpha) + 1e-9)]
    marks = [sum(1 for i in marked if regions[i] == k) for k in range(len(sizes))]
    return whole, [min(int(rest * c / max(sum(marks), 1) + 1e-9), size) for c, size in zip(marks, sizes, strict=True)]


def globalcom2(thumbnail: Sequence[float], regions: Sequence[int], tiles: int, retention: float) -> Floats:
    sums = np.array([sum(g for g, k in zip(thumbnail, regions, strict=True) if k == tile) for tile in range(tiles)])
    force = np.exp((sums - sums.max()) / 10)
    sigma = force / force.sum()
    return np.minimum(1, retention * (1 + sigma - sigma.mean()))


def raters(visual: Floats, text: Floats) -> list[bool]:
    weight = np.zeros(len(text))
    for v in visual:
        z = np.array([np.dot(v, t) for t in text])
        weight += np.exp(z - z.max()) / np.exp(z - z.max()).sum() / len(visual)
    found = [bool(w > weight.mean() + 1e-12) for w in weight]
    return found if any(found) else [True] * len(text)


def sparsevlm(scores: Sequence[float], hidden: Floats, keep: int, nearest: int) -> tuple[list[int], Floats, float]:
    """(places as released, their contents, closest decision)."""
    order, closest = descending(scores), np.inf
    kept, dropped = sorted(order[:keep]), order[keep:]
    contents = [hidden[i] for i in kept]
    if dropped:
        best = sorted(dropped[: int(0.3 * len(dropped) + 1e-9) + 1])
        points = [hidden[i] / np.sqrt(hidden.shape[1]) for i in best]
        apart = np.array([[np.sqrt(((a - b) ** 2).sum()) for b in points] for a in points])
        density = [float(np.exp(-np.mean(np.sort(row)[:nearest] ** 2))) for row in apart]
        closest = min([closest, *np.diff(np.unique(density))])
        ranked = descending(density)
        peak = []
        for i in range(len(best)):
            denser = ranked[: ranked.index(i)]
            peak.append(density[i] * (min(apart[i, j] for j in denser) if denser else apart.max()))
        closest = min([closest, *np.diff(np.unique(peak))])
        centres = descending(peak)[: int(len(best) / 10) + 1]
        joined: dict[int, list[int]] = {c: [] for c in centres}
        for i in range(len(best)):
            distances = [apart[i, c] for c in centres]
            closest = min(closest, gap([-d for d in distances]) if i not in centres else np.inf)
            joined[i if i in centres else centres[distances.index(min(distances))]].append(i)
        contents += [np.mean([hidden[best[i]] for i in joined[c]], axis=0) for c in centres]
        kept = kept + [best[c] for c in centres]
    return kept, np.array(contents).reshape(len(kept), -1), closest


def fitprune(cross: Floats, own: Floats, alpha: float) -> list[int]:
    left, deleted = list(range(cross.shape[1])), []
    for c, s in zip(cross, own, strict=True):
        runs = []
        for values in (c, s):
            rest, run = list(left), set()
            for i in sorted(left, key=lambda i, values=values: (values[i], i)):
                rest.remove(i)
                if sum(values[j] for j in rest) < (1 - alpha) * sum(values) - 1e-9:
                    break
                run.add(i)
            runs.append(run)
        going = runs[0] & runs[1]
        if len(going) == len(left):
            going -= {min(left, key=lambda i: (-c[i], i))}
        left = [i for i in left if i not in going]
        deleted.append(len(going))
    return deleted


def prior_tr(p: Sequence[float], q: Sequence[float], eps: float = 1e-10) -> Floats:
    p, q = np.array(p, np.float64), np.array(q, np.float64)
    p, q = p / (p.sum() + eps), q / (q.sum() + eps)
    return np.array([a * np.log((a + eps) / (b + eps)) for a, b in zip(p, q, strict=True)])
