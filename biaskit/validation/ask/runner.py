"""Validate: tasks × methods × retentions, with every answer stored, resumable at any moment, on one process or several (torchrun).

Batches are the outer loop and cells the inner one: a batch of questions is decoded, preprocessed, copied to the device and encoded by the
vision tower once, and then answered in every cell. Questions come in a seeded random order, so that running scores are estimates of the
final ones, and a larger limit includes the questions of a smaller one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biaskit.calibration.ranks import Ranks
from biaskit.display import html_table
from biaskit.engine.decisions import Observe
from biaskit.engine.greedy import greedy_settings, put_aside
from biaskit.engine.image_encoder import encode_once
from biaskit.errors import BiaskitError
from biaskit.families.checkpoints.ahead import ahead, default_workers
from biaskit.families.checkpoints.catalog import short_name
from biaskit.families.checkpoints.device import input_device
from biaskit.families.checkpoints.load import Loaded
from biaskit.families.checkpoints.wrap import as_loaded
from biaskit.pruners.readings import Reading
from biaskit.registry import named_arguments
from biaskit.tasks import Task
from biaskit.tasks.base import TaskView
from biaskit.validation.ask.answers import BatchRunner, RecordOptions
from biaskit.validation.ask.arguments import AnyPrior, read_priors, read_shares, words
from biaskit.validation.ask.describe import describe_priors, make_manifest
from biaskit.validation.ask.methods import Configuration, Grid
from biaskit.validation.ask.options import Options
from biaskit.validation.ask.plan import Batch, arranged, make_plan, open_tasks, order
from biaskit.validation.ask.progress import Progress, Report, Say, reported
from biaskit.validation.ask.questions import Questions
from biaskit.validation.results.directory import Directory, summaries
from biaskit.validation.results.doubtful import Scored, doubts
from biaskit.validation.results.manifest import merge

if TYPE_CHECKING:
    from biaskit.families.checkpoints.wrap import AnyModel


@dataclass(frozen=True, eq=False)
class Validation:
    """The result of a complete validation.

    Attributes:
        directory: the results directory. manifest: contents of `run.json`. asked: number of answers that this call added.
        scores: (task, cell) → its scores, for all cells of the tasks of this call.
    """

    directory: Path
    manifest: dict[str, Any]
    asked: int
    scores: dict[tuple[str, str], dict[str, float]]

    @property
    def doubts(self) -> list[str]:
        """Warnings, one line per task and kind, about cells far below a random choice of tokens, or with mostly unreadable answers."""
        metrics = {task["name"]: task["metric"] for task in self.manifest["tasks"]}
        cells = {cell["cell"]: cell for cell in self.manifest["cells"]}
        found: dict[str, list[Scored]] = {}
        for (task, label), scores in self.scores.items():
            cell = cells[label]
            renumbered = cell["parameters"].get("positions") == "compact"
            budget = label.rpartition("/")[2]
            score = Scored(label, cell["pruner"], budget, scores[metrics[task]], int(scores["n"]), scores.get("parsed"), renumbered)
            found.setdefault(task, []).append(score)
        return [line for task, scored in found.items() for line in doubts(task, scored)]

    def __repr__(self) -> str:
        """One line: directory, cells, tasks, and the number of new answers."""
        tasks = ", ".join(dict.fromkeys(task for task, _ in self.scores))
        cells = len({cell for _, cell in self.scores})
        return f"Validation({str(self.directory)!r}: {cells} cells of {tasks}; {self.asked} new answers)"

    def _repr_html_(self) -> str:
        metrics = {task["name"]: task["metric"] for task in self.manifest["tasks"]}
        tasks = list(dict.fromkeys(task for task, _ in self.scores))
        rows = []
        for cell in dict.fromkeys(cell for _, cell in self.scores):
            found = [(self.scores.get((task, cell)), metrics[task]) for task in tasks]
            rows.append([cell, *("–" if one is None else f"{100 * one[metric]:.1f} (n = {one['n']:.0f})" for one, metric in found)])
        return html_table(["method", *(f"{task}, {metrics[task]} %" for task in tasks)], rows, str(self.directory))


@named_arguments
def validate(
    model: AnyModel,
    task: Task | str | Sequence[Task | str],
    pruners: str | Sequence[str] | Grid,
    retention: float | str | Sequence[float | str] = (0.5, 0.25, 0.1),
    *,
    out: str | os.PathLike[str],
    prior: AnyPrior | Sequence[AnyPrior] | Mapping[str, AnyPrior] | None = None,
    report: Report | None = None,
    progress: bool | None = None,
    say: Say | None = None,
    limit: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    workers: int | None = None,
    keep_indices: bool = False,
    observe: Observe | None = None,
    generation: Mapping[str, Any] | None = None,
    published_as: str | None = None,
    force: bool = False,
    command: str = "",
) -> Validation:
    """Ask a model the questions of tasks with every method at every retention, and store every answer.

    Args:
        model: a loaded checkpoint, a name for `load_model`, or (model, processor) of a stock one. task: tasks, or names for `open_task`.
        pruners: methods in the notation of `biaskit validate --pruner`, such as "none,d2pruner@alpha=0.5+prior"; or a `Grid`.
        retention: shares of the visual tokens kept: 0.25, [0.5, 0.25], "0.5,1/9".
        out: the results directory. A directory of the same run is continued, or added to; one of another run is refused.
        prior: for methods with `+prior`, a `Prior`, or a name or path for `load_prior`; several for `+NAME`: {NAME: …}, ["NAME=FILE"].
        report: called after every batch and cell. say: called with each warning; by default above the bar, or through `warnings`.
        progress: show a bar; by default on a terminal and in a notebook, unless there is a `report`.
        limit: questions of each task, by default all; a larger limit includes a smaller one's. seed: of their choice and random methods.
        batch_size: questions per forward pass; by default 8 on a GPU, 4 on a CPU; halved without memory. In float16 it may change answers.
        workers: preprocessing processes; by default none beside a model on the CPU. keep_indices: store the kept tokens in every record.
        observe: measures of every selection, such as `validation.ask.observe.Analysis()`; `coverage` is added if a question has a region.
        generation: settings of `generate()`, as {"repetition_penalty": 1.05}; by default plain greedy decoding.
        published_as: hub id of the checkpoint that the model is a copy of, or `none`, for the report; by default by name or sizes.
        force: delete existing results in the directory. command: the command line, for the manifest.

    Returns:
        The results: the same answers in the same order, regardless of interruptions and the number of processes.

    Raises:
        BiaskitError: invalid settings, a directory of another run, a broken image, no memory. Answers so far are kept.

    >>> from tempfile import mkdtemp
    >>> found = validate("demo", "scenes-presence", ["none", "fastv"], 0.5, out=mkdtemp(), limit=2, progress=False)
    >>> found.asked, sorted(found.scores)
    (4, [('scenes-presence', 'fastv/r0.5'), ('scenes-presence', 'none')])
    """
    options = Options(limit, seed, batch_size, workers, keep_indices, observe, generation, published_as, force, command)
    grid = pruners if isinstance(pruners, Grid) else Grid(words(pruners), read_shares(retention), priors=read_priors(prior))
    loaded = as_loaded(model)
    tasks = open_tasks(words(task) if isinstance(task, str) else task if isinstance(task, Sequence) else [task], limit)
    cells = grid.cells(loaded.model.config)
    with reported(report, say, progress) as (report, tell):
        return _Run(loaded, tasks, cells, Path(out), options, report, tell).run()


def _settings(observe: Observe | None) -> dict[str, Any] | None:
    """The settings of the observer's measures, if it has any."""
    if observe is None:
        return None
    settings = getattr(observe, "settings", dict)
    return {"measures": type(observe).__name__, **settings()}


