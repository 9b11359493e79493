"""The selections with the operations of their authors' public functions, written anew here: what the selectors are timed against.

The algorithm as released: the full N × N table of cosines, then one pass over rows of it and one host read per pick. All take a function
that returns cosines, so that the same loop runs in float32, which is timed, and in float64, whose tokens the selectors must equal. They
return ascending indices.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from biaskit.bench.features import MadeUp
from biaskit.select import min_max
from biaskit.select.scores import scaled

Cosines = Callable[[Tensor, Tensor], Tensor]
"""Features [m, d] and [k, d] to their cosines [m, k]."""

Released = Callable[[MadeUp, int, Cosines], Tensor]


def float32_cosines(a: Tensor, b: Tensor) -> Tensor:
    """Bring to float32, normalise and multiply, as the authors do."""
    return _cosines(a.float(), b.float() if b is not a else None)


def _cosines(a: Tensor, b: Tensor | None) -> Tensor:
    unit = a / a.norm(dim=1, keepdim=True)
    cosine: Tensor = unit @ (unit if b is None else b / b.norm(dim=1, keepdim=True)).T
    return cosine


def float64_cosines(a: Tensor, b: Tensor) -> Tensor:
    """Normalise and multiply in float64."""
    return _cosines(a.double(), b.double() if b is not a else None)


def top(sample: MadeUp, n: int, cosines: Cosines) -> Tensor:
    """Take the highest scores."""
    return sample.scores.topk(n).indices.sort().values


def evenly(sample: MadeUp, n: int, cosines: Cosines) -> Tensor:
    """Take evenly spaced tokens."""
    total = len(sample.scores)
    return torch.tensor([math.floor((2 * i + 1) * total / (2 * n)) for i in range(n)])


def d2(sample: MadeUp, n: int, cosines: Cosines, *, alpha: float, theta: float = 0.8, pivot_ratio: float = 0.7) -> Tensor:
    """D2Pruner: the whole graph; pivots; then one by one the best token left, whose neighbours are excluded; the rest by score."""
    total = len(sample.scores)
    similarity = cosines(sample.features, sample.features)
    low, high = similarity.min(), similarity.max()
    fused = alpha * ((similarity - low) / (high - low))
    if alpha < 1:
        distance = (sample.where[:, None, 1:] - sample.where[None, :, 1:]).abs().amax(2)
        fused = fused + (1 - alpha) * (distance == 1).to(fused.dtype)
    edges = fused > theta
    edges.fill_diagonal_(False)
    pivots = sample.scores.sort(descending=True, stable=True).indices[: math.floor(round(pivot_ratio * n, 9))]
    available = ~edges[pivots].any(0)
    available[pivots] = False
    chosen = pivots.tolist()
    while len(chosen) < n and bool(available.any()):
        best = int(sample.scores.masked_fill(~available, -torch.inf).argmax())
        chosen.append(best)
        available[best] = False
        available &= ~edges[best]
    if len(chosen) < n:
        taken = set(chosen)
        order = sample.scores.sort(descending=True, stable=True).indices.tolist()
        chosen += [token for token in order if token not in taken][: n - len(chosen)]
    assert len(chosen) == min(n, total)
    return torch.tensor(sorted(chosen))


def marginal_relevance(sample: MadeUp, n: int, cosines: Cosines, *, lam: float = 0.5) -> Tensor:
    """IDPruner's MMR: the table; for each pick the chosen ones masked, and the highest value by `topk`, read by the host."""
    table = cosines(sample.features, sample.features)
    importance = min_max(sample.scores) if table.dtype == torch.float32 else scaled(sample.scores.to(table.dtype), 1e-6)
    nearest = torch.full_like(importance, -1.0)
    masked = torch.zeros_like(importance, dtype=torch.bool)
    chosen: list[int] = []
    for _ in range(n):
        value = (lam * importance - (1 - lam) * nearest).masked_fill(masked, -torch.inf)
        (best,) = value.topk(1).indices.tolist()
        chosen.append(best)
        masked[best] = True
        nearest = torch.maximum(nearest, table[best])
    return torch.tensor(sorted(chosen))


def farthest(sample: MadeUp, n: int, cosines: Cosines) -> Tensor:
    """DivPrune: the table of distances; for each pick every token's smallest distance to the chosen ones, and the argmax."""
    distance = 1 - cosines(sample.features, sample.features)
    nearest = distance.clone().fill_diagonal_(torch.inf).min(0).values
    chosen = [int(nearest.argmax())]
    while len(chosen) < n:
        nearest = distance[chosen].min(0).values
        nearest[chosen] = -torch.inf
        chosen.append(int(nearest.argmax()))
    return torch.tensor(sorted(chosen))


def least_duplicated(sample: MadeUp, n: int, cosines: Cosines, *, pivots: int = 4) -> Tensor:
    """DART: eight pivots; for each in turn the tokens least similar to it that are not chosen, walking down a sorted list."""
    mine = sample.scores.sort(descending=True, stable=True).indices[:pivots]
    theirs = sample.text_scores.sort(descending=True, stable=True).indices[:pivots]
    chosen = mine.tolist()
    taken = set(chosen)
    quota = math.ceil((n - len(chosen)) / (2 * pivots))
    for centre in torch.cat([sample.features[mine], sample.text_features[theirs]]):
        similar = cosines(sample.features, centre[None])[:, 0]
        added = 0
        for token in similar.sort(stable=True).indices.tolist():
            if added == quota or len(chosen) == n:
                break
            if token not in taken:
                taken.add(token)
                chosen.append(token)
                added += 1
    return torch.tensor(sorted(chosen))
