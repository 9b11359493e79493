"""Exact sums: whatever the order, the same bits; the numbers are those of exact rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from biaskit.calibration.sums import ExactSum, variance

NUMBERS = st.lists(st.floats(0, 1e5, width=32), min_size=2, max_size=12)


def summed(values):
    total, squares = ExactSum(()), ExactSum(())
    for value in values:
        total.add(np.array(value))
        squares.add_squares(np.array(value))
    return total, squares


@given(NUMBERS, st.randoms(use_true_random=False), st.integers(0, 12))
def test_order_and_partition_change_no_bit(values, random, cut):
    total, squares = summed(values)
    mixed = random.sample(values, len(values))
    (left, left_squares), (right, right_squares) = summed(mixed[:cut]), summed(mixed[cut:])
    left.merge(right)
    left_squares.merge(right_squares)
    assert np.array_equal(left.limbs, total.limbs)
    assert np.array_equal(left_squares.limbs, squares.limbs)


@given(NUMBERS)
def test_sum_and_variance_are_those_of_fractions(values):
    total, squares = summed(values)
    exact = [Fraction(value) for value in values]
    mean = sum(exact) / len(exact)
    spread = sum((value - mean) ** 2 for value in exact) / (len(exact) - 1)
    np.testing.assert_allclose(total.value(), float(sum(exact)), rtol=1e-15, atol=1e-19)
    np.testing.assert_allclose(variance(total, squares, len(values)), float(spread), rtol=1e-12, atol=1e-18)


def test_parts_of_an_array_are_added_to_and_negative_numbers_count():
    total = ExactSum((2, 3))
    total.add(np.array([1.5, -2.25, 0.0]), 1)
    total.add(np.array([0.5, -0.25, 1e-9]), 1)
    np.testing.assert_allclose(total.value(), [[0, 0, 0], [2.0, -2.5, 1e-9]], rtol=1e-11)


def test_many_small_numbers_do_not_overflow():
    total = ExactSum((1,))
    total.limbs[1] = 2**50 - 1
    for _ in range(20):
        total.merge(total)  # a million times as much
    np.testing.assert_allclose(total.value(), [2.0**20 * (2**50 - 1) / 2**70], rtol=1e-12)
