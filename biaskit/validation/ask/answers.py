"""Ask a batch in one cell: greedy answers, and what each cost in visual tokens and cache."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from biaskit.engine.decisions import Observe, SampleReport
from biaskit.engine.greedy import greedy_settings
from biaskit.engine.prune import prune
from biaskit.errors import BiaskitError
from biaskit.families import Prepared
from biaskit.families.checkpoints.device import input_device
from biaskit.families.checkpoints.load import Loaded
from biaskit.grid import Layout
from biaskit.tasks.base import Task
from biaskit.validation.ask.methods import Configuration
from biaskit.validation.ask.observe import region_coverage
from biaskit.validation.ask.questions import Asked, Questions


@dataclass(frozen=True)
class Wanted:
    """What goes into every record besides the answer.

    Attributes:
        seed: of the run. keep_indices: list the kept tokens. priors: name → sha256. observe: measures of selections.
        generation: settings that are not plain greedy decoding.
    """

    seed: int = 0
    keep_indices: bool = False
    generation: Mapping[str, Any] = field(default_factory=dict)
    priors: Mapping[str, str] = field(default_factory=dict)
    observe: Observe | None = None


class Asker:
    """Asks batches, in pieces that fit into memory.

    Attributes:
        chunk: questions a forward pass; halved, for good, when memory runs out.
    """

    def __init__(self, loaded: Loaded, wanted: Wanted, say: Callable[[str], None], chunk: int) -> None:
        self.loaded, self.wanted, self.say, self.chunk = loaded, wanted, say, chunk

    def take(self, task: Task, questions: Questions, asked: Asked) -> None:
        """Take up a batch; it goes to the device once."""
        self.task, self.questions, self.items = task, questions, asked.items
        self.parts = [self._moved(asked)]
        if len(self.items) > self.chunk:
            self._cut()

    def _moved(self, asked: Asked) -> Asked:
        assert asked.prepared is not None
        device = input_device(self.loaded.model)
        moved = {name: value.to(device, non_blocking=True) for name, value in asked.prepared.inputs.items()}
        return replace(asked, prepared=Prepared(moved, asked.prepared.layouts))

    def _cut(self) -> None:
        self.parts = []  # first let go of what is there
        starts = range(0, len(self.items), self.chunk)
        self.parts = [self._moved(self.questions.prepare(self.items[start : start + self.chunk])) for start in starts]

    def ask(self, cell: Configuration) -> list[dict[str, Any]]:
        """Return the records of the batch in one cell.

        Raises:
            BiaskitError: one question alone needs more memory than there is.
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
                    f"one question of {self.task.name} in cell {cell.label} needs more memory than there is",
                    "what was answered is kept; go on with --dtype bfloat16, another --device, or more free memory",
                )
            self.chunk = max(1, min(self.chunk, len(self.items)) // 2)
            self.say(f"out of memory: going on with {self.chunk} questions a forward pass")
            self._cut()

    def _try(self, cell: Configuration) -> list[dict[str, Any]] | None:
        made = []
        try:
            for part in self.parts:
                answers, samples = answer(self.loaded, self.task, part, cell, self.wanted, self.say)
                made += records(self.task, part, cell, answers, samples, self.wanted)
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
    loaded: Loaded, task: Task, asked: Asked, cell: Configuration, wanted: Wanted, say: Callable[[str], None]
) -> tuple[list[str], tuple[SampleReport, ...]]:
    """Return the answers, special tokens left out, and the pruning of each question."""
    assert asked.prepared is not None
    model, inputs = loaded.model, asked.prepared.inputs
    seeds = [seed_of(wanted.seed, task.name, task.identify(i)) for i in asked.items]

    settings = {**greedy_settings(model, wanted.generation), "max_new_tokens": task.max_new_tokens, "disable_compile": True}
    if model.generation_config.pad_token_id is None:  # else every call would say that it takes the end token instead
        settings["pad_token_id"] = loaded.processor.tokenizer.pad_token_id
    with prune(model, cell.pruner, prior=cell.prior, seed=seeds, say=say, observe=wanted.observe) as pruning:
        output = model.generate(**inputs, **settings)
    fresh = output[:, inputs["input_ids"].shape[1] :].cpu()
    texts: Sequence[str] = loaded.processor.tokenizer.batch_decode(fresh, skip_special_tokens=True)
    return [text.strip() for text in texts], pruning.samples[:: len(pruning.samples) // len(asked.items)]  # beams have one row each


def records(
    task: Task, asked: Asked, cell: Configuration, answers: Sequence[str], samples: Sequence[SampleReport], wanted: Wanted
) -> list[dict[str, Any]]:
    """Return one record a question: everything needed to score it again, and to ask it again."""
    assert asked.prepared is not None
    layouts, lengths = asked.prepared.layouts, asked.prepared.inputs["attention_mask"].sum(1).tolist()
    made = []
    for row, i in enumerate(asked.items):
        sample = samples[row]
        n_text = int(lengths[row]) - sample.n_visual
        made.append({
            "answer": answers[row],
            "budget": cell.pruner.stages()[-1].tokens(sample.n_visual),
            "cache_bytes": own_cache_bytes(sample, n_text),
            "cell": cell.label,
            "id": task.identify(i),
            "image": task.image_name(i),
            "layer_tokens": layer_tokens(sample),
            "mean_tokens": sample.mean_tokens,
            "method": cell.title,
            "n_kept": len(sample),
            "n_text": n_text,
            "n_visual": sample.n_visual,
            "parameters": cell.parameters,
            "prior": wanted.priors[cell.prior_name] if cell.prior_name else None,
            "prompt": asked.prompts[row],
            "pruner": cell.name,
            "retention": cell.retention,
            "scores": task.score(i, answers[row], asked.seen[row]),
            "seed": wanted.seed,
            "tags": task.tags(i),
            "task": task.name,
            "truth": task.truth(i),
            **({"positive": sample.info["positive"]} if "positive" in sample.info else {}),
            **({"kept": sample.indices.tolist()} if wanted.keep_indices else {}),
            **({"selection": _measures(task, i, layouts[row], sample)} if wanted.observe is not None else {}),
        })  # fmt: skip
    return made


def _measures(task: Task, i: int, layout: Layout, sample: SampleReport) -> dict[str, float]:
    """What the observer said of a decision, and how much of the question's region is kept; nothing where nothing was decided."""
    if not sample.observed:
        return {}
    return {**sample.observed, **region_coverage(layout, task.region(i), sample.indices)}


def layer_tokens(sample: SampleReport) -> list[list[int]]:
    """Return from which decoder layer on how many visual tokens there are: [[0, N], [K, n]]."""
    found = {0: sample.n_visual, **{layer: left for layer, left, _ in sample.stages}}
    return [[layer, count] for layer, count in sorted(found.items())]


def own_cache_bytes(sample: SampleReport, n_text: int) -> int | None:
    """Return the bytes of a question's own keys and values after prefill; what fills up a batch does not count."""
    if sample.cache_bytes is None or sample.cache_lengths is None:
        return None
    steps = layer_tokens(sample)
    own = sum(n_text + next(count for start, count in reversed(steps) if start <= layer) for layer in range(len(sample.cache_lengths)))
    return sample.cache_bytes * own // sum(sample.cache_lengths)
