"""Selections for a batch of samples: on a device a constant number of kernel launches and one synchronisation, at the end.

The result is that of `d2_select`, `mmr_select` and `max_min_select` on each sample, which on a device call this code. Results are on the
CPU: one transfer brings them with the report and the flags for values that are not finite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biaskit.device import active, fetch, settle, upload
from biaskit.errors import BiaskitError
from biaskit.select.cells import check_cells
from biaskit.select.checks import Order, check_matrix, check_vector, choice, count, fraction, not_finite, wide
from biaskit.select.graph import Diagonal, Fill, check_rule, check_switches, pivots_of
from biaskit.select.keep import Keep

if TYPE_CHECKING:
    from biaskit.select.gpu.cosines import Table

Batch = Tensor | Sequence[Tensor]
"""[B, N, …], or B tensors [N, …], which saves stacking them."""


def d2_on_device(
    scores: Batch,
    features: Batch,
    where: Tensor | None,
    n: int,
    pivot_ratio: float,
    exclude: bool,
    fill: Fill,
    *,
    alpha: float,
    theta: float,
    diagonal: Diagonal,
) -> list[Keep]:
    """Do what `d2_select_many` does in a constant number of launches. The host synchronises once, at the end."""
    from biaskit.select.gpu.cosines import chunks, multiply
    from biaskit.select.gpu.graph import counted, walk

    rows, values = _rows(features), _values("scores", scores, features)
    check_rule(where, alpha, theta, diagonal)
    check_switches(pivot_ratio, "topk", fill)
    total, device = len(rows[0]), rows[0].device
    n = count(n, total)
    code, width = None, 0
    if where is not None:
        numbers, width = codes(where, total, alone=alpha < 1)
        code = upload(numbers, device) if alpha < 1 else None
    pivots = pivots_of(n, pivot_ratio)
    found: list[Tensor] = []
    with active(device):
        for part in chunks(len(rows), total):
            order = values[part].sort(dim=1, descending=True, stable=True).indices
            mine = code if code is None or len(code) == 1 else code[part]
            found += walk(
                multiply(rows[part], order, triangle=True), order, values[part], mine, width, n, pivots,
                alpha=alpha, theta=theta, exclude=exclude, fill=fill == "score", diagonal=diagonal == "included",
            )  # fmt: skip
        answers = settle(found)
    chosen, facts = np.concatenate(answers[::2]), np.concatenate(answers[1::2])
    complain(("features", facts[:, 4].astype(int) & 1), ("scores", facts[:, 4].astype(int) & 2))
    return [_keep(row, fact, n, pivots, counted(total)) for row, fact in zip(chosen, facts, strict=True)]


def _keep(chosen: NDArray[np.int8], fact: NDArray[np.float32], n: int, pivots: int, pairs: int) -> Keep:
    s_min, s_max, linked, independent, kept = (float(fact[k]) for k in (0, 1, 5, 6, 7))
    info = {"pivots": pivots, "independent": int(independent), "filled": int(kept - independent), "missing": n - int(kept)}
    density = linked / pairs if pairs else 0.0
    return Keep(torch.from_numpy(np.flatnonzero(chosen)), {**info, "edge_density": density, "s_min": s_min, "s_max": s_max})


def codes(where: Tensor, n_tokens: int, *, alone: bool) -> tuple[NDArray[np.int32], int]:
    """Number cells so that two are neighbours iff their numbers differ by 1, width − 1, width or width + 1: [1 or B, N], and the width.

    Raises:
        BiaskitError: not [N, 3] or [B, N, 3], negative, too large, or, with `alone`, two tokens of a sample in one cell.
    """
    (found,) = fetch([where])
    found = found[None] if found.ndim == 2 else found
    for sample in found:
        check_cells(torch.from_numpy(sample), n_tokens)
    plane, row, col = (found[..., axis].astype(np.int64) for axis in range(3))
    width, height = int(col.max(initial=0)) + 3, int(row.max(initial=0)) + 3
    if (int(plane.max(initial=0)) + 1) * height * width >= 2**31:
        raise BiaskitError("the cells' planes, rows or columns are too large", "count planes, rows and columns from 0, without gaps")
    code = (plane * height + row) * width + col
    if alone and any(len(np.unique(sample)) < n_tokens for sample in code):
        raise BiaskitError("two visual tokens share one cell", "give every token its own (plane, row, col)")
    return code.astype(np.int32), width


def _greedily(
    rows: list[Tensor], n: int, weight: float, order: Order, begin: Callable[[slice, Table], tuple[Tensor, ...]], names: Sequence[str]
) -> Tensor:
    """Select from B samples [N, d] in a constant number of launches. The host synchronises once, at the end.

    Args:
        begin: returns, for some samples, `worth` and `first` of `greedy_in_one_launch`, then one flag tensor (1 if not finite) for each
            input that `names` lists after "features".
    """
    from biaskit.select.gpu.cosines import chunks, multiply
    from biaskit.select.gpu.greedy import greedy_in_one_launch

    n = count(n, len(rows[0]))
    found: list[Tensor] = []
    with active(rows[0].device):
        for part in chunks(len(rows), len(rows[0])):
            table = multiply(rows[part])
            worth, first, *wrong = begin(part, table)
            found += [greedy_in_one_launch(table, n, first, worth, weight), table.wrong.amax(1), *wrong]
        answers = settle(found)
    picked, *bad = (np.concatenate(answers[k :: 1 + len(names)]) for k in range(1 + len(names)))
    complain(*zip(names, bad, strict=True))
    return in_order(picked, order)


def _rows(features: Batch) -> list[Tensor]:
    """Return the samples' features in a form that kernels take."""
    for part in features:
        check_matrix("features", part)
    rows = [wide(part) for part in features]
    kinds = {(tuple(part.shape), part.dtype, part.device) for part in rows}
    if len(kinds) > 1:
        raise BiaskitError(f"the samples' features differ: {sorted(map(str, kinds))}", "one shape, dtype and device for a batch")
    return rows


