"""Paired tests against enumeration."""

from __future__ import annotations

import itertools
from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biaskit.validation.statistics.significance import EXACT, holm, mcnemar, sign_flip


def binomial_two_sided(b, c):
    """Exact arithmetic: the outcomes of b + c fair coins that are as uneven as (b, c), or more."""
    n = b + c
    return float(sum(Fraction(comb(n, k), 2**n) for k in range(n + 1) if abs(2 * k - n) >= abs(b - c)))


def all_flips(differences):
    """Every sign pattern, one by one."""
    total = abs(sum(differences))
    patterns = list(itertools.product((1, -1), repeat=len(differences)))
    return sum(abs(sum(s * d for s, d in zip(signs, differences, strict=True))) >= total - 1e-12 for signs in patterns) / len(patterns)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_exact_binomial(b, c):
    assert mcnemar(b, c) == pytest.approx(binomial_two_sided(b, c), rel=1e-12)
    assert mcnemar(b, c) == mcnemar(c, b)


def test_mcnemar_known_values():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(0, 5) == 2 / 32
    assert mcnemar(8, 2) == pytest.approx(0.109375)  # 2 · (1 + 10 + 45) / 1024
    assert 0 < mcnemar(4000, 5000) < 1e-20  # whole numbers: no overflow
    with pytest.raises(ValueError, match="-1 and 3"):
        mcnemar(-1, 3)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-1, 1).map(lambda x: round(x, 3)), min_size=1, max_size=8))
def test_few_samples_are_enumerated(differences):
    assert sign_flip(np.array(differences)[:, None])[0] == pytest.approx(all_flips(differences))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, EXACT), st.integers(0, 30))
def test_on_binary_scores_it_is_mcnemar(b, ties):
    c = EXACT - b
    differences = [1.0] * b + [-1.0] * c + [0.0] * ties
    assert sign_flip(np.array(differences)[:, None])[0] == pytest.approx(mcnemar(b, c))


def test_many_samples_come_near_the_exact_answer():
    differences = np.array([1.0] * 60 + [-1.0] * 40)[:, None]
    assert sign_flip(differences, flips=20_000, seed=1)[0] == pytest.approx(mcnemar(60, 40), abs=0.006)
    far = sign_flip(np.ones((100, 1)), flips=999)
    assert far[0] == pytest.approx(1 / 1000)  # never 0: the observed pattern is one of those counted


def test_columns_are_tested_each_for_itself():
    random = np.random.default_rng(0)
    table = np.stack([random.normal(0.5, 1, 50), random.normal(0, 1, 50), np.zeros(50), np.r_[np.ones(4), np.zeros(46)]], axis=1)
    together = sign_flip(table, flips=4000, seed=3)
    assert together[2] == 1.0
    assert together[3] == 2 / 16
    assert together[0] < 0.01 < together[1]
    np.testing.assert_allclose(together[:2], [sign_flip(table[:, [k]], flips=4000, seed=3)[0] for k in (0, 1)], atol=0.03)


def test_questions_on_one_image_flip_together():
    """Eight questions on each of five images, all better: 2/2^5 by image, and not the 2/2^40 of independent questions."""
    images = np.repeat(np.arange(5), 8).tolist()
    assert sign_flip(np.ones((40, 1)), images)[0] == 2 / 32


def test_the_level_holds_without_an_effect():
    """Graded scores without a difference: p < 0.05 in about 5 % of 400 studies."""
    random = np.random.default_rng(1)
    p = sign_flip(random.exponential(size=(30, 400)) - random.exponential(size=(30, 400)), flips=2000)
    assert 0.025 <= np.mean(p < 0.05) <= 0.08


def naive_holm(p):
    """By its definition: the i-th smallest of m is multiplied by m − i + 1, and no larger p gets a smaller result."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    return [min(1.0, max(p[order[j]] * (len(p) - j) for j in range(order.index(i) + 1))) for i in range(len(p))]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_its_definition(p):
    corrected = holm(p)
    np.testing.assert_allclose(corrected, naive_holm(p))
    assert (corrected >= np.array(p)).all()
    assert (corrected <= np.minimum(1, np.array(p) * len(p)) + 1e-12).all()  # never worse than Bonferroni


def test_holm_known_case_and_undefined_ones():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    found = holm([0.01, float("nan"), 0.02])
    np.testing.assert_allclose(found[[0, 2]], [0.02, 0.02])
    assert np.isnan(found[1])
    assert holm([]).size == 0
