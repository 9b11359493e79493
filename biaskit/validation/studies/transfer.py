"""How well a prior transfers to other prompts, image sets, resolutions and models, and how useful priors from blank pictures are.

Every condition gets a prior of its own. Priors are compared map by map, and, if wanted, each is used to debias the answers to the same
questions, which shows the cost of using another condition's prior.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from biaskit.calibration.progress import Progress
from biaskit.errors import BiaskitError
from biaskit.families.checkpoints.load import Loaded, load_model
from biaskit.images import open_source
from biaskit.prior.bias.report import compare
from biaskit.prior.value import Prior
from biaskit.pruners import get_pruner, pruners
from biaskit.tasks.base import Task
from biaskit.validation.ask.methods import Grid
from biaskit.validation.ask.plan import opened
from biaskit.validation.ask.runner import validate
from biaskit.validation.results.directory import read_results
from biaskit.validation.statistics.resampling import half_width
from biaskit.validation.studies.conditions import MEAN, Condition, adopt, described, prior_of
from biaskit.validation.studies.enough import settle


@dataclass(frozen=True)
class Asking:
    """The questions that priors are tested on, and the pruner that they debias at layer K.

    Attributes:
        tasks: opened, or names for `open_task`; if empty, priors are only compared. questions: of each task. pruner: a method's name.
    """

    tasks: Sequence[Task | str] = ()
    questions: int = 200
    pruner: str = "fastv"
    retention: float = 0.25
    layer: int = 1


@dataclass(frozen=True)
class Study:
    """The results of a study.

    Attributes:
        axis: the setting that varies. conditions: its values. samples: images of each prior.
        maps: per pair and layer, the columns of `bias.compare` with `a`, `b` and `ceiling`, the correlation that two noisy priors of the
            same true map would have (the root of the product of their reliabilities).
        scores: per task and prior: `score`, and `gain` over no prior, with 95 % half-widths over images, paired.
        asking: settings of the scores.
    """

    axis: str
    conditions: Sequence[Condition]
    samples: int
    maps: Sequence[Mapping[str, Any]]
    scores: Sequence[Mapping[str, Any]] = ()
    asking: Asking = field(default_factory=Asking)

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON."""
        how = {key: getattr(self.asking, key) for key in ("questions", "pruner", "retention", "layer")}
        return {
            "axis": self.axis,
            "samples": self.samples,
            "conditions": [dict(described(condition)) for condition in self.conditions],
            "asking": how if self.scores else None,
            "maps": [dict(row) for row in self.maps],
            "scores": [{key: None if value != value else value for key, value in row.items()} for row in self.scores],  # nan is not JSON
        }


Report = Callable[[str, int, int], None]
"""Called with the current step, how much of it is done, and how much there is."""


def transfer(
    axis: str,
    group: Sequence[Condition],
    out: Path,
    *,
    samples: int = 300,
    seed: int = 0,
    layers: Sequence[int] | str = "all",
    batch_size: int | None = None,
    asking: Asking | None = None,
    reference: str | None = None,
    loaded: Mapping[str, Loaded] | None = None,
    load: Callable[[str], Loaded] = load_model,
    report: Report | None = None,
) -> Study:
    """Calibrate a prior for each condition, compare them, and test each on questions. The same call resumes an interrupted study.

    Args:
        axis, group: from `conditions`. out: folder for priors, answers and the result.
        samples: images of each prior. seed: of their choice. layers: 0-based decoder layers, or "all". batch_size: images per forward pass.
        asking: questions to test the priors on. reference: label of the condition to compare the others with; by default all pairs.
        loaded: models that are loaded already, by name. load: loads the others. report: called with the progress.

    Raises:
        BiaskitError: invalid settings, or a folder of another study.
    """
    tell = report or (lambda what, done, total: None)
    out.mkdir(parents=True, exist_ok=True)
    asking = _checked(asking or Asking(), group, samples, seed, layers)
    models = dict(loaded or {})
    priors: dict[str, Prior] = {}
    for condition in group:
        if condition.model not in models:
            models[condition.model] = load(condition.model)

        def counted(progress: Progress, label: str = condition.label) -> None:
            tell(f"calibrating {label}", progress.done, progress.total)

        priors[condition.label] = prior_of(
            condition, models[condition.model], out, samples=samples, seed=seed, layers=layers, batch_size=batch_size, report=counted
        )
    pairs = [(reference, label) for label in priors if label != reference] if reference is not None else list(combinations(priors, 2))
    reliable = {label: _reliability(prior) for label, prior in priors.items()}
    maps = [row for a, b in pairs for row in _compared(a, b, priors, reliable)]
    scores: list[dict[str, Any]] = []
    if asking.tasks:
        for name in dict.fromkeys(condition.model for condition in group):
            mine = [condition.label for condition in group if condition.model == name]
            fitting = {label: prior if label in mine else adopt(prior, priors[mine[0]]) for label, prior in priors.items()}
            folder = out / "answers" / (mine[0] if len(mine) < len(priors) else "all")
            home = mine[0] if len(mine) < len(priors) else None
            scores += _tried(models[name], fitting, asking, folder, home, batch_size, tell)
    return Study(axis, group, samples, maps, scores, asking)


