"""SCOPE: saliency times what is not covered yet."""

from __future__ import annotations

import oracles_field
import pytest
import strategies
import torch
from decisions import is_exact
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from biaskit.errors import BiaskitError
from biaskit.select import scope_select, top_k

CASES = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
ROWS = torch.tensor(
    [[0.9, 0, 0.1, 0.4], [0.8, 0.4, 1, -0.2], [0, 0.4, -0.2, 0], [0.5, 0, 0.7, 0.8], [-0.1, 0.5, 0.5, 0.2], [-0.1, 0.4, 0.2, 0.5]]
)
WEIGHTS = torch.tensor([0.95, 1, 0.6, 0.9, 0.3, 0.7])


@CASES
@given(data=st.data())
def test_scope_equals_its_oracle(data: st.DataObject) -> None:
    total = data.draw(st.integers(1, 20))
    features, scores = data.draw(strategies.features(total)), data.draw(strategies.scores(total))
    n, alpha = data.draw(st.integers(1, total)), data.draw(st.sampled_from([0.0, 0.5, 1.0, 2.0]))
    expected, closest = oracles_field.scope(scores, features, n, alpha)
    assume(closest > 1e-3 or (is_exact(features) and alpha != 0.5))
    arguments = (torch.tensor(scores), torch.from_numpy(features), n)
    assert scope_select(*arguments, alpha=alpha, order="choice").tolist() == expected
    assert scope_select(*arguments, alpha=alpha).tolist() == sorted(expected)


def test_golden() -> None:
    assert scope_select(WEIGHTS, ROWS, 3, order="choice").tolist() == [3, 5, 1]
    assert scope_select(WEIGHTS, ROWS, 3, alpha=0, order="choice").tolist() == [3, 5, 2]
    assert top_k(WEIGHTS, 3, order="choice").tolist() == [1, 0, 3]


def test_old_gains_bound_new_ones_for_more_tokens_than_are_refreshed_at_a_time() -> None:
    generator = torch.Generator().manual_seed(0)
    scores, features = torch.rand(150, generator=generator), torch.randn(150, 8, generator=generator)
    expected, _ = oracles_field.scope(scores.tolist(), features.double().numpy(), 40, 1.0)
    assert scope_select(scores, features, 40, order="choice").tolist() == expected


def test_all_is_covered() -> None:
    """Nothing is gained any more: ties, by index."""
    assert scope_select(torch.ones(4), torch.ones(4, 3), 3, order="choice").tolist() == [0, 1, 2]


def test_arguments() -> None:
    with pytest.raises(BiaskitError, match="alpha is -1"):
        scope_select(WEIGHTS, ROWS, 3, alpha=-1)
    with pytest.raises(BiaskitError, match="negative"):
        scope_select(-WEIGHTS, ROWS, 3)
    with pytest.raises(BiaskitError, match="features has shape"):
        scope_select(WEIGHTS, ROWS[:4], 3)
