"""Simple selections: the highest scores, random, evenly spaced."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from biaskit.errors import BiaskitError
from biaskit.select.cells import check_cells
from biaskit.select.checks import Order, answer, count, vector


def top_k(scores: Tensor, n: int, *, order: Order = "sequence") -> Tensor:
    """Keep the n highest of scores [N] (FastV): [min(n, N)] int64. A tie goes to the lower index, which `torch.topk` does not guarantee.

    Raises:
        BiaskitError: n is below 1, or the scores are not a finite vector.

    Example:
        >>> import torch
        >>> top_k(torch.tensor([0.1, 0.7, 0.2, 0.7]), 2).tolist()
        [1, 3]
    """
    n = count(n, len(scores)) if scores.ndim == 1 else n
    if order == "sequence" and scores.ndim == 1 and n < len(scores) and scores.dtype == torch.float32 and scores.device.type == "cpu":
        return torch.from_numpy(_highest(scores.detach() if scores.requires_grad else scores, n))
    return answer(vector("scores", scores).sort(descending=True, stable=True).indices[:n], order)


def _highest(scores: Tensor, n: int) -> NDArray[np.int64]:
    """Find the n highest of more than n scores without sorting them: [n], ascending. Optimised for microseconds."""
    values: NDArray[np.float32] = scores.numpy()
    if not math.isfinite(np.vdot(values, values)):
        vector("scores", scores)  # raises if values are not finite; otherwise only a square overflowed
    last = np.partition(values, len(values) - n)[len(values) - n]
    found: NDArray[np.int64] = (values >= last).nonzero()[0]
    if len(found) == n:
        return found
    ties = found[values[found] == last]
    return np.setdiff1d(found, ties[n - len(found) :], assume_unique=True)


def random_select(n_tokens: int, n: int, generator: Generator, *, order: Order = "sequence") -> Tensor:
    """Keep n of `n_tokens` at random, without replacement: [min(n, N)] int64. The same generator state gives the same tokens.

    Raises:
        BiaskitError: n is below 1.

    Example:
        >>> import torch
        >>> len(random_select(9, 4, torch.Generator().manual_seed(0)))
        4
    """
    return answer(torch.randperm(n_tokens, generator=generator, device=generator.device)[: count(n, n_tokens)], order)


def uniform_select(n_tokens: int, n: int, *, where: Tensor | None = None) -> Tensor:
    """Keep n evenly spaced tokens: [min(n, N)] int64, ascending.

    Along the sequence token i of n is floor((2i + 1) · N / (2n)). With `where` the spacing is two-dimensional: every plane gets its share
    of n (largest remainder), and a plane of h × w a lattice of gh × gw ≥ n nodes, with no superfluous row or column and gh / gw as near to
    h / w as possible; nodes beyond n are dropped evenly along the raster.

    Args:
        where: [N, 3] (plane, row, col) of every token, planes full, as `cells` makes.

    Raises:
        BiaskitError: n is below 1, the cells are not [N, 3], or a plane is not a full rectangle.

    Example:
        >>> uniform_select(9, 3).tolist()
        [1, 4, 7]
    """
    n = count(n, n_tokens)
    if where is None:
        return spaced(n_tokens, n)
    check_cells(where, n_tokens)
    where = where.cpu()
    sizes = torch.bincount(where[:, 0]).tolist()
    picked = [_lattice(where, plane, share) for plane, share in enumerate(largest_remainder(sizes, n)) if share]
    return torch.cat([torch.zeros(0, dtype=torch.int64, device="cpu"), *picked]).sort().values


def spaced(length: int, n: int) -> Tensor:
    """Return n evenly spaced indices of 0 … length − 1: floor((2i + 1) · length / (2n)), [n] int64 on the CPU.

    Example:
        >>> spaced(9, 3).tolist()
        [1, 4, 7]
    """
    return (2 * torch.arange(n, device="cpu") + 1) * length // max(2 * n, 1)


def _lattice(where: Tensor, plane: int, n: int) -> Tensor:
    """Choose n tokens of one plane, as evenly spaced in both directions as n allows: [n] int64."""
    mine = torch.nonzero(where[:, 0] == plane)[:, 0]
    row, col = where[mine, 1], where[mine, 2]
    rows, cols = int(row.max()) + 1, int(col.max()) + 1
    raster = torch.full((rows * cols,), -1, dtype=torch.int64, device="cpu")
    raster[row * cols + col] = mine
    if len(mine) != rows * cols or int(raster.min()) < 0:
        raise BiaskitError(f"plane {plane} is not a full rectangle of {rows} × {cols} tokens", "pass newline tokens as a separate plane")
    down, across = _shape(rows, cols, n)
    nodes = raster[(spaced(rows, down)[:, None] * cols + spaced(cols, across)).flatten()]
    return nodes[spaced(len(nodes), n)]


def _shape(rows: int, cols: int, n: int) -> tuple[int, int]:
    """(gh, gw) with gh · gw ≥ n, neither larger than needed, and the shape nearest to rows × cols."""
    wide = [(down, -(-n // down)) for down in range(1, rows + 1)]
    tall = [(-(-n // across), across) for across in range(1, cols + 1)]
    fits = {(down, across) for down, across in wide + tall if down <= rows and across <= cols}

    def misfit(shape: tuple[int, int]) -> tuple[Fraction, int, int]:
        ratio = Fraction(shape[0] * cols, shape[1] * rows)
        return max(ratio, 1 / ratio), shape[0] * shape[1], shape[0]

    return min(fits, key=misfit)


def largest_remainder(sizes: Sequence[int], n: int) -> list[int]:
    """Divide n in proportion to `sizes`: whole numbers that add up to n, none above its size. A tie goes to the earlier part.

    Raises:
        BiaskitError: n is negative or above the sum of the sizes.

    Example:
        >>> largest_remainder([4, 4, 1], 3)
        [2, 1, 0]
    """
    total = sum(sizes)
    if not 0 <= n <= total:
        raise BiaskitError(f"cannot share {n} among {total} tokens", "keep between 0 and all of them")
    if not n:
        return [0] * len(sizes)
    shares = [n * size // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda i: (-(n * sizes[i] % total), i))
    for i in by_remainder[: n - sum(shares)]:
        shares[i] += 1
    return shares
