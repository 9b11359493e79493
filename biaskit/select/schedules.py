"""How many tokens each layer sees: PyramidDrop's stages, layer means, and FitPrune's calibrated schedule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from biaskit.errors import BiaskitError
from biaskit.select.checks import Order, fraction, vector
from biaskit.select.simple import top_k

Floats = NDArray[np.float64]


def pyramid_counts(n_tokens: int, shares: Sequence[float] = (0.5, 0.25, 0.125)) -> list[int]:
    """Tokens after each stage of PyramidDrop (arXiv 2410.17247): int(share · N) of the original N, at least 1.

    Raises:
        BiaskitError: shares that are not in (0, 1] or that grow.

    Example:
        >>> pyramid_counts(576)
        [288, 144, 72]
    """
    if not all(0 < share <= 1 for share in shares) or any(b > a for a, b in pairwise(shares)):
        raise BiaskitError(f"shares are {list(shares)}", "give falling shares of the original tokens, such as 0.5, 0.25, 0.125")
    return [max(int(round(share * n_tokens, 9)), 1) if n_tokens else 0 for share in shares]


def stage_layers(n_layers: int, stages: int = 3) -> list[int]:
    """Return the layers before which `stages` evenly spaced cuts are made.

    Raises:
        BiaskitError: no layer for a cut.

    Example:
        >>> stage_layers(32)
        [8, 16, 24]
    """
    layers = [n_layers * (stage + 1) // (stages + 1) for stage in range(stages)]
    if len({0, *layers}) <= stages:
        raise BiaskitError(f"{n_layers} layers have no room for {stages} stages", "use fewer stages")
    return layers


def layer_counts(n_tokens: int, n_layers: int, cuts: Sequence[tuple[int, int]]) -> list[int]:
    """Return how many visual tokens each of `n_layers` layers sees, when (layer, n) cuts leave n tokens before a layer.

    Raises:
        BiaskitError: layers that do not ascend, or are outside the model.

    Example:
        >>> counts = layer_counts(576, 32, [(8, 288), (16, 144), (24, 72)])
        >>> sum(counts) / len(counts)
        270.0
    """
    layers = [layer for layer, _ in cuts]
    if layers != sorted(set(layers)) or (layers and not 0 <= layers[0] <= layers[-1] < n_layers):
        raise BiaskitError(f"cuts before layers {layers} of {n_layers}", "give ascending layers of the model, each once")
    counts, at = [], dict(cuts)
    for layer in range(n_layers):
        n_tokens = min(at.get(layer, n_tokens), n_tokens)
        counts.append(n_tokens)
    return counts


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
    """Delete, layer by layer, what both maps can spare: [L] numbers of tokens, one sample (FitPrune's calibration).

    At every layer, of the tokens that are left, the longest run of the weakest in one map whose loss leaves that map at least (1 − α) of
    its sum over all N tokens; the same in the other map; tokens in *both* runs go. One token is always left where there are any.

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
    cross, own = np.asarray(cross, np.float64), np.asarray(own, np.float64)
    if cross.ndim != 2 or cross.shape != own.shape or not (np.isfinite(cross) & np.isfinite(own) & (cross >= 0) & (own >= 0)).all():
        raise BiaskitError(f"maps have shapes {list(cross.shape)} and {list(own.shape)}", "pass two [L, N] of finite numbers from 0")
    fraction("alpha", alpha)
    left, deleted = np.arange(cross.shape[1]), []
    for maps in zip(cross, own, strict=True):
        first, second = (_spared(values, left, alpha) for values in maps)
        going = np.intersect1d(first, second)
        if 0 < len(left) == len(going):
            going = going[going != left[np.argmax(maps[0][left])]]
        left = np.setdiff1d(left, going)
        deleted.append(len(going))
    return deleted


def _spared(values: Floats, left: NDArray[np.intp], alpha: float) -> NDArray[np.intp]:
    """The longest run of the weakest of the tokens `left` that may go."""
    order = left[np.argsort(values[left], kind="stable")]
    remaining = values[order].sum() - np.cumsum(values[order])
    spared: NDArray[np.intp] = order[remaining >= (1 - alpha) * values.sum() * (1 - 1e-12)]
    return spared


def fitprune_schedule(
    samples: Sequence[tuple[Any, Any]], saving: float, cost: Callable[[float], float], *, tolerance: float = 0.01
) -> tuple[list[int], float]:
    """Find the smallest α at which the mean cost over samples is at most (1 − saving) of the unpruned one, by bisection.

    A layer costs by the tokens that enter it. (The released code deletes inside a layer, after attention.)

    Args:
        samples: (cross, own) of each, [L, N] as in `fitprune_deletions`. saving: ρ, in 0 … 1.
        cost: of one layer with n visual tokens; the paper's is 4nd² + 2n²d + 3ndm (`gated_cost`).
        tolerance: width of α's last bracket.

    Returns:
        ([L] mean deletions over samples, rounded down; α).

    Raises:
        BiaskitError: no sample, one without tokens, layers that differ, or a saving outside 0 … 1, or one no α reaches.

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

    low, high = 0.0, 1.0
    deleted, share = cut(high)
    if share > 1 - saving:
        raise BiaskitError(f"no schedule saves {saving:.0%}", "the first layer sees every token: ask for less")
    while high - low > tolerance:
        middle = (low + high) / 2
        found, share = cut(middle)
        if share <= 1 - saving:
            deleted, high = found, middle
        else:
            low = middle
    return np.floor(deleted.mean(0)).astype(int).tolist(), high


def gated_cost(width: int, feed_forward: int) -> Callable[[float], float]:
    """Return a layer's multiply-adds by its number of tokens n: 4nd² + 2n²d + 3ndm.

    Example:
        >>> gated_cost(2, 3)(10.0)
        740.0
    """
    return lambda n: 4 * n * width**2 + 2 * n * n * width + 3 * n * width * feed_forward
