"""The conditions of a study, which vary one setting at a time, and their priors: calibrated once, stored in a folder, resumable."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from biaskit.calibration.progress import Progress
from biaskit.calibration.prompts import PROMPT, read_prompts
from biaskit.calibration.run import calibrate
from biaskit.errors import BiaskitError
from biaskit.families.checkpoints.load import Loaded
from biaskit.images import ImageSource, open_source
from biaskit.images.blank import BlankSource, mean_colour
from biaskit.images.resized import Resized
from biaskit.prior.value import PlaneStats, Prior
from biaskit.validation.studies.enough import BLOCKS

AXES = ("prompt", "data", "size", "model")
MEAN = "mean:"
"""Prefix of the name of a source: pictures of its mean colour."""

Size = tuple[int, int]


@dataclass(frozen=True)
class Condition:
    """How one prior is calibrated.

    Attributes:
        label: short, unique within a study. model: a name for `load_model`. data: for `open_source`, or `mean:` and such a name.
        prompt: text, file or task:NAME. size: (rows, cols) in pixels that all images are resized to.
    """

    label: str
    model: str
    data: str
    prompt: str = PROMPT
    size: Size | None = None


def conditions(
    models: Sequence[str], data: Sequence[str], prompts: Sequence[str] = (), sizes: Sequence[Size | None] = ()
) -> tuple[str, list[Condition]]:
    """Return which of `AXES` varies, and a condition for each of its values.

    Raises:
        BiaskitError: no setting varies, more than one does, or a value is given twice.
    """
    given: dict[str, Sequence[Any]] = {"prompt": prompts or [PROMPT], "data": data, "size": sizes or [None], "model": models}
    varied = [axis for axis in AXES if len(given[axis]) > 1]
    if len(varied) != 1:
        what = "nothing varies" if not varied else f"{' and '.join(varied)} vary at the same time"
        raise BiaskitError(what, "give two or more values of one of --prompt, --data, --image-size and --model, and one of the others")
    axis = varied[0]
    if len(set(given[axis])) < len(given[axis]):
        raise BiaskitError(f"the same {axis} is given twice", "a prior agrees with itself")
    base = {name: values[0] for name, values in given.items()}
    labels = _labels([_label(value) for value in given[axis]])
    return axis, [Condition(label, **{**base, axis: value}) for label, value in zip(labels, given[axis], strict=True)]


def _label(value: Any) -> str:
    """Return a name that can be part of a method's label: it begins with a letter and has no spaces."""
    if isinstance(value, tuple):
        return f"s{value[0]}x{value[1]}"
    if str(value).startswith(MEAN):
        return f"mean-{_label(str(value).removeprefix(MEAN))}"
    text = "neutral" if value == PROMPT else "unresized" if value is None else str(value).removeprefix("task:")
    text = re.sub(r"[^A-Za-z0-9.-]+", "-", Path(text).stem if "/" in text else text).strip("-.")[:24] or "x"
    return text if text[0].isalpha() else f"c{text}"


def _labels(names: Sequence[str]) -> list[str]:
    """Make names unique."""
    return [name if names.count(name) == 1 else f"{name}-{index + 1}" for index, name in enumerate(names)]


def source_of(condition: Condition, samples: int, seed: int) -> ImageSource:
    """Open the images of a condition."""
    name = condition.data.removeprefix(MEAN)
    source = open_source(name, n=samples, seed=seed)
    if condition.data.startswith(MEAN):
        source = BlankSource("grey", samples, colour=mean_colour(source))
    return source if condition.size is None else Resized(source, *condition.size)


def prior_of(
    condition: Condition,
    loaded: Loaded,
    folder: Path,
    *,
    samples: int,
    seed: int = 0,
    layers: Sequence[int] | str = "all",
    batch_size: int | None = None,
    report: Callable[[Progress], None] | None = None,
) -> Prior:
    """Calibrate the prior of a condition, or load it from the folder; an unfinished calibration is resumed.

    Raises:
        BiaskitError: the prior in the folder has other settings, or the calibration fails.
    """
    path = folder / f"{condition.label}.safetensors"
    source = source_of(condition, samples, seed)
    prompts = read_prompts([condition.prompt], loaded.wording)
    count = min(samples, len(source))
    if path.exists() and not list(folder.glob(f"{path.name}.partial*")):
        prior = Prior.load(path)
        facts = {"source_fingerprint": source.fingerprint(), "prompt": json.dumps(list(prompts)), "seed": str(seed)}
        made_by = {"revision": loaded.revision, "processor": json.dumps(loaded.processor_settings)}
        wanted = {**facts, **made_by, "n_images": str(count)}
        differing = [name for name, value in wanted.items() if prior.meta.get(name) != value]
        if differing:
            raise BiaskitError(f"{path} was calibrated with another {' and '.join(differing)}", "choose another --out, or delete it")
        return prior
    return calibrate(
        loaded, source, out=path, samples=count, prompts=prompts, layers=layers if isinstance(layers, str) else tuple(layers), seed=seed,
        groups=BLOCKS, batch_size=batch_size, workers=0 if batch_size else None, report=report,
    )  # fmt: skip


def adopt(prior: Prior, target: Prior) -> Prior:
    """Return a prior converted to the target's model: each of the target's layers gets the map at the same relative depth.

    Both must have been calibrated on the same share of their layers, such as all of them. Blocks, variances and heads are left out.
    """
    mine, theirs = len(prior.layers), len(target.layers)
    at = np.rint(np.linspace(0, mine - 1, theirs)).astype(int)
    planes = {name: PlaneStats(stats.mean[at], count=stats.count) for name, stats in prior.planes.items()}
    known = {key: target.meta[key] for key in ("model", "model_type", "revision", "processor") if key in target.meta}
    return Prior(planes, target.layers, prior.visual_mass[at], {**prior.meta, **known})


def described(condition: Condition) -> Mapping[str, Any]:
    """Return a condition as plain JSON."""
    return vars(replace(condition))