def _checked(asking: Asking, group: Sequence[Condition], samples: int, seed: int, layers: Sequence[int] | str) -> Asking:
    """Open the tasks, so that errors are raised before the first calibration."""
    for name in dict.fromkeys(condition.data.removeprefix(MEAN) for condition in group):
        open_source(name, n=samples, seed=seed)
    if not asking.tasks:
        return asking
    pruner = get_pruner(asking.pruner, retention=asking.retention, layer=asking.layer)
    missing = [] if isinstance(layers, str) else sorted(set(pruner.prior_layers()) - set(layers))
    if missing and pruner.debiases:
        which = f"layer {missing[0]}, which is" if len(missing) == 1 else f"layers {', '.join(map(str, missing))}, which are"
        raise BiaskitError(
            f"{asking.pruner} at K = {asking.layer} reads {which} not among the layers {list(layers)}",
            "calibrate what it reads, too, or choose another K",
        )
    return replace(asking, tasks=[opened(task, asking.questions) if isinstance(task, str) else task for task in asking.tasks])


def _reliability(prior: Prior) -> dict[int, float]:
    """Layer → reliability of the prior, from its own blocks; {} if it has too few."""
    try:
        return {row.layer: row.reliability for row in settle(prior, at=())}
    except BiaskitError:
        return {}


def _compared(a: str, b: str, priors: Mapping[str, Prior], reliable: Mapping[str, Mapping[int, float]]) -> list[dict[str, Any]]:
    first, second = priors[a], priors[b]
    other = second if (first.model, first.layers) == (second.model, second.layers) else adopt(second, first)
    rows = compare(first, other)
    if other is not second:  # the other model's layers at the same relative depths
        at = np.rint(np.linspace(0, len(second.layers) - 1, len(first.layers))).astype(int)
        partner = {layer: second.layers[index] for layer, index in zip(first.layers, at, strict=True)}
    else:
        partner = {layer: layer for layer in first.layers}
    found = []
    for row in rows:
        both = reliable[a].get(row["layer"]), reliable[b].get(partner[row["layer"]])
        ceiling = None if both[0] is None or both[1] is None else math.sqrt(both[0] * both[1])
        found.append({"a": a, "b": b, "layer_b": partner[row["layer"]], **row, "ceiling": ceiling})
    return found


def _tried(
    loaded: Loaded, priors: Mapping[str, Prior], asking: Asking, folder: Path, home: str | None, batch_size: int | None, tell: Report
) -> list[dict[str, Any]]:
    """Ask the questions with each prior, without a prior, and without pruning."""
    cls = pruners.get(asking.pruner)
    bare = f"{asking.pruner}@strength=0" if cls.prior == "required" else asking.pruner
    grid = Grid(["none", bare, *(f"{asking.pruner}+{label}" for label in priors)], [asking.retention], asking.layer, priors=priors)
    done = validate(
        loaded, list(asking.tasks), grid, out=folder, limit=asking.questions, batch_size=batch_size, workers=0,
        report=lambda progress: tell(f"asking {progress.task}".strip(), progress.done, progress.total),
    )  # fmt: skip
    asked = {task for task, _ in done.scores}
    metrics = {task["name"]: task["metric"] for task in done.manifest["tasks"] if task["name"] in asked}
    held: dict[tuple[str, str], dict[str, tuple[float, str]]] = {}
    # the folder may also have tasks and cells of an older study, with another pruner, layer or retention
    names = {cell.label: cell.prior_name or {"none": "unpruned"}.get(cell.name, "no prior") for cell in grid.cells(loaded.model.config)}
    for record in read_results(folder):
        if record["cell"] in names and record["task"] in metrics:
            score = record["scores"][metrics[record["task"]]]
            held.setdefault((record["task"], names[record["cell"]]), {})[record["id"]] = (score, record["image"])
    return [_score(task, home, prior, scores, held[task, "no prior"]) for (task, prior), scores in held.items()]


Scores = Mapping[str, tuple[float, str]]
"""Question → its score and its image."""


def _score(task: str, home: str | None, prior: str, scores: Scores, bare: Scores) -> dict[str, Any]:
    """Return one row: mean score, and the gain by the prior, paired over questions; half-widths over images."""
    asked = sorted(scores.keys() & bare.keys())
    images = [scores[key][1] for key in asked]
    values = np.array([scores[key][0] for key in asked])
    gain = values - np.array([bare[key][0] for key in asked])
    more = {"gain": float(gain.mean()), "gain_half_width": half_width(gain, images)}
    mean = {"score": float(values.mean()), "half_width": half_width(values, images)}
    return {"task": task, "model_of": home, "prior": prior, "n": len(asked), **mean, **more}
