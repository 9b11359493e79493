"""Checks of arguments, and the order of returned indices."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from biaskit.device import expect, on_device
from biaskit.errors import BiaskitError

Order = Literal["sequence", "choice"]


HALF = (torch.bfloat16, torch.float16)
"""Model dtypes in which features are not converted to float32."""


def vector(name: str, values: Tensor, length: int | None = None) -> Tensor:
    """Return [N] finite float32.

    Raises:
        BiaskitError: another number of axes or entries, or values that are not finite.
    """
    check_vector(name, values, length)
    return check_finite(name, values.detach().to(torch.float32))


def check_vector(name: str, values: Tensor, length: int | None = None) -> None:
    """Raise BiaskitError if `values` is not [N]."""
    if values.ndim != 1 or (length is not None and len(values) != length):
        wanted = "[N]" if length is None else f"[{length}]"
        raise BiaskitError(f"{name} has shape {list(values.shape)}, not {wanted}", "one value per visual token of one sample, no batch")


def matrix(name: str, values: Tensor, length: int | None = None, *, finite: bool = True) -> Tensor:
    """Return [N, d] values: half precision unchanged, everything else in float32. `finite`: check them here; if False, the caller does.

    Raises:
        BiaskitError: another number of axes or rows, or values that are not finite.
    """
    check_matrix(name, values, length)
    return check_finite(name, wide(values)) if finite else wide(values)


def wide(values: Tensor) -> Tensor:
    """Return half precision unchanged, everything else in float32."""
    return values.detach() if values.dtype in HALF else values.detach().to(torch.float32)


def check_matrix(name: str, values: Tensor, length: int | None = None) -> None:
    """Raise BiaskitError if `values` is not [N, d]."""
    if values.ndim != 2 or (length is not None and len(values) != length):
        wanted = "[N, d]" if length is None else f"[{length}, d]"
        raise BiaskitError(f"{name} has shape {list(values.shape)}, not {wanted}", "one row per visual token of one sample, no batch")


def check_finite(name: str, values: Tensor) -> Tensor:
    """Return the values.

    Raises:
        BiaskitError: one is not finite; for values on a device inside `deferred`, raised later.
    """
    if on_device(values):
        expect(values.sum(dtype=torch.float32), lambda sum_: None if math.isfinite(sum_) else _look_again(name, values))
        return values
    if not math.isfinite(float(values.sum())) and not bool(torch.isfinite(values).all()):  # the sum is cheaper, but may overflow
        raise not_finite(name)
    return values


def _look_again(name: str, values: Tensor) -> None:
    if not bool(torch.isfinite(values).all()):
        raise not_finite(name)


def not_finite(name: str) -> BiaskitError:
    """Return the error for values that are not finite."""
    return BiaskitError(f"{name} has values that are not finite", "look for overflow: was the model run in float16?")


def count(n: int, available: int) -> int:
    """Return n, at most `available`.

    Raises:
        BiaskitError: n is below 1.
    """
    if n < 1:
        raise BiaskitError(f"cannot keep {n} visual tokens", "keep at least 1")
    return min(n, available)


def choice(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raise BiaskitError if `value` is not one of `known`."""
    if value not in known:
        raise BiaskitError(f"{name} is {value!r}", f"choose {', '.join(known[:-1])} or {known[-1]}")


def fraction(name: str, value: float) -> None:
    """Raise BiaskitError if `value` is not in 0 … 1."""
    if not 0 <= value <= 1:
        raise BiaskitError(f"{name} is {value}, not between 0 and 1", f"choose {name} in 0 … 1")


def answer(picked: Tensor, order: Order) -> Tensor:
    """Return [n] indices, given in the order of choice, in the wanted order."""
    choice("order", order, ("sequence", "choice"))
    return picked.sort().values if order == "sequence" else picked
