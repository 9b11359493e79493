"""Answer a batch in one cell: greedy answers, with the visual tokens and cache bytes of each."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from biaskit.engine.decisions import Observe, SampleReport
from biaskit.engine.greedy import greedy_settings
from biaskit.engine.prune import prune
from biaskit.engine.tower import patches_of_tiles, tower_flops, tower_sizes
from biaskit.errors import BiaskitError
from biaskit.families import Prepared
from biaskit.families.checkpoints.device import input_device
from biaskit.families.checkpoints.flops import TowerDims
from biaskit.families.checkpoints.load import Loaded
from biaskit.grid import Layout
from biaskit.pruners.notation import DOWNSCALE, NONE
from biaskit.select.keep import budget
from biaskit.tasks.base import Task
from biaskit.validation.ask.methods import Configuration
from biaskit.validation.ask.observe import region_coverage
from biaskit.validation.ask.questions import QuestionBatch, Questions
from biaskit.validation.ask.shown import shown


@dataclass(frozen=True)
class RecordOptions:
    """Options for the records of answers.

    Attributes:
        seed: of the run. keep_indices: record the kept tokens. priors: name → sha256. observe: measures of selections.
        generation: settings that differ from plain greedy decoding.
    """

    seed: int = 0
    keep_indices: bool = False
    generation: Mapping[str, Any] = field(default_factory=dict)
    priors: Mapping[str, str] = field(default_factory=dict)
    observe: Observe | None = None


class BatchRunner:
    """Answers the questions of a batch in one cell after another, in chunks that fit into memory.

    Attributes:
        chunk: questions per forward pass; halved permanently when memory runs out.
    """

    def __init__(self, loaded: Loaded, options: RecordOptions, say: Callable[[str], None], chunk: int) -> None:
        self.loaded, self.options, self.say, self.chunk = loaded, options, say, chunk
        self.tower = tower_sizes(loaded)

    def take(self, task: Task, questions: Questions, batch: QuestionBatch) -> None:
        """Set the current batch, which is copied to the device once."""
        self.task, self.questions, self.items = task, questions, batch.items
        self.parts = [self._moved(batch)]
        if len(self.items) > self.chunk:
            self._cut()

    def _moved(self, batch: QuestionBatch) -> QuestionBatch:
        assert batch.prepared is not None
        device = input_device(self.loaded.model)
        moved = {name: value.to(device, non_blocking=True) for name, value in batch.prepared.inputs.items()}
        return replace(batch, prepared=Prepared(moved, batch.prepared.layouts), tiles=patches_of_tiles(self.loaded, batch.prepared))

    def _cut(self) -> None:
        self.parts = []  # free the old tensors first
        starts = range(0, len(self.items), self.chunk)
        self.parts = [self._moved(self.questions.prepare(self.items[start : start + self.chunk])) for start in starts]

    def ask(self, cell: Configuration) -> list[dict[str, Any]]:
        """Return the records of the batch in one cell.

        Raises:
            BiaskitError: one question alone needs more memory than is available.
        """
        while True:
            made = self._try(cell)
            if made is not None:
                return made
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if self.chunk == 1:
                raise BiaskitError(
                    f"one question of {self.task.name} in cell {cell.label} needs more memory than is available",
                    "answers so far are kept; continue with --dtype bfloat16, another --device, or more free memory",
                )
            self.chunk = max(1, min(self.chunk, len(self.items)) // 2)
            self.say(f"out of memory: continuing with {self.chunk} questions per forward pass")
            self._cut()

    def _scaled(self, cell: Configuration) -> Iterator[QuestionBatch]:
        """The batch with images scaled down to a share of the visual tokens that each would have unscaled."""
        for part in self.parts:
            assert part.prepared is not None
            most = [budget(len(layout), cell.retention) for layout in part.prepared.layouts]
            yield self._moved(self.questions.prepare(part.items, most))

    def _try(self, cell: Configuration) -> list[dict[str, Any]] | None:
        made = []
        try:
            for part in self._scaled(cell) if cell.name == DOWNSCALE else self.parts:
                answers, samples = answer(self.loaded, self.task, part, cell, self.options, self.say)
                made += records(self.tower, self.task, part, cell, answers, samples, self.options)
        except (RuntimeError, MemoryError) as error:
            if not isinstance(error, MemoryError) and not any(words in str(error) for words in ("out of memory", "can't allocate memory")):
                raise
            return None
        return made


def seed_of(seed: int, task: str, name: str) -> int:
    """Return the seed of one question's random numbers: the same in every cell, every batch, and after every restart."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{task}/{name}".encode()).digest()[:8], "little")


