"""Weights of a trained scorer, as published and as part of a checkpoint."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from samples import signals
from torch import Tensor

from biaskit.errors import BiaskitError
from biaskit.pruners import get_pruner
from biaskit.pruners.readings import EMBEDS
from biaskit.pruners.selector_weights import read_selector
from biaskit.select import mmr_select, selector_score, soft_top_k, top_k


def tensors(prefix: str = "", hidden: int = 5, width: int = 10) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    shapes = {"q_proj.weight": (hidden, width), "q_proj.bias": (hidden,), "k_proj.weight": (hidden, width), "k_proj.bias": (hidden,)}
    return {prefix + name: torch.randn(*shape, generator=random) for name, shape in shapes.items()}


@pytest.mark.parametrize("prefix", ["", "module.", "visual.importance_scorer.", "model.visual.importance_scorer._orig_mod."])
def test_read(tmp_path: Path, prefix: str) -> None:
    others = {"model.layers.0.self_attn.q_proj.weight": torch.ones(3, 3), "model.layers.0.self_attn.k_proj.bias": torch.ones(3)}
    save_file(tensors(prefix) | (others if "scorer" in prefix else {}), tmp_path / "selector.safetensors")
    found, plain = read_selector(tmp_path / "selector.safetensors"), tensors()
    assert torch.equal(found.query[0], plain["q_proj.weight"])
    assert torch.equal(found.key[1], plain["k_proj.bias"])


@pytest.mark.parametrize("soft", [True, False])
def test_idpruner_with_a_selector(tmp_path: Path, soft: bool) -> None:
    save_file({name: value.half() for name, value in tensors().items()}, tmp_path / "selector.safetensors")
    s, weights = signals(), read_selector(tmp_path / "selector.safetensors")
    score = selector_score(s[EMBEDS], weights.query, weights.key)
    pruner = get_pruner("idpruner", budget=9, importance="selector", weights=tmp_path / "selector.safetensors", soft=soft)
    assert pruner.select(s, 9).indices.tolist() == mmr_select(soft_top_k(score) if soft else score, s[EMBEDS], 9).tolist()
    save_file(tensors(width=7), tmp_path / "other.safetensors")
    other = get_pruner("idpruner", budget=9, importance="selector", weights=str(tmp_path / "other.safetensors"))
    with pytest.raises(BiaskitError, match="for features of size 7, these have 10"):
        other.select(s, 9)


def test_weights_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(BiaskitError, match="cannot read selector weights"):
        read_selector(tmp_path / "missing.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors here")
    with pytest.raises(BiaskitError, match="cannot read selector weights"):
        read_selector(tmp_path / "text.safetensors")
    short = tensors()
    del short["k_proj.bias"]
    save_file(short, tmp_path / "short.safetensors")
    with pytest.raises(BiaskitError, match=r"has 0 tensors k_proj\.bias of a scorer, not one"):
        read_selector(tmp_path / "short.safetensors")
    save_file(tensors() | {"k_proj.weight": torch.ones(5, 8)}, tmp_path / "uneven.safetensors")
    with pytest.raises(BiaskitError, match="do not match"):
        read_selector(tmp_path / "uneven.safetensors")
    for wrong in ({"importance": "selector"}, {"weights": "selector.safetensors"}):
        with pytest.raises(BiaskitError, match="weights is"):
            get_pruner("idpruner", budget=9, **wrong)


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        (((4, 6), (4,), (4, 5), (4,)), "do not match"),
        (((4, 6), (), (4, 6), ()), "do not match"),
        (((24,), (4,), (24,), (4,)), "do not match"),
        (((4, 6), (4, 1), (4, 6), (4, 1)), "do not match"),
        (((0, 6), (0,), (0, 6), (0,)), "do not match"),
        (((4, 6, 1), (4,), (4, 6, 1), (4,)), "do not match"),
    ],
)
def test_shapes_that_are_no_scorer(tmp_path, shapes, says):
    names = ("q_proj.weight", "q_proj.bias", "k_proj.weight", "k_proj.bias")
    path = tmp_path / "x.safetensors"
    save_file({name: torch.zeros(shape) for name, shape in zip(names, shapes, strict=True)}, path)
    with pytest.raises(BiaskitError, match=says):
        read_selector(path)


def test_values_that_are_no_weights(tmp_path):
    shapes = {"q_proj.weight": (4, 6), "q_proj.bias": (4,), "k_proj.weight": (4, 6), "k_proj.bias": (4,)}
    path = tmp_path / "x.safetensors"
    save_file({name: torch.zeros(shape, dtype=torch.int32) for name, shape in shapes.items()}, path)
    with pytest.raises(BiaskitError, match=r"q_proj\.weight is int32"):
        read_selector(path)
    save_file({name: torch.full(shape, float("nan")) for name, shape in shapes.items()}, path)
    with pytest.raises(BiaskitError, match=r"q_proj\.weight has values that are not finite"):
        read_selector(path)
    with pytest.raises(BiaskitError, match="cannot read selector weights"):
        read_selector(tmp_path / ("a" * 300))
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(BiaskitError, match="not a regular file"):
        read_selector(tmp_path / "pipe.safetensors")


def test_visionselector_keeps_the_highest_scores(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "selector.safetensors")
    s, weights = signals(), read_selector(tmp_path / "selector.safetensors")
    pruner = get_pruner("visionselector", budget=9, weights=tmp_path / "selector.safetensors")
    assert pruner.select(s, 9).indices.tolist() == top_k(selector_score(s[EMBEDS], weights.query, weights.key), 9).tolist()
    with pytest.raises(BiaskitError, match="has no weights"):
        get_pruner("visionselector", budget=9)
