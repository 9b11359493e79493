"""Attention against a prior: the ratio, and PriorTR's p · log(p / q)."""

from __future__ import annotations

import numpy as np
import oracles_field
import pytest
import strategies
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from biaskit.errors import BiaskitError
from biaskit.select import debias, positive_share, relative_attention, top_k

CASES = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
NULL = torch.tensor([10, 12, 16, 20, 26, 34, 44, 58.0]) * 1e-3
QUESTION = torch.tensor([8, 60, 10, 4, 30, 12, 90, 20.0]) * 1e-3
LAST = torch.tensor([26, 18, 9, 0.2, 6, 13, 30, 25.0]) * 1e-3


def p_log(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return debias(p, q, form="p_log_p_over_q")


@CASES
@given(data=st.data())
def test_p_log_equals_its_oracle(data: st.DataObject) -> None:
    total = data.draw(st.integers(1, 30))
    p, q = data.draw(strategies.scores(total)), data.draw(strategies.scores(total))
    assume(sum(q) > 0)
    np.testing.assert_allclose(p_log(torch.tensor(p), torch.tensor(q)).numpy(), oracles_field.prior_tr(p, q), rtol=1e-4, atol=1e-6)


def test_golden_with_the_last_row() -> None:
    expected = [0.307294, 0.134905, -0.001946, -0.006379, -0.043324, -0.042265, 0.038886, -0.057724]
    scores = p_log(LAST, NULL)
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-6)
    assert top_k(scores, 8, order="choice").tolist() == [0, 1, 6, 2, 3, 5, 4, 7]
    assert top_k(scores, 3).tolist() == [0, 1, 6]
    assert positive_share(scores) == 3 / 8
    # beyond the positive scores the least attended token comes in; by the ratio and by the plain attention it does not
    assert top_k(scores, 5).tolist() == [0, 1, 2, 3, 6]
    assert top_k(debias(LAST, NULL), 5).tolist() == [0, 1, 2, 6, 7]
    assert top_k(LAST, 5).tolist() == [0, 1, 5, 6, 7]


def test_golden_with_the_question_s_rows() -> None:
    llava = p_log(torch.stack([NULL, QUESTION, LAST]).mean(0), NULL)
    qwen = p_log(torch.stack([NULL, QUESTION]).mean(0), NULL)
    np.testing.assert_allclose(
        llava.numpy(), [0.038620, 0.161578, -0.011364, -0.032513, -0.010927, -0.042665, 0.097127, -0.070388], atol=1e-6
    )
    np.testing.assert_allclose(
        qwen.numpy(), [-0.005419, 0.169262, -0.013685, -0.028660, 0.005278, -0.042777, 0.114868, -0.073568], atol=1e-6
    )
    assert top_k(llava, 3).tolist() == [0, 1, 6]
    assert top_k(qwen, 3).tolist() == [1, 4, 6]


def test_heads_are_averaged_before_they_are_normalised() -> None:
    p = torch.tensor([[0.30, 0.10, 0.05, 0.05], [0.001, 0.002, 0.006, 0.001]])
    q = torch.tensor([[0.1, 0.1, 0.1, 0.1], [0.002, 0.002, 0.002, 0.004]])
    assert top_k(p_log(p.mean(0), q.mean(0)), 4, order="choice").tolist() == [0, 1, 2, 3]
    each = torch.stack([p_log(a, b) for a, b in zip(p, q, strict=True)]).mean(0)
    assert top_k(each, 4, order="choice").tolist() == [2, 0, 1, 3]


def test_the_scores_add_up_to_the_divergence() -> None:
    p, q = LAST / LAST.sum(), NULL / NULL.sum()
    assert float(p_log(LAST, NULL).sum()) == pytest.approx(float((p * (p / q).log()).sum()), abs=1e-6)
    assert p_log(LAST, LAST).abs().max() < 1e-7


def test_the_ratio_is_that_of_a_prior_as_density() -> None:
    torch.testing.assert_close(debias(LAST, NULL), relative_attention(LAST, NULL / NULL.mean()))
    torch.testing.assert_close(debias(LAST, NULL * 1000, tau=0.5), debias(LAST, NULL, tau=0.5))
    torch.testing.assert_close(debias(LAST, NULL, tau=0), LAST)


def test_a_flat_prior_at_tau_0() -> None:
    torch.testing.assert_close(debias(LAST, NULL, form="p_log_p_over_q", tau=0), p_log(LAST, torch.ones(8)))


def test_arguments() -> None:
    with pytest.raises(BiaskitError, match="form is"):
        debias(LAST, NULL, form="log")  # type: ignore[arg-type]
    with pytest.raises(BiaskitError, match="tau is 2"):
        debias(LAST, NULL, tau=2)
    with pytest.raises(BiaskitError, match="prior is zero"):
        debias(LAST, torch.zeros(8))
    with pytest.raises(BiaskitError, match="eps is 0"):
        debias(LAST, NULL, eps=0)
    assert debias(torch.zeros(0), torch.zeros(0)).tolist() == []
