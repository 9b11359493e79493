"""The contract checks: what is right passes, and each kind of mistake is found."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from reference import Anywhere, Top

from biaskit.errors import BiaskitError, ModelError
from biaskit.families.checkpoints.tiny import TINY, tiny_model
from biaskit.grid import Plane, raster
from biaskit.pruners.readings import ATTENTION, HIDDEN
from biaskit.select.keep import Keep
from biaskit.testing import check_family, check_pruner


@dataclass(frozen=True)
class Proper(Top):
    """A pruner that keeps the contract."""

    def select(self, signals, budget):
        return Keep(torch.arange(budget)) if budget >= len(signals) else super().select(signals, budget)


def test_a_proper_pruner_passes():
    check_pruner(Proper())
    check_pruner(Proper(layer=4, budget=None, share=0.2), model="qwen3-vl")


def wrong(change):
    """A pruner with one mistake."""

    @dataclass(frozen=True)
    class Wrong(Proper):
        def select(self, signals, budget):
            return change(self, signals, budget) if budget < len(signals) else super().select(signals, budget)

    return Wrong()


def spoil(self, signals, budget):
    signals[ATTENTION][0] = 0
    return Proper().select(signals, budget)


@pytest.mark.parametrize(
    "change, text",
    [
        (lambda self, signals, budget: Keep(torch.arange(budget + 1)), "keeps 2 tokens instead of 1"),
        (lambda self, signals, budget: Keep(torch.randperm(len(signals))[:budget].sort().values), "differently the second time"),
        (lambda self, signals, budget: Keep(torch.arange(budget), {"why": "because"}), "not a number"),
        (lambda self, signals, budget: Keep(signals[HIDDEN][:, 0].argsort()[:budget].sort().values), "hidden was not recorded"),
        (spoil, "changes attention"),
    ],
)
def test_mistakes_of_pruners_are_found(change, text):
    with pytest.raises((AssertionError, BiaskitError), match=text):
        check_pruner(wrong(change), model=None)


def test_wrong_descriptions_of_pruners_are_found():
    class Unknown(Proper):
        needs = frozenset({"luck"})

    with pytest.raises(BiaskitError, match="needs 'luck'"):
        check_pruner(Unknown(), model=None)
    with pytest.raises(AssertionError, match="does not keep all"):
        check_pruner(replace(NeverAll(), budget=3), model=None)


@dataclass(frozen=True)
class NeverAll(Anywhere):
    """Does not keep everything, even where it may."""

    def select(self, signals, budget):
        return Keep(torch.arange(min(budget, len(signals) - 1)))


@pytest.mark.parametrize("name", TINY)
def test_every_family_passes(name):
    check_family(*tiny_model(name))


def test_mistakes_of_families_are_found():
    model, processor, family = tiny_model("llava-1.5")

    class Other(type(family)):
        def tokens(self, config, inputs, sizes):
            return [raster(Plane("elsewhere", 24, 24)) for _ in inputs["pixel_values"]]

    with pytest.raises(AssertionError, match="planes \\['elsewhere'\\]"):
        check_family(model, processor, Other())


@pytest.mark.parametrize("name", ["llava-1.5", "qwen2.5-vl", "internvl-qwen2"])
def test_wrong_patches_of_families_are_found(name, monkeypatch):
    model, processor, family = tiny_model(name)
    right = type(family).patches

    def swapped(self, config, inputs):
        return [replace(part, index=part.index[::-1]) for part in right(self, config, inputs)]

    def short(self, config, inputs):
        return [part.part(np.arange(len(part.index) - 1)) for part in right(self, config, inputs)]

    monkeypatch.setattr(type(family), "patches", swapped)
    with pytest.raises(AssertionError, match="do not make its embedding"):
        check_family(model, processor, family)
    monkeypatch.setattr(type(family), "patches", short)
    with pytest.raises(ModelError, match="patches behind"):
        check_family(model, processor, family)
