"""The arguments of `prune` in their several forms: a checkpoint or a stock model, a pruner or the name of one."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from biaskit.errors import BiaskitError
from biaskit.families.checkpoints.load import Loaded
from biaskit.families.checkpoints.part import check_whole
from biaskit.pruners import Pruner, get_pruner

RETENTION = 0.1
"""Share of the visual tokens that a method given by name alone keeps, as in `biaskit prune`."""


def stock_model(model: object) -> PreTrainedModel:
    """Return the stock model of a checkpoint, of (model, processor), the one that a wrapper (an adapter) calls, or the model itself.

    Raises:
        BiaskitError: it is not a model in memory, it is compiled, or a part of it is what can be pruned.
    """
    stock = model.model if isinstance(model, Loaded) else model[0] if isinstance(model, tuple) and len(model) == 2 else model
    if isinstance(stock, torch.nn.Module):
        _check_compiled(stock)
        if not isinstance(stock, PreTrainedModel):  # adapters (PEFT) and other wrappers: hooks belong to the model that they call
            stock = next((part for part in stock.modules() if isinstance(part, PreTrainedModel)), stock)
    if not hasattr(stock, "get_decoder"):
        raise BiaskitError(f"{stock!r} is not a model in memory", "load it first: model = biaskit.load_model(…)")
    check_whole(stock)
    return stock


def _check_compiled(model: torch.nn.Module) -> None:
    """Refuse a compiled model: its traced code does not call hooks."""
    for part in model.modules():
        own = vars(part).get("forward")
        if hasattr(part, "_orig_mod") or getattr(part, "_compiled_call_impl", None) or hasattr(own, "_torchdynamo_orig_callable"):
            raise BiaskitError(
                f"{type(part).__name__} is compiled (torch.compile)", "prune the stock model: load it again, and do not compile"
            )


def method(pruner: Pruner | str, model_type: str) -> Pruner:
    """Return a pruner, given one or its name; a name alone is the method with its defaults at a retention of 0.1.

    Raises:
        BiaskitError: it is not a pruner, or no pruner has that name.

    >>> method("fastv", "llava").retention
    0.1
    """
    if isinstance(pruner, str):
        return get_pruner(pruner, model_type=model_type, retention=RETENTION)
    if not hasattr(pruner, "stages") or isinstance(pruner, type):
        raise BiaskitError(f"{pruner!r} is not a pruner", 'give biaskit.get_pruner("fastv", retention=0.25), or a name')
    return pruner
