"""Decide for a batch: make each sample's `Signals` from what the hooks recorded, ask the pruner, and report what it did."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from biaskit.device import Fetch, settle, upload
from biaskit.engine.answers import check_keep, check_observed
from biaskit.engine.gather import first_kept, patches_of, readings_of, span
from biaskit.engine.memory import Cut, View
from biaskit.engine.per_thread import PerThread
from biaskit.engine.repeats import alike, repeated
from biaskit.errors import BiaskitError
from biaskit.families import families
from biaskit.families.checkpoints.decoder import decoder
from biaskit.grid import Layout, PatchIndex
from biaskit.prior.value import Prior
from biaskit.pruners.readings import Reading, check_readings
from biaskit.pruners.signals import Signals
from biaskit.select.keep import Keep, check_answers

if TYPE_CHECKING:
    from biaskit.pruners.base import Pruner

Indices = NDArray[np.int64]
Bools = NDArray[np.bool_]

Observe = Callable[[Signals, Keep], Mapping[str, float]]
"""Called with a decision's signals and the pruner's Keep; returns name → number for the report. Readings beyond the pruner's own are listed
in an attribute `needs`, a set as `Pruner.needs`; readings that do not exist at a stage are missing from the signals."""

_pruner_lock = threading.RLock()  # pruners keep workspaces, and third-party ones may not be thread-safe
_STATIC = (
    "static key-value cache on a GPU: pass disable_compile=True to generate(), which otherwise compiles decode steps; "
    "pruning is not tested under torch.compile"
)


@dataclass(frozen=True, eq=False)
class SampleReport:
    """The pruning of one sample in the last prefill.

    Attributes:
        n_visual: N, visual tokens of the prompt.
        indices: [n] int64 ascending, which of them are kept after the last stage.
        stages: for each stage (layer K, tokens kept from layer K on, `Keep.info` of the decision).
        mean_tokens: visual tokens per decoder layer, averaged over all layers.
        cache_lengths: rows in each decoder layer's cache, text and padding rows of the batch included; None without a cache.
        cache_bytes: this sample's share of the cache's memory, in bytes.
        observed: what `prune`'s `observe` returned for the decisions.
    """

    n_visual: int
    indices: Tensor
    stages: tuple[tuple[int, int, Mapping[str, float]], ...]
    mean_tokens: float
    cache_lengths: tuple[int, ...] | None = None
    cache_bytes: int | None = None
    observed: Mapping[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        """One line: tokens kept of N, and per stage."""
        layers = ", ".join(f"{kept} from layer {layer} on" for layer, kept, _ in self.stages)
        return f"SampleReport({len(self)} of {self.n_visual} visual tokens{': ' + layers if layers else ''})"

    @property
    def info(self) -> Mapping[str, float]:
        """`Keep.info` of the last decision."""
        return self.stages[-1][2] if self.stages else {}

    def __len__(self) -> int:
        """Return n, the number of visual tokens kept after the last stage."""
        return len(self.indices)


@dataclass(eq=False)
class Pruning:
    """The results of a `prune` block so far.

    Attributes:
        samples: the samples of the last finished prefill of any thread, in batch order; empty after prompts without images.
        prefills: number of prefills so far, those without images included.
    """

    samples: tuple[SampleReport, ...] = ()
    prefills: int = 0


@dataclass(eq=False)
class _Sample:
    """A sample while it is decided."""

    layout: Layout
    generator: torch.Generator
    kept: Indices  # indices into the N visual tokens
    ids: Tensor  # [S] tokens of its row
    patches: PatchIndex | None = None
    first: int = 0  # of its patches among those of the batch
    stages: list[tuple[int, int, Mapping[str, float]]] = field(default_factory=list)
    observed: dict[str, float] = field(default_factory=dict)


class Decisions:
    """Implements `memory.Decider` with a pruner. Several threads may have batches pending; the pruner is called for one at a time."""

    batch: PerThread[list[_Sample]] = PerThread(list)
    pending: PerThread[tuple[Mapping[str, Any], int, Tensor, Fetch] | None] = PerThread(lambda: None)
    tower: PerThread[Mapping[Reading, Tensor]] = PerThread(dict)

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
        self.seed = list(seed) if isinstance(seed, Sequence) else int(seed)  # NumPy integers are not ints
        self.needs: frozenset[Reading] = check_readings(pruner.needs, type(pruner).__name__)
        self.needs |= check_readings(getattr(observe, "needs", ()), type(observe).__name__)
        self.family = families.get(model.config.model_type)
        self.stack = decoder(model)
        self.stages = pruner.stages()
        self.report = Pruning()
        self.lock, self.owner = threading.Lock(), threading.get_ident()
        self.decided = self.shown = 0
        self.warned = False

    def idle(self) -> None:
        """Report a prefill without images."""
        self._count()
        self.report.samples = ()

    def _count(self) -> None:
        with self.lock:
            self.report.prefills += 1

    def begin(
        self, inputs: Mapping[str, Any], copies: int, ids: Tensor, embeds: Tensor, tower: Mapping[Reading, Tensor] | None = None
    ) -> None:
        """Store the batch. Its layouts are computed when needed, while a GPU is busy with the layers before."""
        self._count()
        self.batch, self.tower = [], tower or {}
        self.pending = (inputs, copies, ids, Fetch(*([alike(embeds, whole=copies > 1)] if len(ids) > 1 else [])))

    def _open(self, embeds: Tensor) -> None:
        """Compute the layouts. Equal adjacent rows (beams, several returned sequences) are one sample."""
        if self.pending is None:
            return
        (inputs, copies, ids, equal), self.pending = self.pending, None
        layouts = self.family.layout(self.model.config, inputs)
        patches = self.family.patch_index(self.model.config, inputs, layouts) if self.tower else [None] * len(layouts)
        starts = np.cumsum([0, *(0 if part is None else len(part) for part in patches)])
        kept = first_kept(self.pruner, self.family, self.model.config, inputs, layouts)
        repeats = repeated(ids, embeds, equal.read(), whole=copies > 1)
        for row, generator in enumerate(self._generators(repeats, copies, len(layouts))):
            if generator is None:
                self.batch.append(self.batch[-1])
                continue
            number = row // copies
            layout = layouts[number]
            self.batch.append(_Sample(layout, generator, kept[number], ids[row], patches[number], int(starts[number])))

    def _generators(self, repeats: Sequence[bool], copies: int, samples: int) -> list[torch.Generator | None]:
        """Return each row's random generator, by its seed or its sample's number in the block; None for a row that repeats another."""
        found: list[torch.Generator | None] = []
        with self.lock:
            mixed = [self._mixed(row // copies) for row in range(len(repeats))]
            for row, repeat in enumerate(repeats):
                if repeat and mixed[row] == mixed[row - 1]:
                    found.append(None)
                    continue
                state = np.random.SeedSequence(mixed[row] or [self.seed, self.decided]).generate_state(1, np.uint64)
                self.decided += 1
                found.append(torch.Generator().manual_seed(int(state[0] >> np.uint64(1))))
            self.shown += samples
        return found

    def _mixed(self, number: int) -> list[int]:
        """The seed of a sample of this prefill, if every sample has its own; else [], and its number in the block is used."""
        if isinstance(self.seed, int):
            return []
        if self.owner != threading.get_ident():
            raise BiaskitError(
                "one seed a sample was given, but several threads prefill, in any order", "give one seed, or one block a thread"
            )
        if self.shown + number >= len(self.seed):
            raise BiaskitError(f"{len(self.seed)} seeds, but sample {self.shown + number} of the block has none", "give one seed a sample")
        return [self.seed[self.shown + number]]

    def decide(self, view: View) -> Cut | None:
        """Ask the pruner about the samples, all at once if it has `select_many`; one synchronisation with a GPU, for the answers."""
        self._open(view.embeds)
        rows = [row for row, sample in enumerate(self.batch) if row == 0 or sample is not self.batch[row - 1]]
        budgets = {row: self.stages[view.stage].tokens(len(self.batch[row].layout)) for row in rows}
        pruned_rows = [row for row in rows if budgets[row] < len(self.batch[row].kept)]
        signals = [self._signals(view, row, self.batch[row]) for row in pruned_rows]
        answers = dict(zip(pruned_rows, self._ask(signals, [budgets[row] for row in pruned_rows]), strict=True))
        values: dict[int, Tensor] = {}
        for row, own_signals in zip(pruned_rows, signals, strict=True):
            sample, answer = self.batch[row], answers[row]
            sample.kept = sample.kept[check_keep(answer, len(sample.kept), type(self.pruner).__name__, width=view.hidden.shape[-1])]
            if answer.values is not None:
                values[row] = answer.values
            if self.observe is not None:
                sample.observed.update(check_observed(self.observe(own_signals, answer), self.observe))
        for row in rows:
            info: Mapping[str, float] = answers[row].info if row in answers else {}
            self.batch[row].stages.append((view.layer, len(self.batch[row].kept), info))
        return self._cut(view, values)

    def _ask(self, signals: Sequence[Signals], budgets: Sequence[int]) -> list[Keep]:
        """Return the pruner's answers, indices on the CPU."""
        many, name = getattr(self.pruner, "select_many", None), type(self.pruner).__name__
        with _pruner_lock:
            kept = many(signals, budgets) if many is not None else list(map(self.pruner.select, signals, budgets))
            check_answers(kept, len(signals), name)
            indices = settle([keep.indices for keep in kept])
        return [replace(keep, indices=torch.from_numpy(found)) for found, keep in zip(indices, kept, strict=True)]

    def _cut(self, view: View, values: Mapping[int, Tensor]) -> Cut | None:
        """The tokens kept by this stage and the earlier ones; None if all are kept unchanged."""
        keep_mask = np.ones(view.embeds.shape[:2], dtype=bool)
        replaced = {}
        source = 0
        for row, sample in enumerate(self.batch):
            source = row if row == 0 or sample is not self.batch[row - 1] else source
            kept = sample.layout.positions[sample.kept]
            keep_mask[row, span(sample.layout.positions)] = False
            keep_mask[row, kept] = True
            if source in values:
                replaced[row] = (kept, values[source])
        return None if keep_mask.all() and not replaced else Cut(keep_mask, replaced)

    def _signals(self, view: View, row: int, sample: _Sample) -> Signals:
        """Make the pruner's signals of one sample."""
        complete = len(sample.kept) == len(sample.layout)
        layout = sample.layout if complete else sample.layout.part(sample.kept)
        device = view.hidden.device
        found, text = readings_of(view.recorded, row, layout, sample.layout, device)
        patches = sample.patches
        if patches is not None:
            found |= patches_of(self.tower, sample.first, patches, device)
            patches = patches if complete else patches.part(sample.kept)
        return Signals(
            layout,
            view.layer,
            found,
            patches,
            a_bias=self._a_bias(layout, view.layer, device),
            generator=sample.generator,
            prompt_ids=sample.ids,
            text_positions=text,
            final_norm=lambda x: self.stack.norm(x.float()).float(),
            project=lambda x: self.family.tower(self.model).project(x),
        )

    def _a_bias(self, layout: Layout, layer: int, device: torch.device) -> Tensor | None:
        read = layer + getattr(self.pruner, "attention_layer", -1)
        if self.prior is None or read < 0 or not self.pruner.debiases:
            return None
        return upload(self.pruner.fit_prior(self.prior, layout, read).astype(np.float32), device)

    def finish(self, cache: Any) -> None:
        """Make the report of the prefill."""
        depth, rows = len(self.stack.layers), len(self.batch)
        lengths = size = None
        if cache is not None:
            lengths = tuple(int(cache.get_seq_length(layer)) for layer in range(depth))
            cached = [part for layer in cache.layers for part in (layer.keys, layer.values) if isinstance(part, Tensor)]
            size = sum(part.nbytes for part in cached) // rows
            if getattr(cache, "is_compileable", False) and cached[0].device.type != "cpu" and not self.warned:
                self.warned = True
                self.say(_STATIC)
        self.report.samples = tuple(_reported(sample, depth, lengths, size) for sample in self.batch)
        self.batch, self.tower = [], {}


def _reported(sample: _Sample, depth: int, lengths: tuple[int, ...] | None, size: int | None) -> SampleReport:
    kept, stages = torch.from_numpy(sample.kept), tuple(sample.stages)
    return SampleReport(len(sample.layout), kept, stages, _layer_mean(sample, depth), lengths, size, sample.observed)


def _layer_mean(sample: _Sample, depth: int) -> float:
    """Mean visual tokens per layer (T̄): a stage's count is in force from its layer to the next stage's."""
    counts = np.full(depth, len(sample.layout))
    for layer, kept, _ in sample.stages:
        counts[layer:] = kept
    return float(counts.mean())
