"""Narrowings and masks on plain tensors, against loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from biaskit.engine.masks import make_mask, mask_form, read_mask
from biaskit.engine.narrowing import Narrowing, compact_positions, take
from biaskit.errors import ModelError
from biaskit.grid import Layout, Plane, raster

KEEP_MASKS = arrays.arrays(bool, st.tuples(st.integers(1, 4), st.integers(1, 12))).map(
    lambda a: np.concatenate([a, np.ones((len(a), 1), bool)], 1)
)


@given(KEEP_MASKS)
def test_valid_rows_are_the_positions_that_are_kept(keep_mask):
    found = Narrowing.of(torch.from_numpy(keep_mask))
    wanted = [np.flatnonzero(row).tolist() for row in keep_mask]
    assert len(found) == max(map(len, wanted))
    assert [row[valid].tolist() for row, valid in zip(found.index, found.row_mask, strict=True)] == wanted
    assert found.row_mask[:, -1].all(), "padding rows come first"
    assert found.whole == (len({len(row) for row in wanted}) == 1)
    assert found.counts().tolist() == [len(row) for row in wanted]


@given(KEEP_MASKS, st.data())
def test_rows_of_an_inner_narrowing(keep_mask, data):
    """Narrowing twice by relative rows is narrowing once."""
    drop = data.draw(arrays.arrays(bool, keep_mask.shape))
    drop[:, -1] = False
    outer, inner = (Narrowing.of(torch.from_numpy(s)) for s in (keep_mask, keep_mask & ~drop))
    x = torch.arange(keep_mask.size, dtype=torch.float32).reshape(*keep_mask.shape, 1)
    twice = take(take(x, outer.index), outer.rows_of(inner.index))[..., 0]
    once = take(x, inner.index)[..., 0]
    assert torch.equal(twice[inner.row_mask], once[inner.row_mask])


@given(KEEP_MASKS, st.data())
def test_compact_positions_are_ranks(keep_mask, data):
    """The r-th token left gets the place of the r-th token of the prompt."""
    valid = keep_mask.copy()
    keep = valid & data.draw(arrays.arrays(bool, keep_mask.shape))
    keep[:, -1] = True
    narrowed = Narrowing.of(torch.from_numpy(keep))
    found = compact_positions(torch.from_numpy(valid), narrowed)
    for b in range(len(valid)):
        assert found[b][narrowed.row_mask[b]].tolist() == np.flatnonzero(valid[b])[: keep[b].sum()].tolist()


def test_take_expands_one_row_to_the_batch():
    x = torch.arange(6.0).reshape(1, 3, 2)
    assert take(x, torch.tensor([[0, 2], [1, 2]])).tolist() == [[[0, 1], [4, 5]], [[2, 3], [4, 5]]]


@pytest.mark.parametrize("form", ["bool", "additive"])
@given(valid=KEEP_MASKS, queries=st.integers(1, 13), extra=st.integers(0, 3))
def test_masks_against_loops(form, valid, queries, extra):
    rows, keys = valid.shape
    queries = min(queries, keys)
    mask = make_mask(form, torch.from_numpy(valid), queries, whole=bool(valid.all()), width=keys + extra, dtype=torch.float32)
    if mask is None:
        assert form == "bool" and valid.all() and queries == keys
        return
    assert mask.shape == (rows, 1, queries, keys + extra)
    seen = mask if form == "bool" else mask == 0
    if form == "additive":
        assert set(mask.unique().tolist()) <= {0.0, torch.finfo(torch.float32).min}
    for b in range(rows):
        for q in range(queries):
            at = keys - queries + q
            wanted = [(k <= at and bool(valid[b, k])) or k == at for k in range(keys)] + [False] * extra
            assert seen[b, 0, q].tolist() == wanted


def test_masks_that_are_not_needed():
    whole = torch.ones(2, 5, dtype=torch.bool)
    settings = {"whole": True, "width": None, "dtype": torch.float32}
    assert make_mask("bool", whole, 5, **settings) is None
    assert make_mask("bool", whole, 1, **settings) is None
    assert make_mask("bool", whole, 2, **settings) is not None, "without a mask sdpa would align the queries with the first keys"
    assert make_mask("bool", whole, 1, whole=True, width=9, dtype=torch.float32) is not None, "a static cache has an unused end"
    assert make_mask("additive", whole, 5, **settings) is not None, "eager attention without a mask is not causal"
    assert make_mask("padding", whole, 5, **settings) is None
    assert make_mask("padding", ~whole, 5, whole=False, width=None, dtype=torch.float32) is not None


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.bfloat16])
def test_reading_the_models_own_mask(dtype):
    valid = torch.tensor([[False, True, True, True], [True, True, True, True]])
    allowed = (torch.ones(4, 4, dtype=torch.bool).tril() & valid[:, None, :])[:, None]
    wide = torch.nn.functional.pad(allowed, (0, 3))
    for mask in (allowed, wide):
        given_mask = mask if dtype == torch.bool else torch.zeros(mask.shape, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)
        assert np.array_equal(read_mask(given_mask, 2, 4), valid)
    assert read_mask(None, 2, 4) is None
    assert np.array_equal(read_mask(valid.long(), 2, 4), valid)


@pytest.mark.parametrize("change", ["bidirectional", "window", "hole", "future"])
def test_masks_that_mean_something_else(change):
    allowed = torch.ones(1, 1, 6, 6, dtype=torch.bool).tril()
    if change == "bidirectional":
        allowed[0, 0, 1, 3] = True
    elif change == "window":
        allowed &= torch.ones(6, 6, dtype=torch.bool).triu(-2)
    elif change == "hole":
        allowed[0, 0, 4, 2] = False
    else:
        allowed = torch.nn.functional.pad(allowed, (0, 1), value=True)
    with pytest.raises(ModelError, match="not plainly causal"):
        read_mask(allowed, 1, 6)
    with pytest.raises(ModelError, match="type dict"):
        read_mask({}, 1, 6)


@pytest.mark.parametrize(
    "name, form", [("sdpa", "bool"), ("eager", "additive"), ("flash_attention_2", "padding"), ("kernels-community/flash-attn3", "padding")]
)
def test_forms(name, form):
    assert mask_form(name) == form


def test_a_layout_of_what_is_left():
    tokens = raster(Plane("image", 2, 3))
    layout = Layout(np.arange(6) + 4, tokens.planes, tokens.plane, tokens.row, tokens.col)
    part = layout.part(np.array([0, 2, 5]))
    assert part.positions.tolist() == [4, 6, 9] and len(part) == 3
    assert part.fold(np.array([1, 2, 3]))[0].tolist() == [[1, 0, 2], [0, 0, 3]]
    assert part.unfold([np.arange(6).reshape(2, 3)]).tolist() == [0, 2, 5]
    with pytest.raises(ValueError, match="do not fill"):
        Layout(part.positions, part.planes, part.plane, part.row, part.col)
    with pytest.raises(ValueError, match="do not fill"):
        Layout(part.positions, part.planes, part.plane, part.row * 0, part.col * 0, part.number)
