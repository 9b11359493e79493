"""Sums of arrays that do not depend on the order of summation or the number of processes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_HIGH, _LOW = 20, 50
_STEP, _MASK = float(2**_LOW), 2**_LOW - 1
_SPLIT = 2.0**27 + 1.0  # halves of 26 bits, whose products are exact


class ExactSum:
    """A sum of float64 arrays in fixed point, so that it is exact and its order does not matter.

    Each number is rounded down to a multiple of 2⁻⁷⁰ and added to two integers: multiples of 2⁻²⁰ and the rest. Sums may reach 2⁴³.

    Attributes:
        limbs: [2, …] int64, the high and the low parts; 0 ≤ low < 2⁵⁰.

    >>> one, two = ExactSum(()), ExactSum(())
    >>> for value in (0.1, 1e6, -1e6):
    ...     one.add(np.array(value))
    >>> for value in (1e6, -1e6, 0.1):
    ...     two.add(np.array(value))
    >>> float(one.value()), float(two.value()), 0.1 + 1e6 - 1e6
    (0.1, 0.1, 0.09999999997671694)
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.limbs: NDArray[np.int64] = np.zeros((2, *shape), dtype=np.int64)

    def add(self, values: Floats, at: Any = ...) -> None:
        """Add finite values below 2⁴³, to the part `at` of the sum."""
        scaled = values * float(2**_HIGH)
        whole = np.floor(scaled)
        high, low = self.limbs[0, ...], self.limbs[1, ...]  # views, also of a single number
        raised = low[at] + np.floor((scaled - whole) * _STEP).astype(np.int64)
        high[at] += whole.astype(np.int64) + (raised >> _LOW)
        low[at] = raised & _MASK

    def add_squares(self, values: Floats) -> None:
        """Add the squares of values together with the rounding error of each (Dekker 1971)."""
        square = values * values
        raised = values * _SPLIT
        top = raised - (raised - values)
        rest = values - top
        self.add(square)
        self.add(((top * top - square) + 2.0 * top * rest) + rest * rest)

    def merge(self, other: ExactSum) -> None:
        """Add another sum."""
        raised = self.limbs[1] + other.limbs[1]
        self.limbs = np.stack([self.limbs[0] + other.limbs[0] + (raised >> _LOW), raised & _MASK])

    def value(self) -> Floats:
        """Return the sum, rounded."""
        found: Floats = self.limbs[0] / float(2**_HIGH) + self.limbs[1] / float(2 ** (_HIGH + _LOW))
        return found

    def integers(self) -> NDArray[np.object_]:
        """Return the sum in multiples of 2⁻⁷⁰, as integers of any size."""
        found: NDArray[np.object_] = self.limbs[0].astype(object) * 2**_LOW + self.limbs[1].astype(object)
        return found


def variance(total: ExactSum, squares: ExactSum, count: int) -> Floats:
    """Return the sample variance (n − 1), from the sum and the sum of squares; rounded once. 0 for fewer than two samples.

    >>> total, squares = ExactSum((1,)), ExactSum((1,))
    >>> for value in (1e4, 1e4 + 1e-3, 1e4 + 2e-3):
    ...     total.add(np.array([value]))
    ...     squares.add_squares(np.array([value]))
    >>> variance(total, squares, 3).round(12)
    array([1.e-06])
    """
    if count < 2:
        return np.zeros(total.limbs.shape[1:])
    first = total.integers()
    spread = squares.integers() * (count << (_HIGH + _LOW)) - first * first
    found: Floats = np.asarray(spread / ((count * (count - 1)) << (2 * (_HIGH + _LOW))), dtype=np.float64)
    return np.maximum(found, 0.0)
