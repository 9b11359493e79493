"""Cosines in the model's dtype, as released: the exact selections where the dtype is exact, and other ones where it is not."""

from __future__ import annotations

import dataclasses

import oracles
import pytest
import torch
from samples import signals

from biaskit import get_pruner
from biaskit.bench.features import made_up
from biaskit.engine.made_up import sample_layouts, sample_signals
from biaskit.pruners.readings import EMBEDS, Reading
from biaskit.select import dart_select, max_min_select, mmr_select
from biaskit.select.released import least_similar_in_dtype, max_min_in_dtype, mmr_in_dtype, model_cosines

TEXT_EMBEDS = Reading("hidden", "projector", tokens="text")
GOLDEN = torch.tensor(
    [[0.9, 0, 0.1, 0.4], [0.8, 0.4, 1, -0.2], [0, 0.4, -0.2, 0], [0.5, 0, 0.7, 0.8], [-0.1, 0.5, 0.5, 0.2], [-0.1, 0.4, 0.2, 0.5]]
)  # card 35.8: every step's margin is above half precision's rounding
W = torch.tensor([0.95, 1.0, 0.6, 0.9, 0.3, 0.7])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_golden_vectors_hold_in_every_dtype(dtype):
    rows = GOLDEN.to(dtype)
    assert max_min_in_dtype(rows, 3, order="choice").tolist() == [2, 3, 4]
    assert mmr_in_dtype(W, rows, 3, lam=0.5, order="choice").tolist() == [1, 2, 0]
    assert mmr_in_dtype(W, rows, 3, lam=0.0, order="choice").tolist() == [1, 2, 5]


@pytest.mark.parametrize("seed", range(6))
def test_in_float64_they_are_the_exact_ones(seed):
    made = made_up(90, 32, seed)
    rows, text = made.features.double(), made.text_features.double()
    for n in (1, 2, 11, 90):
        assert max_min_in_dtype(rows, n).tolist() == sorted(oracles.max_min(rows.numpy(), n)[0]) == max_min_select(rows, n).tolist()
        assert mmr_in_dtype(made.scores, rows, n).tolist() == mmr_select(made.scores, rows, n).tolist()
        found = least_similar_in_dtype(made.scores, rows, made.text_scores, text, n)
        assert found.tolist() == dart_select(made.scores, rows, made.text_scores, text, n).tolist()


def test_bfloat16_cannot_tell_what_float64_can():
    """Cosines 0.9990 and 0.9995 to token 0 are both 1 in bfloat16: a tie, which the lower index wins."""
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.0316], [1.0, 0.0447]])
    assert model_cosines(rows.bfloat16(), rows.bfloat16())[0].tolist() == [1, 1, 1]
    importance = torch.tensor([1.0, 0.5, 0.5])
    assert mmr_in_dtype(importance, rows.bfloat16(), 2, lam=0.0, order="choice").tolist() == [0, 1]
    assert mmr_select(importance, rows, 2, lam=0.0, order="choice").tolist() == [0, 2]


@pytest.mark.parametrize(("name", "settings"), [("divprune", {}), ("idpruner", {}), ("dart", {"layer": 2}), ("dart", {"layer": 0})])
def test_methods_switch(name, settings):
    """Where float32 tells tokens apart, nothing changes; DivPrune, which looks at every pair, keeps others in bfloat16."""
    layout, kept = sample_layouts()["square"], {}
    for similarity in ("exact", "model"):
        for dtype in (torch.float32, torch.bfloat16):
            pruner = get_pruner(name, budget=12, similarity=similarity, **settings)
            seen = [
                sample_signals(layout, frozenset(pruner.needs), layer=pruner.layer, seed=seed, a_bias=False, dtype=dtype)
                for seed in range(8)
            ]
            found = [keep.indices.tolist() for keep in pruner.select_many(seen, [12] * 8)]
            assert found == [pruner.select(sample, 12).indices.tolist() for sample in seen]
            kept[similarity, dtype] = found
    assert kept["exact", torch.float32] == kept["model", torch.float32], "float32 tells these apart"
    assert name != "divprune" or kept["exact", torch.bfloat16] != kept["model", torch.bfloat16]


def test_methods_keep_what_the_released_code_keeps():
    """Token 0 first; then the farther of 1 and 2 by exact cosines, and by those of bfloat16, which tie, token 1."""
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.0316], [1.0, 0.0447]]).bfloat16()
    seen = dataclasses.replace(signals((1, 3)), readings={EMBEDS: rows, TEXT_EMBEDS: rows[:0]}, text_positions=torch.zeros(0).long())
    for similarity, kept in (("exact", [0, 2]), ("model", [0, 1])):
        mmr = get_pruner("idpruner", budget=2, lam=0.0, importance=[1.0, 0.5, 0.5], similarity=similarity)
        assert mmr.select(seen, 2).indices.tolist() == kept
        far = dataclasses.replace(seen, readings={EMBEDS: rows * torch.tensor([[2.0], [1], [1]]).bfloat16(), TEXT_EMBEDS: rows[:0]})
        assert get_pruner("dart", budget=2, layer=0, pivots=1, similarity=similarity).select(far, 2).indices.tolist() == kept
    apart = torch.tensor([[1.0, 0.0], [1.0, 0.0316], [1.0, 0.0447], [0.0, 1.0]]).bfloat16()
    wide = dataclasses.replace(signals((1, 4)), readings={EMBEDS: apart})
    assert get_pruner("divprune", budget=2, similarity="exact").select(wide, 2).indices.tolist() == [0, 3]
