"""Formulas against published and hand-counted numbers (method card 22)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biaskit.errors import BiaskitError
from biaskit.families.checkpoints.flops import (
    Dims,
    TowerDims,
    cache_bytes,
    ceiling,
    layer_cost,
    mean_tokens,
    prefill_cost,
    tower_cost,
    tower_rows_cost,
)

VICUNA = Dims(32, 4096, 11008, 32, 32, 128, 32064)
QWEN = Dims(28, 3584, 18944, 28, 4, 128, 152064)
INTERNLM = Dims(32, 4096, 14336, 32, 8, 128, 92553)
N = 2880


def kept(retention, layer=2, n=N):
    return [(0, n), (layer, retention * n)]


@pytest.mark.parametrize(
    ("t", "formula", "visual", "tera"),
    [
        (34, "fastv", [(0, N)], 16.893), (34, "fastv", kept(0.334), 5.999), (34, "fastv", kept(0.112), 2.770),
        (35, "fastv", [(0, N)], 16.899), (35, "fastv", kept(0.334), 6.005), (35, "fastv", kept(0.112), 2.775),
        (35, "fastv", kept(0.334, 1), 5.641), (35, "fastv", [(0, 0.334 * N)], 5.278),
        (35, "gated", [(0, N)], 21.105), (35, "gated", kept(0.334), 7.616), (35, "gated", kept(0.112), 3.521),
    ],
)  # fmt: skip
def test_table_4_of_the_paper(t, formula, visual, tera):
    assert prefill_cost(VICUNA, t, visual, formula) / 1e12 == pytest.approx(tera, abs=6e-4)


def test_ceilings_of_table_4():
    assert f"{ceiling(VICUNA, 34, N, kept(0.334)):.2f} {ceiling(VICUNA, 34, N, kept(0.112)):.2f}" == "2.82 6.10"
    assert ceiling(VICUNA, 35, N, kept(0.112), "gated") == pytest.approx(5.994, abs=6e-4)


@pytest.mark.parametrize(("left", "percent"), [(192, (63.57, 59.59, 53.64)), (128, (73.93, 69.31, 62.37)), (64, (84.22, 78.95, 71.06))])
def test_reductions_of_llava_1_5(left, percent):
    whole = prefill_cost(VICUNA, 35, [(0, 576)])
    assert whole / 1e12 == pytest.approx(3.1731, abs=6e-5)
    for layer, reduction in zip((0, 2, 5), percent, strict=True):
        visual = [(0, 576), (layer, left)] if layer else [(0, left)]
        assert 100 * (1 - prefill_cost(VICUNA, 35, visual) / whole) == pytest.approx(reduction, abs=6e-3)


def test_cache_bytes_per_token_and_layer_mean():
    assert [cache_bytes(dims, 1, [(0, 0)]) for dims in (VICUNA, QWEN, INTERNLM)] == [524288, 57344, 131072]
    assert cache_bytes(VICUNA, 0, [(0, N)]) / 1e6 == pytest.approx(1509.9, abs=0.06)
    assert [mean_tokens(VICUNA, [(0, 576), (2, left)]) for left in (192, 128, 64)] == [216, 156, 96]


def matrix_products(dims, n):
    """Multiply-adds of a gated layer with grouped queries, product by product: (rows, inner, columns) each."""
    q, kv = dims.heads * dims.head_dim, dims.kv_heads * dims.head_dim
    products = [(n, dims.hidden, q), (n, dims.hidden, kv), (n, dims.hidden, kv), (n, q, dims.hidden)]
    products += [(n, dims.head_dim, n), (n, n, dims.head_dim)] * dims.heads
    products += [(n, dims.hidden, dims.inner)] * 2 + [(n, dims.inner, dims.hidden)]
    return int(np.prod(np.array(products, dtype=object), axis=1).sum())


SIZES = st.builds(
    Dims, st.integers(1, 5), *(st.integers(1, 64),) * 2, st.integers(1, 8), st.integers(1, 8), st.integers(1, 32), st.integers(1, 99)
)


@given(SIZES, st.integers(0, 60), st.integers(1, 200))
def test_exact_counts_every_matrix_product(dims, t, n):
    assert layer_cost(dims, t + n, "exact") == matrix_products(dims, t + n)
    whole = prefill_cost(dims, t, [(0, n)], "exact", lm_head=True)
    assert whole == dims.layers * matrix_products(dims, t + n) + dims.hidden * dims.vocab


@given(st.sampled_from(["fastv", "gated", "exact"]), st.integers(1, 300))
def test_causal_prefill_is_the_sum_of_its_tokens(formula, n):
    """Each costs what it costs alone, and one pair for each earlier key; a square of two tokens has two pairs more than they alone."""
    alone = layer_cost(QWEN, 1, formula)
    pair = (layer_cost(QWEN, 2, formula) - 2 * alone) / 2
    steps = QWEN.layers * sum(alone + before * pair for before in range(n))
    assert prefill_cost(QWEN, n, [(0, 0)], formula, causal=True) == pytest.approx(steps, rel=1e-12)


def test_full_heads_make_gated_exact():
    assert prefill_cost(VICUNA, 35, kept(0.1), "gated") == prefill_cost(VICUNA, 35, kept(0.1), "exact")


def test_three_stages_add_up():
    by_hand = 8 * layer_cost(VICUNA, 611) + 8 * layer_cost(VICUNA, 323) + 16 * layer_cost(VICUNA, 179)
    assert prefill_cost(VICUNA, 35, [(0, 576), (8, 288), (16, 144)]) == by_hand


@pytest.mark.parametrize("visual", [[], [(1, 5)], [(0, 5), (0, 4)], [(0, 5), (32, 4)], [(0, 5), (2, 6)]])
def test_refuses_what_no_model_does(visual):
    with pytest.raises(BiaskitError, match="visual tokens per layer"):
        prefill_cost(VICUNA, 35, visual)
    with pytest.raises(BiaskitError, match="unknown formula 'sparse'"):
        layer_cost(VICUNA, 5, "sparse")


def test_a_tower_s_cost_is_that_of_its_layers_and_grows_by_the_tile():
    """A tower's block is a layer with full heads; five tiles cost five times one, and a tile of five times the patches more."""
    clip = TowerDims(24, 4 * 1024**2 + 2 * 1024 * 4096, 1024, class_tokens=1)
    assert tower_cost(clip, [576]) == 24 * layer_cost(Dims(24, 1024, 4096, 16, 16, 64, 1), 577, "fastv")
    assert tower_cost(clip, [576] * 5) == 5 * tower_cost(clip, [576]) < tower_cost(clip, [2880])
    assert tower_rows_cost(clip, [576] * 5, [1, None]) == 5 * (577 + 577**2) * 1024