@torch.inference_mode()
def answer(
    loaded: Loaded, task: Task, batch: QuestionBatch, cell: Configuration, options: RecordOptions, say: Callable[[str], None]
) -> tuple[list[str], tuple[SampleReport, ...]]:
    """Return the answers without special tokens, and the pruning report of each question."""
    assert batch.prepared is not None
    model, inputs = loaded.model, batch.prepared.inputs
    seeds = [seed_of(options.seed, task.name, task.identify(i)) for i in batch.items]

    settings = {**greedy_settings(model, options.generation), "max_new_tokens": task.max_new_tokens, "disable_compile": True}
    if model.generation_config.pad_token_id is None:  # otherwise every call warns that it uses the end token
        settings["pad_token_id"] = loaded.processor.tokenizer.pad_token_id
    with prune(model, cell.pruner, prior=cell.prior, seed=seeds, say=say, observe=options.observe) as pruning:
        output = model.generate(**inputs, **settings)
    fresh = output[:, inputs["input_ids"].shape[1] :].cpu()
    texts: Sequence[str] = loaded.processor.tokenizer.batch_decode(fresh, skip_special_tokens=True)
    return [text.strip() for text in texts], pruning.samples[:: len(pruning.samples) // len(batch.items)]  # beams have one row each


def records(
    tower: TowerDims | None,
    task: Task,
    batch: QuestionBatch,
    cell: Configuration,
    answers: Sequence[str],
    samples: Sequence[SampleReport],
    options: RecordOptions,
) -> list[dict[str, Any]]:
    """Return one record per question, with everything needed to score it again, and to ask it again."""
    assert batch.prepared is not None
    layouts, lengths = batch.prepared.layouts, batch.prepared.inputs["attention_mask"].sum(1).tolist()
    needs = () if cell.name in (NONE, DOWNSCALE) else cell.pruner.readings()
    made = []
    for row, i in enumerate(batch.items):
        sample = samples[row]
        n_text = int(lengths[row]) - sample.n_visual
        whole = sample.n_visual if batch.whole is None else batch.whole[row]
        scaled = batch.whole is not None
        made.append({
            "answer": answers[row],
            "budget": budget(whole, cell.retention) if scaled else cell.pruner.stages()[-1].tokens(whole),
            "cache_bytes": own_cache_bytes(sample, n_text),
            "cell": cell.label,
            "id": task.identify(i),
            "image": task.image_name(i),
            "layer_tokens": layer_tokens(sample),
            "mean_tokens": sample.mean_tokens,
            "method": cell.title,
            "n_kept": len(sample),
            "n_text": n_text,
            "n_visual": whole,
            "parameters": cell.parameters,
            "prior": options.priors[cell.prior_name] if cell.prior_name else None,
            "prompt": batch.prompts[row],
            "pruner": cell.name,
            "retention": cell.retention,
            "scores": task.score(i, answers[row], batch.seen[row]),
            "seed": options.seed,
            "tags": task.tags(i),
            "task": task.name,
            "truth": task.truth(i),
            **({"tower_flops": sum(tower_flops(tower, batch.tiles[row], needs))} if tower and batch.tiles else {}),
            **({"positive": sample.info["positive"]} if "positive" in sample.info else {}),
            **({"kept": sample.indices.tolist()} if options.keep_indices and not scaled else {}),
            **({"shown": shown(task, i, answers[row], batch.seen[row], layouts[row], sample)} if options.keep_indices else {}),
            **({"selection": _measures(task, i, layouts[row], sample)} if options.observe is not None else {}),
        })  # fmt: skip
    return made


def _measures(task: Task, i: int, layout: Layout, sample: SampleReport) -> dict[str, float]:
    """The observer's measures of a decision, and the coverage of the question's region; {} without a decision."""
    if not sample.observed:
        return {}
    return {**sample.observed, **region_coverage(layout, task.region(i), sample.indices)}


def layer_tokens(sample: SampleReport) -> list[list[int]]:
    """Return the numbers of visual tokens, each with the decoder layer from which on it is in force: [[0, N], [K, n]]."""
    found = {0: sample.n_visual, **{layer: left for layer, left, _ in sample.stages}}
    return [[layer, count] for layer, count in sorted(found.items())]


def own_cache_bytes(sample: SampleReport, n_text: int) -> int | None:
    """Return the bytes of a question's keys and values after prefill, without padding of the batch."""
    if sample.cache_bytes is None or sample.cache_lengths is None:
        return None
    steps = layer_tokens(sample)
    own = sum(n_text + next(count for start, count in reversed(steps) if start <= layer) for layer in range(len(sample.cache_lengths)))
    return sample.cache_bytes * own // sum(sample.cache_lengths)
