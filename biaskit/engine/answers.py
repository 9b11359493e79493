"""Check what third-party pruners and observers return; errors name the pruner and what it returned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from biaskit.errors import BiaskitError
from biaskit.select.keep import Keep, kind_of

Indices = NDArray[np.int64]


def check_keep(keep: Keep, n_tokens: int, name: str, *, width: int | None = None) -> Indices:
    """Return the indices of a pruner's answer, after checking it.

    Args:
        keep: the answer. n_tokens: N. name: the pruner's. width: d of the model's rows, which `Keep.values` must have; None: unknown.

    Raises:
        BiaskitError: not 1 to N ascending whole numbers below N, or `Keep.values` of another shape than [n, d].
    """
    indices: Indices = keep.indices.cpu().numpy()
    if keep.indices.dtype != torch.int64 or indices.ndim != 1 or not 1 <= len(indices) <= n_tokens:
        raise BiaskitError(
            f"{name} answered with {tuple(indices.shape)} indices of {keep.indices.dtype}", "select must return [n] int64, n ≥ 1"
        )
    if (indices[1:] <= indices[:-1]).any() or indices[0] < 0 or indices[-1] >= n_tokens:
        raise BiaskitError(
            f"{name} answered with indices {indices[:8]} … of {n_tokens} tokens", "select must return ascending indices below N"
        )
    values = keep.values
    if values is not None and (values.ndim != 2 or len(values) != len(indices) or (width is not None and values.shape[1] != width)):
        shape = f"[{len(indices)}, {'d' if width is None else width}]"
        raise BiaskitError(f"{name} answered with values {list(values.shape)}", f"one row a kept token: {shape}, in the model's width")
    return indices


def check_observed(answer: Any, observer: object) -> Mapping[str, float]:
    """Return an observer's answer, name → number, after checking it.

    Raises:
        BiaskitError: it is not a mapping.
    """
    if not isinstance(answer, Mapping):
        name = getattr(observer, "__qualname__", type(observer).__name__)
        raise BiaskitError(f"observe={name} answered with {kind_of(answer)}", "it must return a dict of name → number")
    return answer