class _Run:
    """One run: questions, cells, and the answers on disk."""

    def __init__(
        self,
        loaded: Loaded,
        tasks: Mapping[str, Task],
        cells: Sequence[Configuration],
        out: Path,
        options: Options,
        report: Report,
        say: Say,
    ) -> None:
        self.loaded, self.cells, self.options, self.report, self.say = loaded, cells, options, report, say
        self.ranks = Ranks()
        self.directory = Directory(out, self.ranks.rank)
        self.whole = tasks
        self.tasks: dict[str, Task] = {name: TaskView(task, order(task, options.limit, options.seed)) for name, task in tasks.items()}
        self.gpu = input_device(loaded.model).type != "cpu"
        self.batch_size = options.batch_size or (8 if self.gpu else 4)
        self.priors = describe_priors(cells, loaded.wording)
        hashes = {name: said["sha256"] for name, said in self.priors.items()}
        record = RecordOptions(options.seed, options.keep_indices, options.generation or {}, hashes, options.observe)
        unused = put_aside(loaded.model, greedy_settings(loaded.model, options.generation))
        if unused is not None and not self.ranks.rank:
            say(unused)
        self.runner = BatchRunner(loaded, record, say, self.batch_size)
        self.total = len(cells) * sum(map(len, self.tasks.values()))
        self.done = self.asked = 0
        self.running: dict[tuple[str, str], list[float]] = {}
        for prior in {id(cell.prior): cell.prior for cell in cells if cell.prior is not None}.values():
            prior.check_model(loaded.model.config.model_type, loaded.revision, loaded.name, loaded.processor_settings)
        for name, described in self.priors.items():
            if "other_wording" in described and not self.ranks.rank:
                say(f"{name}: {described['other_wording']}")

    def run(self) -> Validation:
        """Ask the questions without answers; then put the answers in order."""
        with ExitStack() as held:
            manifest, open_now = self.ranks.lead(lambda: self._begin(held))
            mine = open_now[self.ranks.rank :: self.ranks.count]  # batches are the same for any number of processes
            self.report(Progress(self.done, self.total))
            needs = frozenset[Reading](getattr(self.options.observe, "needs", ())).union(*(cell.pruner.needs for cell in self.cells))
            with encode_once(self.loaded.model, needs):
                for name, task in self.tasks.items():
                    self._ask(task, [Batch(items, [self.cells[at] for at in cells]) for of, items, cells in mine if of == name])
            self.directory.close()
            asked = sum(self.ranks.gather(self.asked))
            scores = self.ranks.lead(lambda: self._end(manifest))
        found = Validation(self.directory.path, manifest, asked, scores)
        for line in () if self.ranks.rank else found.doubts:
            self.say(line)
        return found

    def _begin(self, held: ExitStack) -> tuple[dict[str, Any], list[tuple[str, tuple[int, ...], list[int]]]]:
        """On the first process: lock the directory, load the answers, and return the manifest and the open batches.

        Returns: for each open batch its task, its questions, and the cells without answers.
        """
        options = self.options
        held.enter_context(self.directory.held(force=options.force))
        fresh = make_manifest(
            self.loaded,
            self.whole,
            {name: len(task) for name, task in self.tasks.items()},
            self.cells,
            priors=self.priors,
            seed=options.seed,
            keep_indices=options.keep_indices,
            analysed=_settings(options.observe),
            command=options.command,
            generation=options.generation,
            **({} if options.published_as is None else {"published_as": options.published_as}),
        )
        manifest = merge(self.directory.read_manifest(), fresh, str(self.directory.path))
        metrics = {task["name"]: task["metric"] for task in manifest["tasks"]}
        self.directory.load(metrics)
        self.directory.take_in(metrics)
        self.directory.write_manifest(manifest)
        plan = make_plan(self.tasks, self.cells, self.directory.lines, self.batch_size)
        self.directory.rewrite([key for key in self.directory.lines if key not in plan.dropped])
        for (task, cell), there in plan.scores.items():
            self._count(task, cell, there)
        place = {cell.label: at for at, cell in enumerate(self.cells)}
        batches = [(name, batch) for name, several in plan.batches.items() for batch in several]
        return manifest, [(name, batch.items, [place[cell.label] for cell in batch.cells]) for name, batch in batches]

    def _end(self, manifest: dict[str, Any]) -> dict[tuple[str, str], dict[str, float]]:
        """On the first process: put all answers in order, and return the scores."""
        self.directory.take_in({task["name"]: task["metric"] for task in manifest["tasks"]})
        if any(make_plan(self.tasks, self.cells, self.directory.lines, self.batch_size).batches.values()):
            raise BiaskitError(
                f"answers of other processes are not in {self.directory.path}",
                "choose an --out that all machines share; the same command resumes the run",
            )
        self.directory.rewrite(arranged(self.directory.lines, manifest, self.whole, self.options.seed))
        return summaries(self.directory.path, {name: task.summarise for name, task in self.whole.items()})

    def _count(self, task: str, cell: str, scores: Sequence[float], processes: int = 1) -> Progress:
        """Count answers; the other processes' are estimated as if they were equally fast."""
        sums = self.running.setdefault((task, cell), [0.0, 0])
        sums[0] += sum(scores)
        sums[1] += len(scores)
        self.done += len(scores) * processes
        return Progress(min(self.done, self.total), self.total, task, cell, sums[0] / sums[1], int(sums[1]))

    def _ask(self, task: Task, batches: Sequence[Batch]) -> None:
        """Answer the open batches of one task."""
        loaded, device = self.loaded, input_device(self.loaded.model)
        items = [batch.items for batch in batches]
        base = short_name(loaded.name)
        model = loaded.model
        questions = Questions(task, loaded.family, loaded.processor, model.config, base, loaded.wording, model.dtype, items)
        workers = (
            (default_workers(self.ranks.local_count, gpu=True) if self.gpu else 0) if self.options.workers is None else self.options.workers
        )
        for ready, batch in zip(ahead(questions, workers=workers, pin=device.type == "cuda"), batches, strict=True):
            self.runner.take(task, questions, ready)
            for cell in batch.cells:
                began = time.monotonic()
                made = self.runner.ask(cell)
                timing = {"task": task.name, "cell": cell.label, "first": ready.items[0], "n": len(made), "chunk": self.runner.chunk}
                self.directory.append(made, task.metric, {**timing, "seconds": round(time.monotonic() - began, 4)})
                self.asked += len(made)
                scores = [record["scores"][task.metric] for record in made]
                self.report(self._count(task.name, cell.label, scores, self.ranks.count))
