"""Pruners that decide for a batch keep what they keep of each sample; those that cannot notice nothing."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from samples import layout, signals, two_images, with_newlines

from biaskit import device as transfer
from biaskit import get_pruner
from biaskit.errors import BiaskitError
from biaskit.grid import Plane, raster
from biaskit.pruners.base import Pruner
from biaskit.pruners.d2pruner import D2Pruner
from biaskit.pruners.fastv import FastV
from biaskit.select.keep import Keep

METHODS = {
    "d2pruner": {},
    "d2pruner by place": {"alpha": 0.5},
    "d2pruner, one image after another": {"pool": "per_image"},
    "d2pruner, newlines apart": {"newline": "drop_all"},
    "d2pruner in layers": {"fill": "layers", "theta": 0.3},
    "d2pruner without debiasing": {"strength": 0.0},
    "fastv": {},
    "idpruner": {},
    "idpruner by attention": {"importance": "attention", "layer": 2},
    "idpruner, debiased": {"importance": "debiased", "layer": 2},
    "divprune": {},
    "dart": {},
    "uniform": {},
    "random": {},
}
PLACES = [(6, 6), two_images(), (6, 6), with_newlines(), (3, 3), layout(raster(Plane("image", 4, 9)))]


def build(method):
    return get_pruner(method.split()[0].strip(","), budget=9, **METHODS[method])


def samples():
    return [signals(place, seed=seed) for seed, place in enumerate(PLACES)]


@pytest.mark.parametrize("pretend", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_a_batch_is_its_samples(method, pretend, interpreter, monkeypatch):
    pruner = build(method)
    expected = [pruner.select(sample, 9) for sample in samples()]
    monkeypatch.setattr(transfer, "_pretend", pretend)
    found = pruner.select_many(samples(), [9] * len(PLACES))
    assert [keep.indices.tolist() for keep in found] == [keep.indices.tolist() for keep in expected]
    for keep, wanted in zip(found, expected, strict=True):
        assert keep.info == pytest.approx(wanted.info, abs=2**-19)
    assert found[4].indices.tolist() == list(range(9))


def test_several_budgets():
    kept = build("fastv").select_many(samples()[:3], [1, 5, 40])
    assert list(map(len, kept)) == [1, 5, 36]


def test_what_select_refuses():
    with pytest.raises(BiaskitError, match="cannot keep 0"):
        build("fastv").select_many(samples(), [9, 0, 9, 9, 9, 9])
    with pytest.raises(BiaskitError, match="fastv needs attention"):
        build("fastv").select_many([signals(attention=None)], [9])


@dataclass(frozen=True)
class First(Pruner):
    """Only knows `choose`."""

    name = "first"

    def choose(self, signals, budget):
        return Keep(torch.arange(budget))


@dataclass(frozen=True)
class FirstOfD2(D2Pruner):
    """Changes `choose`, and nothing else, of a method that decides for batches."""

    def choose(self, signals, budget):
        return Keep(torch.arange(budget))


@dataclass(frozen=True)
class LastOfFastV(FastV):
    """Changes `select`."""

    def select(self, signals, budget):
        return Keep(torch.arange(len(signals) - budget, len(signals)))


@dataclass(frozen=True)
class Upwards(FastV):
    """Changes the score, which batches go by too."""

    def score(self, signals):
        return torch.arange(float(len(signals)))


def test_plug_ins_notice_nothing(interpreter, monkeypatch):
    monkeypatch.setattr(transfer, "_pretend", True)
    two = samples()[:1] * 2
    for cls, wanted in ((First, [0, 1, 2]), (FirstOfD2, [0, 1, 2]), (LastOfFastV, [33, 34, 35]), (Upwards, [33, 34, 35])):
        assert [keep.indices.tolist() for keep in cls(budget=3).select_many(two, [3, 3])] == [wanted] * 2
