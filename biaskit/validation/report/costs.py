"""The cost of a cell: visual tokens over all layers, multiply-adds of prefill, bytes of the real key-value cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from biaskit.families.checkpoints.flops import Dims, prefill_cost
from biaskit.validation.results.read import Run, TaskRun

FORMULA = "exact"
_DIMS = ("layers", "hidden", "inner", "heads", "kv_heads", "head_dim", "vocab")


@dataclass(frozen=True)
class Cost:
    """Means over samples; None if the run did not record it.

    Attributes:
        tokens: visual tokens, averaged over all layers. kept: visual tokens after pruning.
        flops: multiply-adds of prefill in the language model. tower: of encoding, and of reading its attention, in the vision tower.
        cache_bytes: of the real cache after prefill.
        positive: scores above 0 / tokens kept, for scores with a sign (P·log(P/Q)): below 1 the least attended tokens are kept too.
    """

    tokens: float | None = None
    kept: float | None = None
    flops: float | None = None
    tower: float | None = None
    cache_bytes: float | None = None
    positive: float | None = None


def costs(run: Run, task: TaskRun) -> dict[str, Cost]:
    """Return the cost of every cell of a task, by label."""
    dims = dimensions(run.manifest)
    found = {}
    for cell in task.cells:
        numbers = task.costs[cell.label]
        found[cell.label] = Cost(
            tokens=numbers.get("mean_tokens"),
            kept=numbers.get("n_kept"),
            flops=_flops(dims, task.layers[cell.label]),
            tower=numbers.get("tower_flops"),
            cache_bytes=numbers.get("cache_bytes"),
            positive=numbers.get("positive"),
        )
    return found


def dimensions(manifest: Mapping[str, Any]) -> Mapping[str, int] | None:
    """Sizes of the language model from the manifest; None if one is missing."""
    dims = manifest.get("dims", {})
    return {name: int(dims[name]) for name in _DIMS} if all(name in dims for name in _DIMS) else None


def _flops(dims: Mapping[str, int] | None, layers: Mapping[tuple[tuple[tuple[int, float], ...], int], int]) -> float | None:
    total = sum(layers.values())
    if dims is None or not total:
        return None
    sizes = Dims(**dims)
    costs = (count * prefill_cost(sizes, n_text, list(visual), FORMULA) for (visual, n_text), count in layers.items())
    return float(sum(costs)) / total
