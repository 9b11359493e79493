"""FitPrune: a schedule of deletions by layer, calibrated so that two attention maps keep their mass, and the tokens it deletes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from biaskit.errors import BiaskitError
from biaskit.select.checks import Order, fraction, vector
from biaskit.select.simple import top_k

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def fitprune_select(cross: Tensor, own: Tensor, n: int, *, order: Order = "sequence") -> Tensor:
    """Keep the n largest products of both maps (FitPrune at inference, arXiv 2409.10197): [min(n, N)] int64.

    Args:
        cross: [N] text → visual: largest over heads, then mean over the text's rows. own: [N] visual → visual, likewise over visual rows.
        n: how many to keep.

    Raises:
        BiaskitError: shapes, values that are negative or not finite, or n below 1.

    Example:
        >>> import torch
        >>> fitprune_select(torch.tensor([0.1, 0.5, 0.4]), torch.tensor([0.9, 0.1, 0.4]), 2).tolist()
        [0, 2]
    """
    cross = vector("cross", cross)
    own = vector("own", own, len(cross)).to(cross.device)
    if bool((cross < 0).any()) or bool((own < 0).any()):
        raise BiaskitError("a map has negative values", "pass probabilities, not logits")
    return top_k(cross.double() * own.double(), n, order=order)


def fitprune_deletions(cross: Floats, own: Floats, alpha: float) -> list[int]:
    """Count the tokens that each layer can delete without much loss in either map: [L], one sample (FitPrune's calibration).

    At every layer, take as many of the weakest remaining tokens of one map as can go while the map keeps at least (1 − α) of its sum over
    all N tokens; the same in the other map; tokens in *both* sets are deleted. At least one token remains.

    Args:
        cross, own: [L, N] the maps that `fitprune_select` describes, of a run without pruning. alpha: α, in 0 … 1.

    Raises:
        BiaskitError: shapes, values that are negative or not finite, or α outside 0 … 1.

    Example:
        >>> import numpy as np
        >>> cross, own = np.array([[0.0, 1, 3]]), np.array([[3.0, 0, 1]])  # weakest in one map, strongest in the other
        >>> fitprune_deletions(cross, own, 0.1), fitprune_deletions(cross, own[:, [1, 0, 2]], 0.1)
        ([0], [1])
    """
    found: list[int] = fitprune_deletions_many(cross, own, [alpha])[0].tolist()
    return found


def fitprune_deletions_many(cross: Floats, own: Floats, alphas: Sequence[float]) -> NDArray[np.int64]:
    """`fitprune_deletions` for several α at once, sorting every map once: [A, L].

    Raises:
        BiaskitError: as `fitprune_deletions`.

    Example:
        >>> maps = np.array([[1.0, 2, 3], [3, 2, 1]])
        >>> fitprune_deletions_many(maps, maps, [0.1, 0.5, 1.0]).tolist()
        [[0, 0], [2, 0], [2, 0]]
    """
    cross, own = np.asarray(cross, np.float64), np.asarray(own, np.float64)
    if cross.ndim != 2 or cross.shape != own.shape or not (np.isfinite(cross) & np.isfinite(own) & (cross >= 0) & (own >= 0)).all():
        raise BiaskitError(f"maps have shapes {list(cross.shape)} and {list(own.shape)}", "pass two [L, N] of finite numbers from 0")
    for alpha in alphas:
        fraction("alpha", alpha)
    left = np.ones((len(alphas), cross.shape[1]), bool)
    deleted = np.zeros((len(alphas), len(cross)), np.int64)
    for layer, maps in enumerate(zip(cross, own, strict=True) if cross.shape[1] else ()):
        first, second = (_spared(values, left, np.asarray(alphas, np.float64)) for values in maps)
        going = first & second
        last = np.flatnonzero((going == left).all(1))
        strongest = np.where(left[last], maps[0], -1.0).argmax(1)
        going[last, strongest] = False
        left &= ~going
        deleted[:, layer] = going.sum(1)
    return deleted


def _spared(values: Floats, left: Bools, alphas: Floats) -> Bools:
    """Return the weakest of the tokens `left` that may be deleted together, for each α: [A, N] bool."""
    order = np.argsort(values, kind="stable")
    mine = left[:, order]
    held = np.where(mine, values[order], 0.0)
    remaining = held.sum(1, keepdims=True) - np.cumsum(held, axis=1)
    spared = np.zeros_like(left)
    spared[:, order] = mine & (remaining >= ((1 - alphas) * values.sum() * (1 - 1e-12))[:, None])
    return spared


def fitprune_schedule(
    samples: Sequence[tuple[Any, Any]], saving: float, cost: Callable[[float], float], *, tolerance: float = 0.01
) -> tuple[list[int], float]:
    """Find the smallest α at which the mean cost over samples is at most (1 − saving) of the unpruned one, by bisection.

    The cost of a layer is that of the tokens that enter it. (The released code deletes inside a layer, after attention.)

    Args:
        samples: (cross, own) of each, [L, N] as in `fitprune_deletions`. saving: ρ, in 0 … 1.
        cost: of one layer with n visual tokens; the paper's is 4nd² + 2n²d + 3ndm (`gated_cost`).
        tolerance: width of α's last bracket.

    Returns:
        ([L] mean deletions over samples, rounded down; α).

    Raises:
        BiaskitError: no sample, a sample without tokens, different numbers of layers, or a saving outside 0 … 1 or that no α reaches.

    Example:
        >>> import numpy as np
        >>> maps = np.random.default_rng(0).random((4, 64))
        >>> schedule, alpha = fitprune_schedule([(maps, maps)], 0.5, gated_cost(8, 16))
        >>> len(schedule), sum(schedule) < 64, 0 < alpha < 1
        (4, True, True)
    """
    if not samples or len({np.shape(cross)[:1] for cross, _ in samples}) != 1:
        raise BiaskitError(f"{len(samples)} samples of different numbers of layers", "pass one or more of the same model")
    if any(np.size(cross) == 0 for cross, _ in samples):
        raise BiaskitError("a sample has no layers or no visual tokens", "pass maps of prompts with an image: there is nothing to save")
    if not 0 <= saving < 1:
        raise BiaskitError(f"saving is {saving}, not in 0 ≤ ρ < 1", "ρ is the share of the visual tokens' FLOPs that is saved")

    def cut(alpha: float) -> tuple[NDArray[np.int64], float]:
        deleted = np.array([fitprune_deletions(cross, own, alpha) for cross, own in samples])
        sizes = np.array([np.shape(cross)[1] for cross, _ in samples])[:, None]
        entering = sizes - np.cumsum(deleted, axis=1) + deleted
        full = sum(cost(float(n)) for n in sizes[:, 0]) * deleted.shape[1]
        return deleted, sum(cost(float(n)) for n in entering.flat) / full

    alpha = smallest_alpha(lambda alpha: cut(alpha)[1], saving, tolerance)
    return np.floor(cut(alpha)[0].mean(0)).astype(int).tolist(), alpha


def smallest_alpha(cost_share: Callable[[float], float], saving: float, tolerance: float) -> float:
    """Find α by bisection of 0 … 1: the upper end of the last bracket, at which a schedule costs at most 1 − ρ.

    Args:
        cost_share: α → cost of its schedule as a share of the unpruned cost. saving: ρ. tolerance: width of the last bracket.

    Raises:
        BiaskitError: no α saves so much.

    Example:
        >>> smallest_alpha(lambda alpha: 1 - alpha, 0.4, 0.01)
        0.40625
    """
    low, high = 0.0, 1.0
    if cost_share(high) > 1 - saving:
        raise BiaskitError(f"no schedule saves {saving:.0%}", "the first layer sees every token: ask for less")
    while high - low > tolerance:
        middle = (low + high) / 2
        low, high = (low, middle) if cost_share(middle) <= 1 - saving else (middle, high)
    return high


def gated_cost(width: int, feed_forward: int) -> Callable[[float], float]:
    """Return a layer's multiply-adds by its number of tokens n: 4nd² + 2n²d + 3ndm.

    Example:
        >>> gated_cost(2, 3)(10.0)
        740.0
    """
    return lambda n: 4 * n * width**2 + 2 * n * n * width + 3 * n * width * feed_forward
