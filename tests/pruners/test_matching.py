"""Budgets by the layer mean: what the cards count, and methods with stages beside those at K = 0."""

from __future__ import annotations

import pytest
from reference import model_of
from samples import schedule_of

from biaskit import get_pruner
from biaskit.errors import BiaskitError
from biaskit.pruners.matching import layer_mean, matched
from biaskit.select import layer_counts
from biaskit.validation.ask.methods import Grid


def counts(pruner, n_tokens=576, depth=32):
    return layer_counts(n_tokens, depth, [(stage.layer, stage.tokens(n_tokens)) for stage in pruner.stages()])


def test_counts_of_the_cards():
    assert counts(get_pruner("sparsevlm", preset="192-v1")) == [576] * 3 + [309] * 4 + [204] * 9 + [113] * 16
    assert counts(get_pruner("pyramiddrop", retention=0.125)) == [576] * 8 + [288] * 8 + [144] * 8 + [72] * 8
    assert layer_mean(get_pruner("pyramiddrop", retention=0.125), 576, 32) == 270
    for label, mean in ((192, 206.5), (128, 145.4), (96, 114.1), (64, 82.3)):
        assert layer_mean(get_pruner("sparsevlm", preset=f"{label}-v1"), 576, 32) == pytest.approx(mean, abs=0.051)
    assert counts(get_pruner("visionzip", budget=64)) == [64] * 32
    assert counts(get_pruner("fastv", budget=128)) == [576] * 2 + [128] * 30


@pytest.mark.parametrize("share", [0.5, 1 / 3, 0.28])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("fastv", {}),
        ("fastv", {"layer": 5}),
        ("divprune", {}),
        ("tome", {}),
        ("pyramiddrop", {"layer": 4}),
        ("sparsevlm", {"first": 0.3, "second": 0.2}),
    ],
)
def test_every_method_reaches_the_mean(name, settings, share):
    pruner = matched(lambda retention: get_pruner(name, retention=retention, **settings), share, 32, name)
    assert layer_mean(pruner, 576, 32) == pytest.approx(share * 576, abs=1.0)
    if name in ("divprune", "tome"):
        assert pruner.retention == share


def test_fitprune_reaches_the_next_step():
    """Its α are 1/128 apart: the mean is the next one above."""
    schedule = schedule_of("llava", 32)
    means = sorted({layer_mean(get_pruner("fitprune", retention=schedule.left(at), schedule=schedule), 576, 32) for at in range(128)})
    for below, above in ((means[3], means[4]), (means[-3], means[-2])):
        share = (below + above) / 2 / 576
        found = matched(lambda retention: get_pruner("fitprune", retention=retention, schedule=schedule), share, 32, "fitprune")
        assert share * 576 - 1 <= layer_mean(found, 576, 32) <= above + 1


def test_a_mean_that_the_first_layers_exceed_is_refused():
    with pytest.raises(BiaskitError, match=r"fastv@k=8: a layer mean of 10.00% .* cannot be reached: its first layers alone give 25.00%"):
        matched(lambda share: get_pruner("fastv", layer=8, retention=share), 0.1, 32, "fastv@k=8")


def test_a_grid_matches_all_its_cells():
    config = model_of("llava-1.5")[0].config
    depth = config.get_text_config().num_hidden_layers
    plain, alike = (Grid(["none", "fastv@k=1", "divprune"], [0.5], match=match).cells(config) for match in ("last", "layer-mean"))
    assert [cell.label for cell in plain] == [cell.label for cell in alike]
    assert [cell.retention for cell in alike] == [1.0, 0.5, 0.5]
    assert [layer_mean(cell.pruner, 576, depth) for cell in alike] == pytest.approx([576, 288, 288], abs=1)
    assert plain[1].pruner.retention == 0.5 > alike[1].pruner.retention
