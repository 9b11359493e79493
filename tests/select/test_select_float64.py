"""The selections equal float64 ones that round nothing: closeness of two tokens to a rounding step decides nothing."""

from __future__ import annotations

import pytest
import torch
from exact import exact_cosines
from torch import Tensor

from biaskit.bench import authors
from biaskit.bench.features import MadeUp, made_up
from biaskit.select import cells, d2_select, dart_select, max_min_select, mmr_select
from biaskit.select import cpu as door
from biaskit.select.cpu import cosines as product_module


@pytest.fixture(params=["float32", "bfloat16"])
def product(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product_module, "bfloat16_is_faster", lambda: request.param == "bfloat16")


def gaussian(total: int, d: int, seed: int, rows: int) -> MadeUp:
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(total, d, generator=random)
    text = torch.randn(20, d, generator=random)
    return MadeUp(features, torch.rand(total, generator=random), cells((rows, total // rows)), text, torch.rand(20, generator=random))


def all_equal(sample: MadeUp, n: int) -> None:
    exact = authors.float64_cosines
    assert torch.equal(max_min_select(sample.features, n), authors.farthest(sample, n, exact))
    assert torch.equal(mmr_select(sample.scores, sample.features, n), authors.marginal_relevance(sample, n, exact))
    for alpha in (1.0, 0.5):
        kept = d2_select(sample.scores, sample.features, sample.where, n, alpha=alpha).indices
        assert torch.equal(kept, authors.d2(sample, n, exact, alpha=alpha))
    kept = dart_select(sample.scores, sample.features, sample.text_scores, sample.text_features, n)
    assert torch.equal(kept, authors.least_duplicated(sample, n, exact))


@pytest.mark.usefixtures("product")
@pytest.mark.parametrize("seed", [1, 2])
def test_gaussian_tokens(seed: int) -> None:
    """Seed 1 at 25 %: cosines rounded to 2⁻¹⁸ keep other tokens."""
    for n in (129, 288, 385):
        all_equal(gaussian(1152, 512, seed, 32), n)


@pytest.mark.usefixtures("product")
def test_tokens_of_a_model_in_bfloat16() -> None:
    all_equal(made_up(1152, 512, 3), 129)
    sample = gaussian(576, 256, 4, 24)
    all_equal(MadeUp(sample.features.bfloat16(), *list(vars(sample).values())[1:]), 192)


@pytest.mark.usefixtures("product")
@pytest.mark.parametrize("scale", [1.0, 4.0, 3.7])
def test_copies_of_a_token_tie_and_the_lower_index_wins(scale: float) -> None:
    sample = gaussian(300, 64, 5, 15)
    features = torch.cat([sample.features, sample.features * scale])
    scores, first = torch.cat([sample.scores, sample.scores]), torch.arange(300)
    picked = max_min_select(features, 320, order="choice")
    assert sorted((picked[:300] % 300).tolist()) == first.tolist(), "no copy while there is another token"
    assert picked[300:].tolist() == sorted(set(range(600)) - set(picked[:300].tolist()))[:20], "then all tie"
    if scale != 3.7:  # which rounds the copy
        assert int(picked[:300].max()) < 300
        both = MadeUp(features, scores, sample.where, sample.text_features, sample.text_scores)
        assert torch.equal(mmr_select(scores, features, 200), authors.marginal_relevance(both, 200, exact_cosines))
        assert torch.equal(d2_select(scores, features, None, 100, pivot_ratio=0.0).indices, _first(scores, features))


def _first(scores: Tensor, features: Tensor) -> Tensor:
    return d2_select(scores[:300], features[:300], None, 100, pivot_ratio=0.0).indices


def test_one_door() -> None:
    """What lies behind `select.cpu` is imported through it alone."""
    import ast
    from pathlib import Path

    import biaskit

    root = Path(biaskit.__file__).parent
    inside = root / "select" / "cpu"
    for path in root.rglob("*.py"):
        if inside in path.parents:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("biaskit.select.cpu"):
                assert node.module == "biaskit.select.cpu", f"{path} reaches behind the door"
                assert {name.name for name in node.names} <= set(door.__all__), f"{path} imports {[n.name for n in node.names]}"
            if isinstance(node, ast.Import):
                assert not any(name.name.startswith("biaskit.select.cpu") for name in node.names), path
