"""Prune a stock model for the time of a `with` block: one decision per prefill, any batch, stock `generate()`.

with biaskit.prune(model, pruner, prior=prior) as pruning:
    model.generate(**inputs)
pruning.samples[0].indices
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from transformers import PreTrainedModel

from biaskit.engine.arguments import method, stock_model
from biaskit.engine.decisions import Decisions, Observe, Pruning
from biaskit.engine.dropper import TokenDropper
from biaskit.engine.limits import multi_axis
from biaskit.errors import BiaskitError
from biaskit.families.checkpoints.decoder import decoder
from biaskit.families.checkpoints.load import Loaded
from biaskit.prior.store import load_prior
from biaskit.prior.value import Prior
from biaskit.pruners.readings import check_readings
from biaskit.registry import named_arguments

if TYPE_CHECKING:
    from biaskit.pruners.base import Pruner

_busy: WeakSet[PreTrainedModel] = WeakSet()
_lock = threading.Lock()


@named_arguments
@contextmanager
def prune(
    model: PreTrainedModel | Loaded | tuple[PreTrainedModel, Any],
    pruner: Pruner | str,
    *,
    prior: Prior | str | os.PathLike[str] | None = None,
    seed: int | Sequence[int] = 0,
    say: Callable[[str], None] | None = None,
    observe: Observe | None = None,
) -> Iterator[Pruning]:
    """Prune the visual tokens of every prompt that the model prefills inside the block.

    Kept tokens remain in order with their position ids, unless the pruner says `positions = "compact"`; multi-axis ids (Qwen-VL) remain
    even then, as in the published ports. Text is never dropped. A pruner that keeps all N tokens changes no bit. Prompts must be padded on
    the left; those without images run unpruned. `generate()` may be called as usual, with dynamic or static caches, sampling or beams
    (InternVL with beams needs a transformers release that expands its tiles rightly: 5.17 does not). With `use_cache=False` every step is
    a prefill with a decision of its own.

    A key-value cache, or a copy of it made by `copy.deepcopy`, may be continued inside the block with later turns of text, for pruners that
    act at layer 1 or later; after pruning at layer 0 `generate()` cannot tell how much of the text is cached, and the engine refuses. After
    the block the model is as before, and a pruned cache refuses further tokens.

    Several threads may call the model inside the block: each prompt is pruned as it would be alone, and the end of the block waits for
    threads that still generate. Random numbers are drawn in the order of the prefills. Refused are `generate(prefill_chunk_size=…)` that
    splits a prompt with images, gradient checkpointing, and compiled models.

    Args:
        model: a stock model, or a checkpoint from `load_model`.
        pruner: the method and its settings, as `get_pruner` makes it; a name means the method with its defaults at a retention of 0.1.
        prior: A_bias of this model, for pruners that read attention: a Prior, or a name or path for `load_prior`.
        seed: for pruners that draw random numbers; samples are numbered through the block. A list has one seed per sample instead.
        say: called with each warning; by default they go to `warnings`.
        observe: called with every decision's signals and Keep; what it returns goes into the report.

    Yields:
        The report, updated by each prefill.

    Raises:
        BiaskitError: settings, model, prior and pruner do not fit together.
        ModelError: while the model runs: a case that pruning cannot handle correctly.

    >>> from biaskit.families.checkpoints.tiny import tiny_inputs, tiny_model
    >>> model, processor, family = tiny_model("llava-1.5")
    >>> with prune(model, "fastv") as pruning:
    ...     _ = model.generate(**tiny_inputs(family, processor, model.config), max_new_tokens=1, do_sample=False)
    >>> len(pruning.samples[0]), pruning.samples[0].n_visual
    (58, 576)
    """
    stock, dropper, decisions, tell = _made(model, pruner, prior, seed, say, observe)
    with _lock:
        if stock in _busy:
            raise BiaskitError("this model is being pruned already", "leave the inner `with prune(...)` block first; one pruner at a time")
        _busy.add(stock)
    try:
        with dropper.attached(tell):
            yield decisions.report
    finally:
        with _lock:
            _busy.discard(stock)
    if not dropper.called:
        tell("nothing was pruned: the model saw no prompt inside the block (a compiled copy of it, or another model, was called?)")


def check_prune(model: Any, pruner: Pruner, prior: Prior | None, say: Callable[[str], None]) -> None:
    """Give the warnings and errors of `prune` without a block.

    Raises:
        BiaskitError: settings, model, prior and pruner do not fit together.
    """
    _made(model, pruner, prior, 0, say, None)


def _made(
    model: Any, pruner: Pruner | str, prior: Any, seed: int | Sequence[int], say: Callable[[str], None] | None, observe: Observe | None
) -> tuple[PreTrainedModel, TokenDropper, Decisions, Callable[[str], None]]:
    """Return the stock model, its hooks, the decider, and the function for warnings."""
    stock = stock_model(model)
    pruner = method(pruner, stock.config.model_type)
    prior = None if prior is None else load_prior(prior)
    tell = say or (lambda line: warnings.warn(line, stacklevel=3))
    stages = pruner.stages()
    decisions = Decisions(stock, pruner, prior, seed, tell, observe)
    compact = pruner.positions == "compact"
    if compact and multi_axis(stock):
        compact = False
        tell(f"{type(pruner).__name__} renumbers positions, which is not defined for multi-axis rotary embeddings: they are unchanged")
    _check_needs(pruner, stages[0].layer)
    _check_model(pruner, model)
    layers, merges = [stage.layer for stage in stages], getattr(pruner, "merges", None)
    dropper = TokenDropper(stock, layers, decisions, readings=decisions.needs, compact=compact, merges=merges)
    if prior is not None:
        _check_prior(prior, model, pruner, tell)
    return stock, dropper, decisions, tell


def _check_model(pruner: Pruner, model: object) -> None:
    """Call the pruner's `check_model`, if it has one: a method with trained weights refuses models they were not trained for."""
    check = getattr(pruner, "check_model", None)
    if check is None:
        return
    stock = stock_model(model)
    known = (model.revision, model.name, model.processor_settings) if isinstance(model, Loaded) else ()
    check(stock.config.model_type, len(decoder(stock).layers), *known)


def _check_needs(pruner: Pruner, first: int) -> None:
    """Refuse a pruner that acts before the layer whose signals it reads."""
    name = type(pruner).__name__
    inner = sorted(str(reading) for reading in check_readings(pruner.needs, name) if not reading.exists(first))
    if inner:
        raise BiaskitError(f"{name} reads {', '.join(inner)}, which does not exist before layer {first}", f"use {name} at a later layer")


def _check_prior(prior: Prior, model: object, pruner: Pruner, say: Callable[[str], None]) -> None:
    """Refuse a prior of another model or without the layers that are read; warn if nothing reads it."""
    if isinstance(model, Loaded):
        prior.check_model(model.model.config.model_type, model.revision, model.name, model.processor_settings)
    else:
        prior.check_model(stock_model(model).config.model_type)
    if not pruner.debiases:
        say(f"the prior is not used: {type(pruner).__name__} with these parameters does not debias attention")
    pruner.check_prior(prior)
    for line in pruner.remarks(prior):
        say(line)
