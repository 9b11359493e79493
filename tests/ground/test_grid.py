"""Planes, layouts and resampling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from biaskit.grid import Layout, Plane, Tokens, join, raster
from biaskit.prior.resample import resample

sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))


def layout_of(*parts, positions=None):
    tokens = join(parts)
    return Layout(np.arange(len(tokens)) if positions is None else positions, tokens.planes, tokens.plane, tokens.row, tokens.col)


@given(st.lists(sizes, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_unfold_inverts_fold(shapes, random):
    layout = layout_of(*(raster(Plane(f"p{i}", *shape)) for i, shape in enumerate(shapes)))
    order = list(range(len(layout)))
    random.shuffle(order)
    shuffled = Layout(layout.positions, layout.planes, layout.plane[order], layout.row[order], layout.col[order])
    values = np.arange(2 * len(layout), dtype=float).reshape(2, -1)
    maps = shuffled.fold(values)
    assert [m.shape for m in maps] == [(2, *shape) for shape in shapes]
    np.testing.assert_array_equal(shuffled.unfold(maps), values)


def test_fold_puts_tokens_where_they_belong():
    """Two tiles of 2 × 2 side by side, tokens tile by tile."""
    plane = Plane("canvas", 2, 4)
    tokens = Tokens((plane,), np.zeros(8, int), np.array([0, 0, 1, 1] * 2), np.array([0, 1, 0, 1, 2, 3, 2, 3]))
    (folded,) = layout_of(tokens).fold(np.arange(8))
    np.testing.assert_array_equal(folded, [[0, 1, 4, 5], [2, 3, 6, 7]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": np.array([0, 1, 1, 2])}, "ascend"),
        ({"positions": np.arange(3)}, "3 positions"),
        ({"row": np.array([0, 0, 0, 1])}, "once each"),
        ({"col": np.array([0, 2, 0, 1])}, "outside its plane"),
        ({"plane": np.array([0, 0, 0, 1])}, "does not exist"),
        ({"planes": (Plane("p", 2, 2), Plane("q", 1, 1))}, "once each"),
    ],
)
def test_broken_layouts(change, message):
    good = {"positions": np.arange(4), "planes": (Plane("p", 2, 2),), "plane": np.zeros(4, int)}
    good |= {"row": np.array([0, 0, 1, 1]), "col": np.array([0, 1, 0, 1])}
    Layout(**good)
    with pytest.raises(ValueError, match=message):
        Layout(**{**good, **change})


@settings(deadline=None)
@given(sizes, sizes, st.integers(0, 99))
def test_resample_is_torchs_bilinear(source, target, seed):
    values = np.random.default_rng(seed).random((3, *source))
    expected = torch.nn.functional.interpolate(torch.from_numpy(values)[None], target, mode="bilinear", align_corners=False)[0]
    np.testing.assert_allclose(resample(values, *target), expected.numpy(), atol=1e-12)


@given(sizes, sizes)
def test_resample_keeps_a_constant_and_the_same_size(source, target):
    np.testing.assert_allclose(resample(np.full(source, 2.5), *target), 2.5, atol=1e-12)
    values = np.random.default_rng(0).random(source)
    np.testing.assert_array_equal(resample(values, *source), values)


def test_join_numbers_planes_on():
    tokens = join([raster(Plane("a", 1, 2)), raster(Plane("b", 2, 1))])
    assert tokens.plane.tolist() == [0, 0, 1, 1]
    assert len(join([])) == 0
