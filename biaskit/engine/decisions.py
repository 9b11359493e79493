"""Decide for a batch: turn what the hooks show of it into `Signals` of one sample, ask the pruner, and report what it did."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from biaskit.device import Fetch, settle, upload
from biaskit.engine.memory import View
from biaskit.engine.repeats import alike, repeated
from biaskit.errors import BiaskitError, ModelError
from biaskit.families import families
from biaskit.families.checkpoints.decoder import decoder
from biaskit.grid import Layout
from biaskit.prior.value import Prior
from biaskit.pruners.signals import Signals
from biaskit.select.keep import Keep

if TYPE_CHECKING:
    from biaskit.pruners.base import Pruner

Indices = NDArray[np.int64]
Bools = NDArray[np.bool_]

Observe = Callable[[Signals, Keep], Mapping[str, float]]
"""Looks at a decision: what the pruner saw and what it keeps → what is to be reported. What it reads beyond the pruner's own needs it names
in an attribute `needs`, a set of names as in `Pruner.needs`; before layer 0 only `embeds` exists."""

_STATIC = (
    "static key-value cache on a GPU: pass disable_compile=True to generate(), which otherwise compiles decode steps; "
    "pruning is not tested under torch.compile"
)


@dataclass(frozen=True, eq=False)
class SampleReport:
    """What happened to one sample of the last prefill.

    Attributes:
        n_visual: N, visual tokens of the prompt.
        indices: [n] int64 ascending, which of them are left after the last stage.
        stages: for each stage (layer K, tokens left from it on, what the method reports about its decision).
        mean_tokens: visual tokens per decoder layer, averaged over all layers.
        cache_lengths: rows held by each decoder layer's cache, text and fillers of the batch included; None without a cache.
        cache_bytes: this sample's share of the cache's real memory.
        observed: what `prune`'s `observe` said about the decisions.
    """

    n_visual: int
    indices: Tensor
    stages: tuple[tuple[int, int, Mapping[str, float]], ...]
    mean_tokens: float
    cache_lengths: tuple[int, ...] | None = None
    cache_bytes: int | None = None
    observed: Mapping[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        """One line: how many tokens are left of how many."""
        layers = ", ".join(f"{left} from layer {layer} on" for layer, left, _ in self.stages)
        return f"SampleReport({len(self)} of {self.n_visual} visual tokens{': ' + layers if layers else ''})"

    @property
    def info(self) -> Mapping[str, float]:
        """What the method reports about its last decision."""
        return self.stages[-1][2] if self.stages else {}

    def __len__(self) -> int:
        """Return n, the number of visual tokens left after the last stage."""
        return len(self.indices)


@dataclass(eq=False)
class Pruning:
    """What a `prune` block did so far.

    Attributes:
        samples: the samples of the last prefill, in batch order; empty after prompts without images.
        prefills: prefills so far, those without images included.
    """

    samples: tuple[SampleReport, ...] = ()
    prefills: int = 0


@dataclass(eq=False)
class _Sample:
    """A sample while it is decided."""

    layout: Layout
    generator: torch.Generator
    left: Indices  # indices into the N visual tokens
    stages: list[tuple[int, int, Mapping[str, float]]] = field(default_factory=list)
    observed: dict[str, float] = field(default_factory=dict)


class Decisions:
    """Implements `prompt.Decider` with a pruner."""

    def __init__(
        self,
        model: PreTrainedModel,
        pruner: Pruner,
        prior: Prior | None,
        seed: int | Sequence[int],
        say: Callable[[str], None],
        observe: Observe | None = None,
    ) -> None:
        self.model, self.pruner, self.prior, self.say, self.observe = model, pruner, prior, say, observe
        self.seed = list(seed) if isinstance(seed, Sequence) else int(seed)  # NumPy has whole numbers of its own
        self.needs: frozenset[str] = pruner.needs | getattr(observe, "needs", frozenset())
        self.family = families.get(model.config.model_type)
        self.stack = decoder(model)
        self.stages = pruner.stages()
        self.report = Pruning()
        self.batch: list[_Sample] = []
        self.pending: tuple[Mapping[str, Any], int, Tensor, Fetch] | None = None
        self.decided = self.shown = 0
        self.warned = False

    def idle(self) -> None:
        """Report a prefill without images."""
        self.report.prefills += 1
        self.report.samples = ()

    def begin(self, inputs: Mapping[str, Any], copies: int, ids: Tensor, embeds: Tensor) -> None:
        """Remember the batch. Its layouts are worked out when they are needed, while a GPU is busy with the layers before."""
        self.idle()
        self.batch = []
        self.pending = (inputs, copies, ids, Fetch(*([alike(embeds, whole=copies > 1)] if len(ids) > 1 else [])))

    def _open(self, embeds: Tensor) -> None:
        """Work out the layouts. Equal rows next to each other (beams, several returned sequences) are one sample."""
        if self.pending is None:
            return
        (inputs, copies, ids, look), self.pending = self.pending, None
        layouts = self.family.layout(self.model.config, inputs)
        mixed = [self._mixed(row // copies) for row in range(len(ids))]
        repeats = repeated(ids, embeds, look.read(), whole=copies > 1)
        for row in range(len(ids)):
            if repeats[row] and mixed[row] == mixed[row - 1]:
                self.batch.append(self.batch[-1])
                continue
            state = np.random.SeedSequence(mixed[row] or [self.seed, self.decided]).generate_state(1, np.uint64)
            self.decided += 1
            generator = torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))
            layout = layouts[row // copies]
            self.batch.append(_Sample(layout, generator, np.arange(len(layout))))
        self.shown += len(layouts)

    def _mixed(self, number: int) -> list[int]:
        """The seed of a sample of this prefill, if every sample has its own; else nothing, and its place in the block counts."""
        if isinstance(self.seed, int):
            return []
        if self.shown + number >= len(self.seed):
            raise BiaskitError(f"{len(self.seed)} seeds, but sample {self.shown + number} of the block has none", "give one seed a sample")
        return [self.seed[self.shown + number]]

    def decide(self, view: View) -> Bools | None:
        """Ask the pruner about the samples, together where it can answer so, and wait for a GPU once, for the answers."""
        self._open(view.embeds)
        rows = [row for row, sample in enumerate(self.batch) if row == 0 or sample is not self.batch[row - 1]]
        wanted = {row: self.stages[view.stage].tokens(len(self.batch[row].layout)) for row in rows}
        asked = [row for row in rows if wanted[row] < len(self.batch[row].left)]
        signals = [self._signals(view, row, self.batch[row]) for row in asked]
        kept = dict(zip(asked, self._ask(signals, [wanted[row] for row in asked]), strict=True))
        for row, seen in zip(asked, signals, strict=True):
            sample = self.batch[row]
            sample.left = sample.left[check_keep(kept[row], len(sample.left), type(self.pruner).__name__)]
            if self.observe is not None:
                sample.observed.update(self.observe(seen, kept[row]))
        for row in rows:
            info: Mapping[str, float] = kept[row].info if row in kept else {}
            self.batch[row].stages.append((view.layer, len(self.batch[row].left), info))
        return self._gone(view.embeds.shape[:2])

    def _ask(self, signals: Sequence[Signals], budgets: Sequence[int]) -> list[Keep]:
        """Return the pruner's answers, on the CPU."""
        many = getattr(self.pruner, "select_many", None)
        kept = many(signals, budgets) if many is not None else list(map(self.pruner.select, signals, budgets))
        indices = settle([keep.indices for keep in kept])
        return [Keep(torch.from_numpy(found), keep.info) for found, keep in zip(indices, kept, strict=True)]

    def _gone(self, shape: Sequence[int]) -> Bools | None:
        """The positions of the batch that are dropped, [B, S], by this stage or an earlier one; None if there are none."""
        drop = np.zeros(shape, dtype=bool)
        for row, sample in enumerate(self.batch):
            drop[row, _span(sample.layout.positions)] = True
            drop[row, sample.layout.positions[sample.left]] = False
        return drop if drop.any() else None

    def _signals(self, view: View, row: int, sample: _Sample) -> Signals:
        """Gather what the pruner needs of one sample, without waiting for a GPU: views where tokens lie side by side."""
        needs, layout = self.needs, sample.layout if len(sample.left) == len(sample.layout) else sample.layout.part(sample.left)
        index, alive = view.narrowing.held[row], view.narrowing.living[row]
        device, inside = view.hidden.device, view.layer > 0
        here = np.zeros(view.embeds.shape[1], bool)
        here[layout.positions] = True
        visual = alive & here[index]
        rows, others = _places(visual, device), alive & ~visual
        found: dict[str, Any] = {"a_bias": self._a_bias(layout, view.layer, device), "generator": sample.generator}
        if "embeds" in needs:
            found["embeds"] = view.embeds[row, _run(layout.positions, view.embeds.device)]
        if "final_norm" in needs:
            found["final_norm"] = lambda x: self.stack.norm(x.float()).float()
        if inside and needs & {"text_hidden", "keys"}:
            found["text_positions"] = upload(index[others], device)
        if inside and "hidden" in needs:
            found["hidden"] = view.hidden[row, rows]
        if inside and "text_hidden" in needs:
            found["text_hidden"] = view.hidden[row, _places(others, device)]
        if inside and "attention" in needs:
            found["attention"] = _recorded(view.attention)[row].to(device)[rows].float()
        if inside and "keys" in needs:
            keys = _recorded(view.keys)[row].to(device).float()
            found["keys"], found["text_keys"] = keys[:, rows], keys[:, _places(others, device)]
        return Signals(layout, view.layer, **found)

    def _a_bias(self, layout: Layout, layer: int, device: torch.device) -> Tensor | None:
        if self.prior is None or layer == 0 or not self.pruner.debiases:
            return None
        return upload(self.pruner.fit_prior(self.prior, layout, layer - 1).astype(np.float32), device)

    def finish(self, cache: Any) -> None:
        """Write the report of the prefill."""
        depth, rows = len(self.stack.layers), len(self.batch)
        lengths = size = None
        if cache is not None:
            lengths = tuple(int(cache.get_seq_length(layer)) for layer in range(depth))
            held = [part for layer in cache.layers for part in (layer.keys, layer.values) if isinstance(part, Tensor)]
            size = sum(part.nbytes for part in held) // rows
            if getattr(cache, "is_compileable", False) and held[0].device.type != "cpu" and not self.warned:
                self.warned = True
                self.say(_STATIC)
        self.report.samples = tuple(_reported(sample, depth, lengths, size) for sample in self.batch)
        self.batch = []


