"""The selections depend on nothing but their arguments: not on torch's global settings, nor on one token among the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from exact import exact_cosines
from torch import Tensor

from biaskit.bench import authors
from biaskit.bench.features import MadeUp, made_up
from biaskit.select import cells, d2_graph, d2_select, dart_select, max_min_select, min_max, mmr_select, uniform_select
from biaskit.select.cosine import cosines, multiplies_float32, unit_rows
from biaskit.select.cpu import cosines as product_module
from biaskit.select.cpu import d2 as linked_module
from biaskit.select.cpu import greedy as lazy_module
from biaskit.select.cpu.cosines import Product, greedy_dtype
from biaskit.select.cpu.farthest import farthest_token

SELECT: dict[str, Callable[[MadeUp], Tensor]] = {
    "d2 by meaning": lambda s: d2_select(s.scores, s.features, s.where, 30).indices,
    "d2 by place": lambda s: d2_select(s.scores, s.features, s.where, 30, alpha=0.5).indices,
    "d2 in layers": lambda s: d2_select(s.scores, s.features, s.where, 60, theta=0.3, fill="layers").indices,
    "mmr": lambda s: mmr_select(s.scores, s.features, 30),
    "max_min": lambda s: max_min_select(s.features, 30),
    "dart": lambda s: dart_select(s.scores, s.features, s.text_scores, s.text_features, 30),
    "uniform": lambda s: uniform_select(len(s.scores), 30, where=s.where),
}


@pytest.fixture
def settings_back() -> Iterator[None]:
    """Whatever a test sets is undone."""
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)
    torch.set_float32_matmul_precision("highest")


@pytest.mark.usefixtures("settings_back")
@pytest.mark.parametrize("select", SELECT.values(), ids=SELECT)
def test_torch_s_defaults_change_nothing(select: Callable[[MadeUp], Tensor]) -> None:
    sample = made_up(100, 48)
    expected, state = select(sample), torch.get_rng_state()
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        torch.set_default_dtype(dtype)
        assert torch.equal(select(sample), expected)
    torch.set_default_dtype(torch.float32)
    torch.set_float32_matmul_precision("medium")
    assert torch.equal(select(sample), expected)
    torch.set_default_device("meta")
    assert torch.equal(select(sample), expected)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.usefixtures("settings_back")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_the_threshold_does_not_follow_the_default_dtype(dtype: torch.dtype) -> None:
    """Cosines 0.79999 and 0.80002 and θ = 0.8 between them; half precision would not tell them apart."""
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.79999, (1 - 0.79999**2) ** 0.5], [0.80002, -((1 - 0.80002**2) ** 0.5)]])
    features[3] = torch.tensor([0.80002, (1 - 0.80002**2) ** 0.5])
    torch.set_default_dtype(dtype)
    for other, linked in ((2, False), (3, True)):
        three = features[[0, 1, other]]
        keep = d2_select(torch.tensor([3.0, 1.0, 2.0]), three, None, 2, pivot_ratio=0.0)
        assert keep.indices.tolist() == ([0, 1] if linked else [0, 2])


@pytest.mark.usefixtures("settings_back")
@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
@pytest.mark.parametrize("d", [64, 512])
def test_the_bound_holds_at_every_precision(precision: str, d: int) -> None:
    features = torch.randn(128, d, generator=torch.Generator().manual_seed(0)) + 0.5
    exact = exact_cosines(features, features)
    torch.set_float32_matmul_precision(precision)
    product = Product(features, low=torch.float32)
    assert np.abs(product.columns(np.arange(128)) - exact.numpy()).max() <= product.error()
    assert float((cosines(unit_rows(features), unit_rows(features)) - exact).abs().max()) <= 2.0**-24


@pytest.mark.parametrize("scale", [0.0, 1e-42, 1e-20, 1e20, 1e37])
def test_a_token_of_odd_size_leaves_the_others_exact(scale: float) -> None:
    """Rows are brought to size by powers of two: dividing by anything else rounds them, and with them cosines near a step's edge."""
    features = torch.randn(300, 24, generator=torch.Generator().manual_seed(0)) + 0.5
    features[7] *= scale
    product = Product(features)
    expected = features.double()
    expected = expected / expected.norm(dim=1, keepdim=True).clamp_min(1e-300)
    expected = (expected @ expected.T * 2**24).round() / 2**24
    assert np.array_equal(product.exact_table(np.arange(300), np.arange(300)), expected.numpy())


def test_importance_of_any_size() -> None:
    assert min_max(torch.tensor([-3e38, 0.0, 3e38])).tolist() == [0, 0.5, 1]


