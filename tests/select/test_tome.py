"""ToMe's bipartite soft matching."""

from __future__ import annotations

import numpy as np
import oracles_field
import pytest
import strategies
import torch
from decisions import CLEAR, is_exact
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from biaskit.errors import BiaskitError
from biaskit.select import bipartite_matching, tokens_after

CASES = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


@CASES
@given(data=st.data())
def test_tome_equals_its_oracle(data: st.DataObject) -> None:
    total = data.draw(st.integers(1, 21))
    keys, features = data.draw(strategies.features(total)), data.draw(strategies.features(total))
    sizes = data.draw(st.lists(st.integers(1, 9).map(float), min_size=total, max_size=total))
    r, protected = data.draw(st.integers(0, total)), data.draw(st.sampled_from([0, 1]))
    rows, contents, after, closest = oracles_field.tome(keys, features, sizes, r, protected)
    assume(closest > CLEAR or is_exact(keys))
    matching = bipartite_matching(torch.from_numpy(keys), r, protected=protected)
    assert matching.stands_for.tolist() == rows
    merged, counts = matching.merge(torch.from_numpy(features), torch.tensor(sizes))
    assert counts.tolist() == after
    np.testing.assert_allclose(merged.numpy(), contents, rtol=1e-5, atol=1e-5)
    assert matching.home[matching.stands_for].tolist() == list(range(len(rows)))


def test_three_copies_merged_in_two_steps_give_their_plain_mean() -> None:
    x = torch.tensor([[0.0], [3.0], [9.0]])
    first = bipartite_matching(torch.ones(2, 2), 1, protected=0)
    pair, sizes = first.merge(x[:2], torch.ones(2))
    second = bipartite_matching(torch.ones(2, 2), 1, protected=0)
    mean, sizes = second.merge(torch.cat([pair, x[2:]]), torch.cat([sizes, torch.ones(1)]))
    assert mean.tolist() == [[4.0]]  # not ((0 + 3) / 2 + 9) / 2 = 5.25
    assert sizes.tolist() == [3.0]


def test_the_class_token_is_never_merged() -> None:
    matching = bipartite_matching(torch.ones(9, 2), 4)
    assert matching.stands_for.tolist() == [0, 1, 3, 5, 7]
    assert (matching.home == 0).sum() == 1
    assert bipartite_matching(torch.ones(9, 2), 99).stands_for.tolist() == [0, 1, 3, 5, 7]
    assert bipartite_matching(torch.ones(8, 2), 99, protected=0).stands_for.tolist() == [1, 3, 5, 7]


def test_counts_by_block() -> None:
    counts = tokens_after(577, [16] * 24)
    assert (counts[22], counts[23]) == (209, 193)
    assert tokens_after(5, [9, 9, 9]) == [3, 2, 2]
    total = 41
    for r, after in zip([5, 20, 20], tokens_after(total, [5, 20, 20]), strict=True):
        total = len(bipartite_matching(torch.randn(total, 4), r).stands_for)
        assert total == after


def test_arguments() -> None:
    with pytest.raises(BiaskitError, match="cannot merge -1"):
        bipartite_matching(torch.ones(4, 2), -1)
    with pytest.raises(BiaskitError, match="cannot merge by"):
        tokens_after(10, [3, -1])
    with pytest.raises(BiaskitError, match="sizes has shape"):
        bipartite_matching(torch.ones(4, 2), 1).merge(torch.ones(4, 2), torch.ones(3))
