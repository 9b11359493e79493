"""Random tokens for the selections: features with exact cosines and many ties, or generic ones; grids of several planes in any order."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

_AXES = [sign * row for row in np.eye(4) for sign in (1, -1)]
EXACT = np.array(_AXES + [np.array(signs) * 0.5 for signs in product((1, -1), repeat=4)])
"""24 unit vectors whose cosines are 0, ±1/2 and ±1 in every floating-point format."""


@st.composite
def exact_features(draw: st.DrawFn, n: int) -> NDArray[np.float64]:
    """[n, 4], cosines without rounding, copies and ties everywhere."""
    kinds = draw(st.integers(1, len(EXACT)))
    rows = draw(st.lists(st.integers(0, kinds - 1), min_size=n, max_size=n))
    scales = draw(st.lists(st.sampled_from([0.25, 1.0, 8.0]), min_size=n, max_size=n))
    return EXACT[rows].reshape(n, 4) * np.array(scales).reshape(n, 1)


@st.composite
def generic_features(draw: st.DrawFn, n: int) -> NDArray[np.float64]:
    """[n, d] of no special form, as float32 can hold them."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    d = draw(st.integers(2, 9))
    return (random.normal(size=(n, d)) + draw(st.sampled_from([0.0, 1.0])) * random.normal(size=d)).astype(np.float32).astype(np.float64)


def features(n: int) -> st.SearchStrategy[NDArray[np.float64]]:
    return st.one_of(exact_features(n), generic_features(n))


def scores(n: int) -> st.SearchStrategy[list[float]]:
    """[n] with ties, from 0 on, exact in float32."""
    return st.lists(st.integers(0, 12).map(lambda i: i / 4), min_size=n, max_size=n)


@st.composite
def grids(draw: st.DrawFn, most: int = 30) -> NDArray[np.int64]:
    """[N, 3] (plane, row, col) of one to three full planes, tokens in any order."""
    sizes = draw(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=3))
    where = [(plane, row, col) for plane, (rows, cols) in enumerate(sizes) for row in range(rows) for col in range(cols)][:most]
    where = where if draw(st.booleans()) else draw(st.permutations(where))
    return np.array(where, np.int64)
