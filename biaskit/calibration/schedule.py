"""Calibrate FitPrune's schedule: images × model → Schedule. Resumable, as `calibrate`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformers import PreTrainedModel

from biaskit.calibration.attend import rows_of
from biaskit.calibration.deletions import Deletions
from biaskit.calibration.options import Options
from biaskit.calibration.progress import Report, reported
from biaskit.calibration.prompts import PROMPT, read_prompts
from biaskit.calibration.settings import provenance
from biaskit.calibration.statistics import Quantity
from biaskit.calibration.work import Calibration
from biaskit.engine.maps import attention_maps
from biaskit.errors import CalibrationError, PriorError
from biaskit.families import Prepared
from biaskit.families.checkpoints.decoder import decoder_config
from biaskit.families.checkpoints.load import Loaded
from biaskit.families.checkpoints.wrap import as_loaded
from biaskit.images import ImageSource, open_source
from biaskit.pruners.fitprune import OWN, cross
from biaskit.pruners.schedule import KIND, Schedule
from biaskit.registry import named_arguments
from biaskit.text import differences

if TYPE_CHECKING:
    from biaskit.families.checkpoints.wrap import AnyModel

SAMPLES = 66
"""Default number of images: the paper's 0.01 % of a mix of 665,000."""


@named_arguments
def calibrate_schedule(
    model: AnyModel,
    source: ImageSource | str | os.PathLike[str] = "coco",
    *,
    out: str | os.PathLike[str] | None = None,
    report: Report | None = None,
    progress: bool | None = None,
    samples: int | None = None,
    prompts: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = PROMPT,
    seed: int = 0,
    batch_size: int | None = None,
    workers: int | None = None,
    max_skips: int | None = None,
    save_every: float = 10.0,
    force: bool = False,
    restart: bool = False,
) -> Schedule:
    """Count how many visual tokens each layer can delete while two attention maps keep 1 − α of their mass (FitPrune, arXiv 2409.10197).

    Each image's maps are evaluated at every α that the paper's bisection can end at, so that one schedule serves every budget.

    Args:
        model, source, out, report, progress, prompts, seed, batch_size, workers, max_skips, save_every, force, restart: as of `calibrate`.
        samples: n; by default 66, the paper's number, or all images of a smaller source.

    Returns: the schedule; the same bytes for the same inputs and library versions, however often it was interrupted.

    Raises:
        BiaskitError: invalid settings, too few usable images in the source, too many unusable images. The state is kept.

    >>> from biaskit.testing import tiny_model
    >>> model, processor, _ = tiny_model("llava-1.5")
    >>> found = calibrate_schedule((model, processor), "generated", samples=2, workers=0)
    >>> found.meta["n_images"], found.n_tokens
    ('2', 576.0)
    """
    loaded = as_loaded(model)
    images = open_source(source)
    options = Options(
        min(SAMPLES, len(images)) if samples is None else samples, read_prompts(prompts, loaded.wording), seed=seed, batch_size=batch_size,
        workers=workers, max_skips=max_skips, save_every=save_every, force=force, restart=restart,
    )  # fmt: skip
    if options.samples is not None and 0 < len(images) < options.samples:
        images = open_source(source, n=options.samples)
    with reported(report, str(out or loaded.name), progress) as tell:
        return Calibration(loaded, images, options, None if out is None else Path(out), tell, _Maps(loaded)).run()


class _Maps(Quantity[Schedule]):
    """The quantity of a schedule: the attention maps text → visual and visual → visual at every layer."""

    def __init__(self, loaded: Loaded) -> None:
        config = decoder_config(loaded.model)
        self.layers = tuple(range(int(config.num_hidden_layers)))
        self.settings: Mapping[str, Any] = {
            "kind": KIND, "hidden_size": int(config.hidden_size), "intermediate_size": int(config.intermediate_size)
        }  # fmt: skip

    def statistics(self, samples: int) -> Deletions:
        return Deletions(len(self.layers))

    def take(self, model: PreTrainedModel, prepared: Prepared, moved: Mapping[str, Tensor]) -> Tensor:
        """[L, B, 2, S]: cross and self."""
        readings = (cross("question"), OWN)
        return attention_maps(model, moved, {reading: rows_of(prepared, reading.queries) for reading in readings}, self.layers)

    def result(self, counted: Deletions, meta: Mapping[str, str]) -> Schedule:
        return Schedule(counted.mean("share"), counted.mean("entering"), counted.mean("squares"), meta)

    def finished(self, path: Path, model: str, settings: Mapping[str, Any]) -> Schedule:
        other = "choose another --out, or overwrite it with --force"
        try:
            found = Schedule.load(path)
        except PriorError as error:
            raise CalibrationError(f"{path} exists, and is not a schedule: {error.message}", other) from None
        made = provenance(settings) | {"n_images": str(settings["n_images"])}
        if differing := differences({name: found.meta.get(name, "") for name in made}, made):
            raise CalibrationError(f"{path} exists, of a calibration with other settings: {'; '.join(differing)}", other)
        return found
