"""The contract of pruners. Our tests run these checks on every registered pruner; plug-in authors run them on theirs.

A failed check raises AssertionError with a message that says what is wrong.
"""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from biaskit.engine.answers import check_keep
from biaskit.engine.made_up import WIDTH, sample_layouts, sample_signals
from biaskit.engine.prune import prune
from biaskit.errors import BiaskitError
from biaskit.grid import Layout
from biaskit.prior.value import flat_prior
from biaskit.pruners.readings import MERGED, check_readings
from biaskit.pruners.signals import Signals

if TYPE_CHECKING:
    from biaskit.pruners.base import Pruner


def check_pruner(pruner: Pruner, model: str | None = "llava-onevision") -> None:
    """Check a pruner, with any settings, against the contract of `Pruner`.

    On made-up samples it keeps as many tokens as its budget, in ascending order, the same ones when called again; it reads only its
    `needs`, changes no input, and keeps all tokens if the budget is N. On a tiny model the engine can apply it.

    A method that is not `exact` chooses the number of tokens itself. One whose tokens the vision tower merges keeps each merged token once,
    for every budget, and refuses a `budget` parameter.

    Args:
        pruner: the method and its settings. model: one of `biaskit.testing.TINY`, or None for the made-up samples alone.

    Raises:
        AssertionError: the contract is broken; the message says how.
        BiaskitError: `needs` has something other than Readings, or the pruner reads what is not in `needs`.

    Example:
        >>> from biaskit.pruners import get_pruner
        >>> check_pruner(get_pruner("uniform", retention=0.25), model=None)
    """
    name = type(pruner).__name__
    assert dataclasses.is_dataclass(type(pruner)), f"{name} is not a dataclass"
    check_readings(pruner.needs, name)
    if not getattr(pruner, "takes_budget", True):
        assert pruner.budget is None and _refuses_budget(pruner), f"{name} says that it takes no budget, and takes one"
    layers = [stage.layer for stage in pruner.stages()]
    assert layers and all(a < b for a, b in pairwise(layers)), f"the stages of {name} do not ascend: {layers}"
    for place, layout in sample_layouts().items():
        for budget in (1, 7, len(layout) - 1):
            for dtype in (torch.float32, torch.bfloat16):
                _check_select(
                    pruner, layout, budget, layers[0], dtype, f"{name} on {place} of a model in {str(dtype).removeprefix('torch.')}"
                )
        everything = pruner.select(Signals(layout, layers[0]), len(layout))
        assert everything.indices.tolist() == list(range(len(layout))), f"{name} does not keep all of {len(layout)} tokens"
    if model is not None:
        _check_applied(pruner, model, name)


def _check_select(pruner: Pruner, layout: Layout, budget: int, layer: int, dtype: torch.dtype, where: str) -> None:
    def signals() -> Signals:
        return sample_signals(layout, frozenset(pruner.needs), layer=layer, a_bias=pruner.prior != "unused", dtype=dtype)

    seen, fresh = signals(), signals()
    kept = pruner.select(seen, budget)
    check_keep(kept, len(layout), where, width=WIDTH)
    wanted = _merged_tokens(seen) if getattr(pruner, "merges", None) is not None else budget
    assert len(kept) == wanted or not (_exact(pruner) or MERGED in pruner.needs), f"{where} keeps {len(kept)} tokens instead of {wanted}"
    again = pruner.select(fresh, budget)
    same = torch.equal(kept.indices, again.indices) and (kept.values is None) == (again.values is None)
    if kept.values is not None and again.values is not None:
        same = same and torch.equal(kept.values, again.values)
        assert bool(kept.values.isfinite().all()), f"{where} puts numbers into the sequence that are not finite"
    assert same, f"{where} answers differently the second time"
    assert all(isinstance(value, int | float) for value in kept.info.values()), f"{where} reports something that is not a number"
    untouched = signals()
    for reading, before in untouched.readings.items():
        assert torch.equal(before, seen.readings[reading]), f"{where} changes {reading}"
    for item in dataclasses.fields(Signals):
        before, after = getattr(untouched, item.name), getattr(seen, item.name)
        assert not isinstance(before, Tensor) or torch.equal(before, after), f"{where} changes {item.name}"


def _merged_tokens(signals: Signals) -> int:
    """How many tokens remain after the tower merged patches, one patch per token."""
    return sum(len(part.unique()) for part in signals.patches(MERGED))


def _refuses_budget(pruner: Pruner) -> bool:
    try:
        dataclasses.replace(pruner, budget=4)
    except BiaskitError:
        return True
    return False


def _exact(pruner: Pruner) -> bool:
    found: bool = getattr(pruner, "exact", True)
    return found


def _check_applied(pruner: Pruner, model_name: str, name: str) -> None:
    from biaskit.families.checkpoints.tiny import tiny_inputs, tiny_model

    model, processor, family = tiny_model(model_name, layers=max(stage.layer for stage in pruner.stages()) + 2)
    inputs = tiny_inputs(family, processor, model.config)
    prior = None
    layers = [stage.layer + getattr(pruner, "attention_layer", -1) for stage in pruner.stages()]
    if pruner.prior != "unused" and layers[0] >= 0:
        prior = flat_prior(family.canonical(model.config), layers, {"model_type": model.config.model_type})
    with prune(model, pruner, prior=prior, say=lambda _line: None) as pruning:
        model.generate(**inputs, max_new_tokens=2, do_sample=False)
    for sample in pruning.samples:
        wanted = pruner.stages()[-1].tokens(sample.n_visual)
        assert len(sample) == wanted or not _exact(pruner), (
            f"{name} keeps {len(sample)} of {sample.n_visual} visual tokens instead of {wanted}"
        )
