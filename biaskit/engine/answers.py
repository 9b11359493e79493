"""Check what third-party pruners and observers return; errors name the pruner and what it returned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biaskit.errors import BiaskitError
from biaskit.select.keep import Keep

Indices = NDArray[np.int64]


def check_answers(answers: Any, count: int, name: str) -> None:
    """Check that a pruner returned a list of one Keep per sample, each with a tensor of indices.

    Raises:
        BiaskitError: it did not; the message names the pruner and what it returned.
    """
    if not isinstance(answers, list | tuple) or len(answers) != count:
        what = f"{len(answers)} answers" if isinstance(answers, list | tuple) else type(answers).__name__
        raise BiaskitError(f"{name}.select_many answered with {what} for {count} samples", "it must return a list of one Keep a sample")
    for answer in answers:
        if not isinstance(answer, Keep):
            raise BiaskitError(f"{name} answered with {_kind(answer)}", "select must return a biaskit.Keep: Keep(indices)")
        if not isinstance(answer.indices, Tensor):
            raise BiaskitError(f"{name} answered with indices that are {_kind(answer.indices)}", "Keep.indices must be an int64 tensor")


def _kind(answer: object) -> str:
    return "None" if answer is None else f"an object of type {type(answer).__module__}.{type(answer).__qualname__}"


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
        raise BiaskitError(f"observe={name} answered with {_kind(answer)}", "it must return a dict of name → number")
    return answer
