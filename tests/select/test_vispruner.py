"""VisPruner and FasterVLM."""

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
from biaskit.select import top_k, vispruner_select

CASES = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


@CASES
@given(data=st.data())
def test_vispruner_equals_its_oracle(data: st.DataObject) -> None:
    total = data.draw(st.integers(1, 24))
    features, scores = data.draw(strategies.features(total)), data.draw(strategies.scores(total))
    n, step = data.draw(st.integers(1, total)), data.draw(st.integers(1, 9))
    important = data.draw(st.sampled_from([0.0, 0.29, 0.5, 0.7, 1.0]))
    expected, closest = oracles_field.vispruner(scores, features, n, important, step)
    assume(closest > CLEAR or is_exact(features))
    arguments = (torch.tensor(scores), torch.from_numpy(features), n)
    assert vispruner_select(*arguments, important=important, step=step, order="choice").tolist() == expected
    assert vispruner_select(*arguments, important=important, step=step).tolist() == sorted(expected)


def circle(degrees: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))], 1))


def test_the_step_is_part_of_the_method() -> None:
    scores, features = torch.arange(8.0, 0, -1), circle(np.array([0, 5, 30, 33, 60, 75, 90, 91.0]))
    assert vispruner_select(scores, features, 4, step=1).tolist() == [0, 1, 2, 5]
    assert vispruner_select(scores, features, 4, step=8).tolist() == [0, 1, 3, 5]


def test_golden_where_the_released_loop_is_safe() -> None:
    t = np.arange(32)
    scores, features = torch.from_numpy((11.0 * t) % 32 + 1), circle((0.53 * t**2 + 5.3 * t) % 180)
    assert vispruner_select(scores, features, 16).tolist() == [0, 4, 8, 11, 12, 13, 14, 16, 17, 20, 23, 24, 26, 27, 28, 29]
    kept = vispruner_select(scores, features, 16, step=1).tolist()
    assert kept == [0, 3, 7, 8, 9, 11, 14, 16, 17, 19, 20, 21, 23, 26, 29, 31]


@pytest.mark.parametrize("total", [575, 576])
def test_odd_lists_are_no_error(total: int) -> None:
    generator = torch.Generator().manual_seed(0)
    kept = vispruner_select(torch.rand(total, generator=generator), torch.randn(total, 16, generator=generator), 130)
    assert len(set(kept.tolist())) == 130


def test_importance_alone_is_fastervlm() -> None:
    scores = torch.tensor([3.0, 1, 3, 2, 0])
    kept = vispruner_select(scores, torch.ones(5, 2), 3, important=1)
    assert kept.tolist() == top_k(scores, 3).tolist() == [0, 2, 3]


def test_arguments() -> None:
    with pytest.raises(BiaskitError, match="step is 0"):
        vispruner_select(torch.ones(3), torch.ones(3, 2), 1, step=0)
    with pytest.raises(BiaskitError, match="important is 2"):
        vispruner_select(torch.ones(3), torch.ones(3, 2), 1, important=2)
    with pytest.raises(BiaskitError, match="keep at least 1"):
        vispruner_select(torch.ones(3), torch.ones(3, 2), 0)
