"""HiPrune: anchors, buffers and registers."""

from __future__ import annotations

import oracles_field
import pytest
import strategies
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from biaskit.errors import BiaskitError
from biaskit.select import cells, hiprune_select, top_k

CASES = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@CASES
@given(data=st.data())
def test_hiprune_equals_its_oracle(data: st.DataObject) -> None:
    where = data.draw(strategies.grids())
    total = len(where)
    middle, late = data.draw(strategies.scores(total)), data.draw(strategies.scores(total))
    n, alpha = data.draw(st.integers(1, total)), data.draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    buffers = data.draw(st.sampled_from(["grid", "flat"]))
    expected = oracles_field.hiprune(middle, late, where, n, alpha, buffers)
    arguments = (torch.tensor(middle), torch.tensor(late), torch.from_numpy(where), n)
    assert hiprune_select(*arguments, alpha=alpha, buffers=buffers, order="choice").tolist() == expected
    assert hiprune_select(*arguments, alpha=alpha, buffers=buffers).tolist() == sorted(expected)


def test_a_buffer_does_not_wrap_around_a_row() -> None:
    """The anchor is the last of row 3; its flat neighbour is the first of row 4."""
    anchor = 3 * 24 + 23
    middle = torch.zeros(576).index_fill(0, torch.tensor(anchor), 1.0)
    late = torch.zeros(576)
    late[:100] = 1.0
    late[anchor + 1] = -1.0
    assert anchor + 1 not in hiprune_select(middle, late, cells((24, 24)), 64).tolist()
    assert anchor + 1 in hiprune_select(middle, late, cells((24, 24)), 64, buffers="flat").tolist()


@pytest.mark.parametrize(("n", "anchors"), [(24, 0), (64, 1), (128, 3), (192, 4)])
def test_the_number_of_anchors(n: int, anchors: int) -> None:
    """Scores at odd places only, so that anchors far apart show by their buffers alone."""
    middle = torch.zeros(576)
    places = torch.tensor([26, 126, 226, 326, 426, 526])
    middle[places] = torch.arange(6.0, 0, -1)
    late = -middle
    kept = hiprune_select(middle, late, cells((24, 24)), n)
    assert torch.isin(places, kept).sum() == anchors
    assert len(kept) == n
    if not anchors:
        assert kept.tolist() == top_k(late, n).tolist()


def test_arguments() -> None:
    with pytest.raises(BiaskitError, match="alpha is 2"):
        hiprune_select(torch.ones(4), torch.ones(4), cells((2, 2)), 2, alpha=2)
    with pytest.raises(BiaskitError, match="buffers is"):
        hiprune_select(torch.ones(4), torch.ones(4), cells((2, 2)), 2, buffers="round")  # type: ignore[arg-type]
    with pytest.raises(BiaskitError, match="late has shape"):
        hiprune_select(torch.ones(4), torch.ones(3), cells((2, 2)), 2)
