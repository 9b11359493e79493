"""Validate: tasks × methods × retentions, every answer kept, resumable at any moment.

Batches are the outer loop and cells the inner one: a batch of questions is decoded, preprocessed, sent to the device and seen by the vision
tower once, and then answered in every cell. Questions come in a seeded random order, so that running scores mean something, and a larger
limit only adds to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biaskit.engine.decisions import Observe
from biaskit.engine.image_encoder import encode_once
from biaskit.errors import BiaskitError
from biaskit.families.checkpoints.ahead import ahead, default_workers
from biaskit.families.checkpoints.catalog import short_name
from biaskit.families.checkpoints.load import Loaded, load_model
from biaskit.prior.store import load_prior
from biaskit.prior.value import Prior
from biaskit.pruners.readings import Reading
from biaskit.tasks import Task
from biaskit.tasks.base import TaskView
from biaskit.validation.ask.answers import Asker, Wanted
from biaskit.validation.ask.methods import Cell, Grid
from biaskit.validation.ask.plan import Batch, arranged, make_plan, opened, order
from biaskit.validation.ask.questions import Questions
from biaskit.validation.results.directory import Directory, summaries
from biaskit.validation.results.manifest import describe_prior, make_manifest, merge


@dataclass(frozen=True)
class Progress:
    """How far a validation is: answers done of how many in all cells; and the cell in work, its primary score so far and over how many."""

    done: int
    total: int
    task: str = ""
    cell: str = ""
    score: float | None = None
    n: int = 0


@dataclass(frozen=True)
class Options:
    """How to validate; see `validate`."""

    limit: int | None = None
    seed: int = 0
    batch_size: int | None = None
    workers: int | None = None
    keep_indices: bool = False
    observe: Observe | None = None
    force: bool = False
    command: str = ""


@dataclass(frozen=True, eq=False)
class Validation:
    """A validation that is complete.

    Attributes:
        directory: where everything lies. manifest: `run.json`. asked: answers that this call added; the others were there.
        scores: (task, cell) → its scores, for all cells of the tasks that were asked for.
    """

    directory: Path
    manifest: dict[str, Any]
    asked: int
    scores: dict[tuple[str, str], dict[str, float]]


def validate(
    model: Loaded | str,
    task: Task | str | Sequence[Task | str],
    pruners: Sequence[str] | Grid,
    retention: float | Sequence[float] = (0.5, 0.25, 0.1),
    *,
    out: Path | str,
    prior: Prior | str | Path | Mapping[str, Prior] | None = None,
    report: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] | None = None,
    **options: Any,
) -> Validation:
    """Ask a model the questions of tasks with every method at every retention, and keep every answer.

    Args:
        model: a loaded checkpoint, or a name for `load_model`.
        task: tasks, or names for `open_task`.
        pruners: methods as `biaskit validate --pruner` writes them, such as ["none", "fastv+prior", "d2pruner@alpha=0.5+prior"]; or a
            whole `Grid`, which has retentions and priors of its own.
        retention: shares of the visual tokens kept.
        out: the results directory. A directory of the same run is gone on with, or added to; of another run it is refused.
        prior: of the methods with `+prior`; several by name: {"neutral": …, "task": …} for `+neutral` and `+task`.
        report: called after every batch and cell. say: called with each warning.
        limit: questions of each task, by default all. The questions of a smaller limit are among those of a larger one.
        seed: of the choice of questions, and of methods that draw random numbers: each question has numbers of its own.
        batch_size: questions a forward pass; by default 8 on a GPU, 4 on a CPU; halved when memory runs out. In float32 answers do not
            depend on it; in half precision the padding that comes with it may change a few, as it does without pruning.
        workers: preprocessing processes; by default none beside a model on the CPU.
        keep_indices: list the kept tokens in every record.
        observe: measures of every selection, such as `validation.ask.observe.Analysis()`; see `biaskit.prune`. The share of the question's
            region that is kept (`coverage`) is added where a task knows one.
        force: throw away what the directory has. command: what the user typed, for the manifest.

    Returns:
        The results; the same answers in the same order however often the run was interrupted.

    Raises:
        BiaskitError: settings that cannot work, a directory of another run, a broken image, no memory. What was answered is kept.
    """
    chosen = Options(**options)
    loaded = load_model(model) if isinstance(model, str) else model
    tasks = _opened([task] if isinstance(task, Task | str) else task, chosen.limit)
    grid = pruners
    if not isinstance(grid, Grid):
        shares = [retention] if isinstance(retention, int | float) else list(retention)
        grid = Grid(methods=list(grid), retentions=[float(share) for share in shares], priors=_priors(prior))
    cells = grid.cells(loaded.model.config)
    return _Run(loaded, tasks, cells, Directory(Path(out)), chosen, report or (lambda progress: None), _once(say)).run()


def _once(say: Callable[[str], None] | None) -> Callable[[str], None]:
    """Say every line only once: each batch brings the same warnings again."""
    said: set[str] = set()

    def tell(line: str) -> None:
        if say is not None and line not in said:
            said.add(line)
            say(line)

    return tell


def _settings(observe: Observe | None) -> dict[str, Any] | None:
    """What measures of selections depend on, if the observer says it."""
    if observe is None:
        return None
    settings = getattr(observe, "settings", dict)
    return {"measures": type(observe).__name__, **settings()}


def _priors(prior: Prior | str | Path | Mapping[str, Prior] | None) -> dict[str, Prior]:
    if prior is None:
        return {}
    if isinstance(prior, Mapping):
        return dict(prior)
    return {"prior": prior if isinstance(prior, Prior) else load_prior(prior)}


def _opened(wanted: Sequence[Task | str], limit: int | None) -> dict[str, Task]:
    if limit is not None and limit < 1:
        raise BiaskitError(f"limit is {limit}", "ask at least 1 question of each task")
    tasks: dict[str, Task] = {}
    for one in wanted:
        task = opened(one, limit) if isinstance(one, str) else one
        if not len(task):
            raise BiaskitError(f"task {task.name} has no questions", "check its data")
        tasks[task.name] = task
    if not tasks:
        raise BiaskitError("no tasks", "name some (biaskit tasks list)")
    return tasks


class _Run:
    """One run: what it asks, and what is there already."""

    def __init__(
        self,
        loaded: Loaded,
        tasks: Mapping[str, Task],
        cells: Sequence[Cell],
        directory: Directory,
        options: Options,
        report: Callable[[Progress], None],
        say: Callable[[str], None],
    ) -> None:
        self.loaded, self.cells, self.directory, self.options, self.report = loaded, cells, directory, options, report
        self.whole = tasks
        self.tasks: dict[str, Task] = {name: TaskView(task, order(task, options.limit, options.seed)) for name, task in tasks.items()}
        self.gpu = loaded.model.get_input_embeddings().weight.device.type != "cpu"
        self.batch_size = options.batch_size or (8 if self.gpu else 4)
        priors = {cell.prior_name: describe_prior(cell.prior)["sha256"] for cell in cells if cell.prior_name and cell.prior}
        wanted = Wanted(options.seed, options.keep_indices, priors, options.observe)
        self.asker = Asker(loaded, wanted, say, self.batch_size)
        self.total = len(cells) * sum(map(len, self.tasks.values()))
        self.done = self.asked = 0
        self.running: dict[tuple[str, str], list[float]] = {}
        for prior in {id(cell.prior): cell.prior for cell in cells if cell.prior is not None}.values():
            prior.check_model(loaded.model.config.model_type, loaded.revision, loaded.name)

    def run(self) -> Validation:
        """Ask what is not answered yet; then put the answers in order."""
        options = self.options
        with self.directory.held(force=options.force):
            fresh = make_manifest(
                self.loaded,
                self.whole,
                {name: len(task) for name, task in self.tasks.items()},
                self.cells,
                seed=options.seed,
                keep_indices=options.keep_indices,
                analysed=_settings(options.observe),
                command=options.command,
            )
            manifest = merge(self.directory.read_manifest(), fresh, str(self.directory.path))
            self.directory.load({task["name"]: task["metric"] for task in manifest["tasks"]})
            self.directory.write_manifest(manifest)
            plan = make_plan(self.tasks, self.cells, self.directory.lines, self.batch_size)
            self.directory.rewrite([key for key in self.directory.lines if key not in plan.dropped])
            for (task, cell), there in plan.scores.items():
                self._count(task, cell, there)
            self.report(Progress(self.done, self.total))
            needs = frozenset[Reading]().union(*(cell.pruner.needs for cell in self.cells))
            with encode_once(self.loaded.model, needs):
                for name, batches in plan.batches.items():
                    self._ask(self.tasks[name], batches)
            self.directory.rewrite(arranged(self.directory.lines, manifest, self.whole, options.seed))
        scores = summaries(self.directory.path, {name: task.summarise for name, task in self.whole.items()})
        return Validation(self.directory.path, manifest, self.asked, scores)

    def _count(self, task: str, cell: str, scores: Sequence[float]) -> Progress:
        sums = self.running.setdefault((task, cell), [0.0, 0])
        sums[0] += sum(scores)
        sums[1] += len(scores)
        self.done += len(scores)
        return Progress(self.done, self.total, task, cell, sums[0] / sums[1], int(sums[1]))

    def _ask(self, task: Task, batches: Sequence[Batch]) -> None:
        """Answer the open batches of one task."""
        loaded, device = self.loaded, self.loaded.model.get_input_embeddings().weight.device
        items = [batch.items for batch in batches]
        base = short_name(loaded.name)
        questions = Questions(task, loaded.family, loaded.processor, loaded.model.config, base, loaded.model.dtype, items)
        workers = (default_workers(1, gpu=True) if self.gpu else 0) if self.options.workers is None else self.options.workers
        for asked, batch in zip(ahead(questions, workers=workers, pin=device.type == "cuda"), batches, strict=True):
            self.asker.take(task, questions, asked)
            for cell in batch.cells:
                began = time.monotonic()
                made = self.asker.ask(cell)
                timing = {"task": task.name, "cell": cell.label, "first": asked.items[0], "n": len(made), "chunk": self.asker.chunk}
                self.directory.append(made, task.metric, {**timing, "seconds": round(time.monotonic() - began, 4)})
                self.asked += len(made)
                self.report(self._count(task.name, cell.label, [record["scores"][task.metric] for record in made]))
