"""The visual tokens that methods keep of one prompt at many settings: the model runs once per K, methods decide on the recorded signals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biaskit.device import cast_inputs, upload
from biaskit.engine.prune import prune
from biaskit.families.checkpoints.device import input_device
from biaskit.pruners import get_pruner
from biaskit.pruners.readings import ATTENTION, Reading
from biaskit.pruners.signals import Signals
from biaskit.select.keep import Keep

if TYPE_CHECKING:
    from biaskit.families.checkpoints.load import Loaded
    from biaskit.prior.value import Prior
    from biaskit.pruners.base import Pruner

Indices = NDArray[np.int64]
Setting = tuple[float, float | None]
"""(retention, strength τ); τ is None for a method without a prior."""


@dataclass(frozen=True, eq=False)
class Contender:
    """A method to be run.

    Attributes:
        label: its name in results. pruner: with its K; its retention is ignored. prior: for debiasing, or None.
    """

    label: str
    pruner: Pruner
    prior: Prior | None = None


@dataclass(eq=False)
class _SignalStore:
    """Stores a pruner's signals of one sample. `needs`: further readings to record."""

    needs: frozenset[Reading]
    signals: list[Signals] = field(default_factory=list)

    def __call__(self, signals: Signals, keep: Keep) -> Mapping[str, float]:
        self.signals.append(signals)
        return {}


def survivors(
    loaded: Loaded,
    inputs: Mapping[str, Tensor],
    contenders: Sequence[Contender],
    retentions: Sequence[float],
    strengths: Sequence[float],
    *,
    seed: int = 0,
    report: Callable[[int, int], None] | None = None,
) -> tuple[list[dict[Setting, Indices]], dict[int, NDArray[np.float32]]]:
    """Return what each method keeps of one prompt, at every retention and strength of debiasing.

    The kept tokens are those that `prune` keeps with these settings; only methods with several stages, or that merge tokens in the vision
    tower, need a run of the model per setting.

    Args:
        loaded: the checkpoint. inputs: of `family.prepare`, one sample. contenders: the methods.
        retentions: shares of the visual tokens, each above 0 and at most 1. strengths: τ, each in 0 … 1.
        seed: as of `prune`. report: called with (methods done, methods in all).

    Returns:
        For each contender setting → [n] ascending indices into the N visual tokens; and K → [N], the attention of the last prompt token at
        layer K − 1, for every K ≥ 1 at which a contender acts.

    Raises:
        BiaskitError: as `prune`.
    """
    cast = cast_inputs(inputs, loaded.model.dtype, input_device(loaded.model))
    depths = sorted({one.pruner.stages()[0].layer for one in contenders})
    needs = {k: frozenset().union(*(one.pruner.needs for one in contenders if one.pruner.stages()[0].layer == k)) for k in depths}
    signals_at = {k: _signals_at(loaded, cast, k, needs[k], seed) for k in depths}
    found = []
    for number, one in enumerate(contenders):
        settings = [(share, tau) for share in retentions for tau in (strengths if _has_strength(one) else (None,))]
        found.append({setting: _kept(loaded, cast, one, setting, signals_at[one.pruner.stages()[0].layer], seed) for setting in settings})
        if report is not None:
            report(number + 1, len(contenders))
    attention = {k: signals[ATTENTION].float().cpu().numpy() for k, signals in signals_at.items() if ATTENTION in signals}
    return found, attention


def _has_strength(one: Contender) -> bool:
    return one.prior is not None and one.pruner.debiases and hasattr(one.pruner, "strength")


def _signals_at(loaded: Loaded, inputs: Mapping[str, Tensor], k: int, needs: frozenset[Reading], seed: int) -> Signals:
    """Run the prefill once, and return the signals before decoder layer k."""
    store = _SignalStore(needs | ({ATTENTION} if k else set()))
    _run(loaded, inputs, get_pruner("uniform", budget=1, layer=k), None, seed, store)
    return store.signals[0]


def _run(loaded: Loaded, inputs: Mapping[str, Tensor], pruner: Pruner, prior: Prior | None, seed: int, observe: Any = None) -> Indices:
    with torch.inference_mode(), prune(loaded, pruner, prior=prior, seed=seed, observe=observe) as pruning:
        loaded.model.generate(**inputs, max_new_tokens=1, do_sample=False)
    kept: Indices = pruning.samples[0].indices.cpu().numpy()
    return kept


def _kept(loaded: Loaded, inputs: Mapping[str, Tensor], one: Contender, setting: Setting, signals: Signals, seed: int) -> Indices:
    share, strength = setting
    settings: dict[str, Any] = {} if strength is None else {"strength": strength}
    pruner = replace(one.pruner, retention=share, budget=None, **settings)
    prior = one.prior if pruner.debiases else None
    stages = pruner.stages()
    if len(stages) > 1 or getattr(pruner, "merges", None) is not None:
        return _run(loaded, inputs, pruner, prior, seed)
    read = stages[0].layer + getattr(pruner, "attention_layer", -1)
    bias = None
    if prior is not None and read >= 0:
        bias = upload(
            pruner.fit_prior(prior, signals.layout, read).astype(np.float32), signals.readings[next(iter(signals.readings))].device
        )
    drawn = None if signals.generator is None else torch.Generator().manual_seed(signals.generator.initial_seed())
    keep = pruner.select(replace(signals, a_bias=bias, generator=drawn), stages[0].tokens(len(signals)))
    kept: Indices = keep.indices.cpu().numpy()
    return kept