def _places(chosen: Bools, device: torch.device) -> slice | Tensor:
    """Where a mask [M] is True, as what indexes a tensor on a device."""
    return _run(np.flatnonzero(chosen), device)


def _run(places: Indices, device: torch.device) -> slice | Tensor:
    """Ascending places as what indexes a tensor on a device: a slice, which copies nothing, if they have no gaps."""
    span = _span(places)
    return span if isinstance(span, slice) else upload(span, device)


def _span(places: Indices) -> slice | Indices:
    """Ascending places as a slice, if they have no gaps."""
    if len(places) and places[-1] - places[0] + 1 == len(places):
        return slice(int(places[0]), int(places[-1]) + 1)
    return places


def _recorded(signal: Tensor | None) -> Tensor:
    if signal is None:
        raise ModelError(
            "the keys of this pass were not recorded", "under eager attention they are read from the cache: use sdpa, or use_cache=True"
        )
    return signal


def _reported(sample: _Sample, depth: int, lengths: tuple[int, ...] | None, size: int | None) -> SampleReport:
    left, stages = torch.from_numpy(sample.left), tuple(sample.stages)
    return SampleReport(len(sample.layout), left, stages, _layer_mean(sample, depth), lengths, size, sample.observed)


def _layer_mean(sample: _Sample, depth: int) -> float:
    """Visual tokens per layer (T̄): every stage holds from its layer to the next one's."""
    counts = np.full(depth, len(sample.layout))
    for layer, left, _ in sample.stages:
        counts[layer:] = left
    return float(counts.mean())


def check_keep(kept: Keep, n_tokens: int, name: str) -> Indices:
    """Return the indices that a pruner answered with.

    Raises:
        BiaskitError: they are not 1 to N ascending whole numbers below N.
    """
    indices: Indices = kept.indices.cpu().numpy()
    if kept.indices.dtype != torch.int64 or indices.ndim != 1 or not 1 <= len(indices) <= n_tokens:
        raise BiaskitError(
            f"{name} answered with {tuple(indices.shape)} indices of {kept.indices.dtype}", "select must return [n] int64, n ≥ 1"
        )
    if (indices[1:] <= indices[:-1]).any() or indices[0] < 0 or indices[-1] >= n_tokens:
        raise BiaskitError(
            f"{name} answered with indices {indices[:8]} … of {n_tokens} tokens", "select must return ascending indices below N"
        )
    return indices
