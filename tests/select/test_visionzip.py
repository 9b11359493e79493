"""VisionZip: dominant tokens, and the rest merged into evenly spaced targets."""

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
from biaskit.select import visionzip_merge

CASES = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


@CASES
@given(data=st.data())
def test_visionzip_equals_its_oracle(data: st.DataObject) -> None:
    total = data.draw(st.integers(1, 24))
    keys, features = data.draw(strategies.features(total)), data.draw(strategies.features(total))
    scores = data.draw(strategies.scores(total))
    dominant, contextual = data.draw(st.integers(0, total)), data.draw(st.integers(0, 6))
    assume(dominant + contextual > 0)
    places, contents, closest = oracles_field.visionzip(scores, keys, features, dominant, contextual)
    assume(closest > CLEAR or is_exact(keys))
    arguments = (torch.tensor(scores), torch.from_numpy(keys), dominant, contextual)
    released = visionzip_merge(*arguments, order="choice")
    assert released.indices.tolist() == places
    np.testing.assert_allclose(released(torch.from_numpy(features)).numpy(), contents, rtol=1e-5, atol=1e-5)
    ours = visionzip_merge(*arguments)
    order = np.argsort(places, kind="stable")
    assert ours.indices.tolist() == [places[i] for i in order]
    np.testing.assert_allclose(ours(torch.from_numpy(features)).numpy(), contents[order], rtol=1e-5, atol=1e-5)


def test_a_merged_token_is_a_sum_and_not_an_average() -> None:
    x = torch.tensor([0.5, -2.0, 3.0])
    keys = torch.randn(576, 4, generator=torch.Generator().manual_seed(0))
    merge = visionzip_merge(torch.arange(576.0), keys, 53, 10, order="choice")
    merged = merge(x.expand(576, 3))
    assert len(merge) == 63  # and the class token makes 64
    torch.testing.assert_close(merged[53:], 2 * x.expand(10, 3))
    torch.testing.assert_close(merged[:53], x.expand(53, 3))


@pytest.mark.parametrize(("dominant", "contextual"), [(53, 10), (107, 20), (161, 30)])
def test_published_counts(dominant: int, contextual: int) -> None:
    generator = torch.Generator().manual_seed(0)
    merge = visionzip_merge(torch.rand(576, generator=generator), torch.randn(576, 64, generator=generator), dominant, contextual)
    assert len(merge) + 1 == {53: 64, 107: 128, 161: 192}[dominant]
    assert merge.indices.tolist() == sorted(set(merge.indices.tolist()))
    shares = merge.weights.sum(1)
    assert sorted(set(shares.round().tolist())) == [1, 2]
    assert int((shares > 1.5).sum()) <= contextual
    assert bool((merge.weights.sum(0)[merge.indices] == 1).all())


def test_a_target_nobody_joins_stays_as_it_is() -> None:
    alone = visionzip_merge(torch.zeros(3), torch.tensor([[1.0, 0], [0, 1], [0.1, 1]]), 0, 2)
    assert alone.weights.tolist() == [[1, 0, 0], [0, 1, 1]]


def test_without_targets_nothing_is_merged() -> None:
    merge = visionzip_merge(torch.tensor([3.0, 1, 2]), torch.ones(3, 2), 2, 0)
    assert merge.indices.tolist() == [0, 2]
    assert merge.weights.tolist() == [[1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize(("dominant", "contextual"), [(0, 0), (-1, 3), (3, -1)])
def test_counts_that_make_no_sense(dominant: int, contextual: int) -> None:
    with pytest.raises(BiaskitError, match="cannot keep"):
        visionzip_merge(torch.ones(4), torch.ones(4, 2), dominant, contextual)
    with pytest.raises(BiaskitError, match="keys"):
        visionzip_merge(torch.ones(4), torch.ones(5, 2), 1, 1)