def _values(name: str, values: Batch, features: Batch) -> Tensor:
    """Scores of a batch, [B, N] float32, contiguous, beside the features."""
    for part, rows in zip(values, features, strict=True):
        check_vector(name, part, len(rows))
    joined = values if isinstance(values, Tensor) else torch.stack(list(values))
    return upload(joined.detach(), features[0].device).to(torch.float32).contiguous()


def complain(*checks: tuple[str, NDArray[Any]]) -> None:
    """Raise BiaskitError for the first (name, flags) with a flag set, which means that values are not finite."""
    for name, bad in checks:
        if np.any(bad):
            raise not_finite(name)


def in_order(picked: NDArray[np.int64], order: Order) -> Tensor:
    """Return the indices of a batch, [B, n] in the order of choice, in the wanted order."""
    return torch.from_numpy(np.sort(picked, 1) if order == "sequence" else picked)


def mmr_on_device(importance: Batch, features: Batch, n: int, lam: float, eps: float, order: Order) -> Tensor:
    """Do what `mmr_select_many` does on a device."""
    from biaskit.select.gpu.greedy import weighed

    choice("order", order, ("sequence", "choice"))
    fraction("lam", lam)
    rows, values = _rows(features), _values("importance", importance, features)
    return _greedily(rows, n, 1 - lam, order, lambda part, table: weighed(values[part], eps, lam), ("features", "importance"))


def max_min_on_device(features: Batch, n: int, order: Order) -> Tensor:
    """Do what `max_min_select_many` does on a device."""
    from biaskit.select.gpu.greedy import most_isolated

    choice("order", order, ("sequence", "choice"))
    return _greedily(
        _rows(features), n, 1.0, order, lambda part, table: (torch.zeros_like(table.inverse), most_isolated(table)), ("features",)
    )
