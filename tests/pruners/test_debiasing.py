"""What attention is debiased by: rows, sources of the prior, forms."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from biaskit.errors import BiaskitError
from biaskit.grid import Layout, Plane
from biaskit.prior.bias.recency import fit_recency, recency_bias
from biaskit.prior.value import PlaneStats, Prior
from biaskit.pruners import get_pruner
from biaskit.pruners.notation import build, parse_method
from biaskit.pruners.readings import ATTENTION, EMBEDS, HIDDEN, Reading
from biaskit.pruners.signals import Signals
from biaskit.select import debias, relative_attention, top_k

QUESTION, NULL = Reading("attention", queries="question"), Reading("attention", queries="null")


def sample(n=24, **more):
    random = torch.Generator().manual_seed(1)
    layout = Layout(np.arange(n) + 3, (Plane("image", 4, n // 4),), np.zeros(n, np.int64), *np.divmod(np.arange(n), n // 4))
    rows = {row: torch.rand(n, generator=random) / n for row in (ATTENTION, QUESTION, NULL)}
    return Signals(layout, 2, {**rows, HIDDEN: torch.randn(n, 8, generator=random)}, **more)


@pytest.mark.parametrize("rows", ["last", "question", "null"])
@pytest.mark.parametrize("name", ["fastv", "d2pruner"])
def test_rows_are_a_parameter(name, rows):
    more = {"strength": 0.0} if name == "d2pruner" else {}
    pruner = get_pruner(name, budget=5, rows=rows, **more)
    reading = Reading("attention", queries=rows)
    assert reading in pruner.needs
    assert (ATTENTION in pruner.needs) == (rows == "last")
    assert torch.equal(pruner.score(sample()), sample()[reading])


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("form", ["ratio", "p_log"])
@pytest.mark.parametrize("source", ["prior", "null", "recency"])
@pytest.mark.parametrize("name", ["fastv", "d2pruner"])
def test_source_and_form_are_two_switches(name, source, form, strength):
    s = sample(a_bias=torch.linspace(0.5, 1.5, 24))
    slope = 3e-3 if source == "recency" else None
    pruner = get_pruner(name, budget=5, rows="question", debias=source, mode=form, strength=strength, slope=slope)
    q = {"prior": s.a_bias, "null": s[NULL], "recency": torch.from_numpy(recency_bias(24, 3e-3)).float()}[source]
    expected = debias(s[QUESTION], q, form="ratio" if form == "ratio" else "p_log_p_over_q", tau=strength)
    scores = pruner.score(s)
    torch.testing.assert_close(scores, expected)
    assert torch.equal(pruner.scores([s, s]), torch.stack([scores, scores]))
    assert (NULL in pruner.needs) == (source == "null")
    assert pruner.debiases == (source == "prior")


def test_every_word_of_a_switch_can_be_written_down():
    """null is a word of JSON as well: written down, debias=null was no source at all."""
    for rows, source, mode in product(
        ("last", "question", "null"), ("prior", "null", "recency"), ("ratio", "difference", "p_log", "uniform")
    ):
        if rows == source == "null" and mode != "uniform":
            continue
        label = f"fastv@debias={source}@mode={mode}@rows={rows}"
        method = parse_method(label)
        pruner = build(method, budget=5)
        assert (pruner.rows, pruner.debias, pruner.mode, method.label) == (rows, source, mode, label)


def law_prior(k, layers=(1, 5), rows=4, cols=6):
    """A prior that follows exp(k · i) with noise, in 10 groups of images."""
    rng = np.random.default_rng(0)
    law = np.exp(k * np.arange(rows * cols) * 575 / (rows * cols - 1)).reshape(rows, cols)
    groups = (law * rng.lognormal(0, 0.05, (10, len(layers), rows, cols))).astype(np.float32)
    stats = PlaneStats(groups.mean(0), group_mean=groups, group_count=np.full(10, 5, np.int32), count=50)
    return Prior({"image": stats}, layers, np.ones(len(layers), np.float32), {"rows": "last"})


@pytest.mark.parametrize("name", ["fastv", "d2pruner"])
def test_the_recency_law_is_fitted_to_a_prior(name):
    prior, layout = law_prior(2e-3), sample().layout
    pruner = get_pruner(name, budget=5, debias="recency")
    assert pruner.debiases
    law = fit_recency(prior, 1)
    assert law.k.low < 2e-3 < law.k.high and law.k.value == pytest.approx(2e-3, rel=0.05)
    q = pruner.fit_prior(prior, layout, 1)
    np.testing.assert_allclose(q, recency_bias(24, law.k.value))
    fitted = pruner.score(sample(a_bias=torch.from_numpy(q.astype(np.float32))))
    torch.testing.assert_close(fitted, get_pruner(name, budget=5, debias="recency", slope=law.k.value).score(sample()))
    assert pruner.remarks(prior) == (f"{name} is debiased at layer 1 by the recency law {law}",)
    assert f"k = {law.k.value:.2e} (95 % interval {law.k.low:.2e} to {law.k.high:.2e})" in str(law)
    with pytest.raises(BiaskitError, match="neither a slope nor a prior"):
        pruner.check_prior(None)
    with pytest.raises(BiaskitError, match="needs a prior"):
        pruner.score(sample())


@pytest.mark.parametrize("how", ["grid2d", "flat1d", "repeat", "recency", "slope"])
def test_what_is_left_keeps_its_place(how):
    """A later stage sees some of the tokens: each has the prior of its own place, not of its number among the rest."""
    whole, kept = sample().layout, np.array([3, 4, 11, 20, 23])
    more = {"debias": "recency"} if how == "recency" else {"debias": "recency", "slope": 2e-3} if how == "slope" else {"prior_layout": how}
    pruner = get_pruner("pyramiddrop", budget=2, layer=5, **more)
    if how == "slope":
        random = torch.Generator().manual_seed(0)
        rows = torch.rand(24, generator=random)
        scores = pruner.score(Signals(whole, 5, {Reading("attention", layer=0): rows}))
        part = pruner.score(Signals(whole.part(kept), 5, {Reading("attention", layer=0): rows[kept]}))
        torch.testing.assert_close(part, scores[kept])
        return
    prior = law_prior(2e-3, rows=3, cols=7)
    expected = pruner.fit_prior(prior, whole, 5)[kept]
    np.testing.assert_array_equal(pruner.fit_prior(prior, whole.part(kept), 5), expected)
    np.testing.assert_array_equal(pruner.fit_prior(prior, whole.part(np.arange(2, 24)).part(kept - 2), 5), expected)


def test_a_method_that_needs_a_prior_takes_any():
    pruner = get_pruner("d2pruner", budget=5, debias="null")
    pruner.check_prior(None)
    assert len(pruner.select(sample(), 5)) == 5
    with pytest.raises(BiaskitError, match="needs a prior"):
        get_pruner("d2pruner", budget=5).check_prior(None)


def test_without_a_prior_attention_is_raw():
    torch.testing.assert_close(get_pruner("fastv", budget=5, mode="p_log").score(sample()), sample()[ATTENTION])
    s = sample(a_bias=torch.linspace(0.5, 1.5, 24))
    torch.testing.assert_close(get_pruner("fastv", budget=5).score(s), relative_attention(s[ATTENTION], s.a_bias))


def test_how_many_scores_are_positive_is_reported():
    s = sample()
    pruner = get_pruner("fastv", budget=20, rows="question", debias="null", mode="p_log")
    keep = pruner.select(s, 20)
    scores = debias(s[QUESTION], s[NULL], form="p_log_p_over_q")
    assert keep.indices.tolist() == top_k(scores, 20).tolist()
    assert keep.info["positive"] == pytest.approx(int((scores > 0).sum()) / 20)
    assert pruner.select_many([s], [20])[0].info == keep.info
    assert "positive" not in get_pruner("fastv", budget=5).select(s, 5).info


@pytest.mark.parametrize("source", ["prior", "null", "recency"])
@pytest.mark.parametrize("name", ["d2pruner", "idpruner", "pyramiddrop", "sparsevlm"])
def test_every_method_counts_them_with_every_source(name, source):
    at = {"pyramiddrop": 0}.get(name, -1)
    rows = {q: Reading("attention", layer=at, queries=q) for q in ("question", "null")}
    random = torch.Generator().manual_seed(2)
    hidden = torch.randn(24, 8, generator=random)
    seen = {
        rows["question"]: torch.rand(24, generator=random),
        rows["null"]: torch.rand(24, generator=random),
        HIDDEN: hidden,
        EMBEDS: hidden,
    }
    s = Signals(sample().layout, 5, seen, a_bias=torch.linspace(0.5, 1.5, 24))
    more = {"importance": "debiased"} if name == "idpruner" else {"second_layer": 7, "third_layer": 9} if name == "sparsevlm" else {}
    more |= {"slope": 2e-3} if source == "recency" else {}
    pruner = get_pruner(name, budget=9, layer=5, rows="question", debias=source, mode="p_log", **more)
    q = {"prior": s.a_bias, "null": seen[rows["null"]], "recency": torch.from_numpy(recency_bias(24, 2e-3)).float()}[source]
    above = int((debias(seen[rows["question"]], q, form="p_log_p_over_q") > 0).sum())
    assert pruner.select(s, 9).info["positive"] == pytest.approx(above / 9)
    assert [keep.info["positive"] for keep in pruner.select_many([s, s], [9, 9])] == pytest.approx([above / 9] * 2)
    assert 0 < above < 24 and "positive" not in pruner.select(s, 24).info


def test_importance_of_idpruner_is_debiased_too():
    pruner = get_pruner("idpruner", budget=5, layer=2, importance="debiased", debias="null", rows="question")
    assert {QUESTION, NULL} < pruner.needs
    pruner.check_prior(None)


def test_settings_that_make_no_sense():
    with pytest.raises(BiaskitError, match="debias is 'grey'"):
        get_pruner("fastv", budget=5, debias="grey")
    with pytest.raises(BiaskitError, match="both attention and prior"):
        get_pruner("fastv", budget=5, rows="null", debias="null")
    with pytest.raises(BiaskitError, match=r"slope is 0.1 and debias is prior"):
        get_pruner("fastv", budget=5, slope=0.1)
    with pytest.raises(BiaskitError, match="slope k is 9"):
        get_pruner("fastv", budget=5, debias="recency", slope=9.0)