def test_bfloat16_only_where_it_tells_tokens_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product_module, "bfloat16_is_faster", lambda: True)
    random = torch.Generator().manual_seed(0)
    alike = 3 * torch.randn(1, 512, generator=random) + torch.randn(600, 512, generator=random)
    assert greedy_dtype(made_up(600, 512).features) == torch.bfloat16
    assert greedy_dtype(torch.randn(600, 4096, generator=random).bfloat16()) == torch.bfloat16
    assert greedy_dtype(alike.bfloat16()) == greedy_dtype(alike) == torch.float32
    assert greedy_dtype(torch.randn(600, 4096, generator=random)) == torch.float32, "rounding the rows takes more than tells them apart"
    assert greedy_dtype(made_up(2000, 256).features) == greedy_dtype(torch.ones(1, 2**19)) == torch.float32
    monkeypatch.setattr(product_module, "bfloat16_is_faster", lambda: False)
    assert greedy_dtype(made_up(600, 512).features) == torch.float32


@pytest.mark.parametrize("among", [16, 600])
def test_only_rows_of_chosen_tokens_are_computed(among: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 600 tokens 300: in rounds among 16, or among all."""
    sample, asked = made_up(600, 20), 0
    expected = authors.marginal_relevance(sample, 300, exact_cosines), authors.farthest(sample, 300, exact_cosines)
    bounds = Product.bounds

    def watched(self: Product, index: np.ndarray, tokens: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        nonlocal asked
        asked += len(index) if tokens is None else 0
        return bounds(self, index, tokens)

    monkeypatch.setattr(Product, "bounds", watched)
    monkeypatch.setattr(lazy_module, "CANDIDATES", among)
    assert torch.equal(mmr_select(sample.scores, sample.features, 300), expected[0])
    assert asked <= (299 if among < 600 else 1)
    asked = 0
    farthest_token(Product(sample.features))
    found, asked = asked, 0
    assert found < 600
    assert torch.equal(max_min_select(sample.features, 300), expected[1])
    assert asked <= (299 if among < 600 else 1) + found


def test_a_chain_is_walked_in_one_pass() -> None:
    """Neighbours on an arc, best first along it: every token waits for the one before it."""
    angle = torch.linspace(0, 3, 400)
    arc = torch.stack([angle.cos(), angle.sin()], 1)
    step = float(d2_graph(arc, None).fused[0, 1:3].mean())
    keep = d2_select(-torch.arange(400.0), arc, cells((1, 400)), 100, theta=step, pivot_ratio=0.0)
    assert keep.indices.tolist() == list(range(0, 200, 2))


def test_rows_that_were_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clusters that follow one another by rank: the graph leaves one token each, far beyond the rows that were kept."""
    monkeypatch.setattr(linked_module, "_SMALL", 16)
    monkeypatch.setattr(linked_module, "_MOST", 16)
    centre = torch.eye(12)[torch.arange(1200) // 100]
    features = centre + 1e-3 * torch.randn(1200, 12, generator=torch.Generator().manual_seed(0))
    keep = d2_select(-torch.arange(1200.0), features, None, 10, pivot_ratio=0.0)
    assert keep.indices.tolist() == list(range(0, 1000, 100))


@pytest.mark.parametrize("module", ["cosine", "gpu"])
def test_products_that_torch_may_round_are_float64_ones(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`allow_tf32` and `set_float32_matmul_precision` reach neither cosines nor the table of products on a device."""
    a, b = torch.full((1, 2, 8), 1 + 2.0**-12), torch.full((1, 3, 8), 1 + 2.0**-12)
    kinds: list[torch.dtype] = []
    matmul, bmm = torch.Tensor.__matmul__, torch.bmm
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda one, other: kinds.append(one.dtype) or matmul(one, other))
    monkeypatch.setattr(torch, "bmm", lambda one, other: kinds.append(one.dtype) or bmm(one, other))
    for precise in (True, False):
        where = "biaskit.select.cosine" if module == "cosine" else "biaskit.select.gpu.cosines"
        if module == "gpu":
            pytest.importorskip("triton")
        monkeypatch.setattr(f"{where}.multiplies_float32", lambda kind, precise=precise: precise)
        if module == "cosine":
            cosines(a[0], b[0])
        else:
            from biaskit.select.gpu.cosines import _product

            _product(a, b, torch.empty(1, 2, 3))
    assert kinds == [torch.float32, torch.float64]


@pytest.mark.usefixtures("settings_back")
def test_cuda_s_switches_are_read() -> None:
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        for allowed in (False, True):
            torch.backends.cuda.matmul.allow_tf32 = allowed
            assert multiplies_float32("cuda") is not allowed
        torch.set_float32_matmul_precision("high")
        assert not multiplies_float32("cuda") and not multiplies_float32("cpu")
        torch.set_float32_matmul_precision("highest")
        assert multiplies_float32("cuda") and multiplies_float32("cpu")
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
