"""Calibrate: images × model → Prior. Resumable at any moment, on one process or several (torchrun)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from biaskit.calibration.attend import rows_of
from biaskit.calibration.moments import GROUPS, Moments
from biaskit.calibration.options import Options
from biaskit.calibration.progress import Report, reported
from biaskit.calibration.prompts import PROMPT, read_prompts
from biaskit.calibration.settings import finished_prior
from biaskit.calibration.statistics import Quantity
from biaskit.calibration.work import Calibration
from biaskit.engine.attention import prefill, record_attention
from biaskit.engine.prompt_rows import record_rows
from biaskit.families import Prepared
from biaskit.families.checkpoints.decoder import decoder_config
from biaskit.families.checkpoints.load import Loaded
from biaskit.families.checkpoints.wrap import as_loaded
from biaskit.images import ImageSource, open_source
from biaskit.prior.layers import Layers, read_layers
from biaskit.prior.value import Prior, Rows
from biaskit.registry import named_arguments

if TYPE_CHECKING:
    from biaskit.families.checkpoints.wrap import AnyModel


@named_arguments
def calibrate(
    model: AnyModel,
    source: ImageSource | str | os.PathLike[str] = "coco",
    *,
    out: str | os.PathLike[str] | None = None,
    report: Report | None = None,
    progress: bool | None = None,
    samples: int | None = None,
    prompts: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = PROMPT,
    layers: Layers | None = None,
    per_head: bool = False,
    rows: Rows = "last",
    groups: int = GROUPS,
    seed: int = 0,
    batch_size: int | None = None,
    workers: int | None = None,
    max_skips: int | None = None,
    save_every: float = 10.0,
    force: bool = False,
    restart: bool = False,
) -> Prior:
    """Average a row of attention over many images: the prior A_bias (D2Pruner, section 3, where it is the last prompt token's).

    Args:
        model: a loaded checkpoint, a name for `load_model`, or a stock model and its processor as (model, processor).
        source: images, or a name or path for `open_source`.
        out: file for the prior. The state of an unfinished run is stored beside it as `OUT.partial`, and the same call resumes it;
            after it is finished, the same call returns the file's prior. Without `out` nothing is written.
        report: called after every batch. progress: show a bar with the rate and the time left, and skipped images; by default on a terminal
            and in a notebook, unless there is a `report`.
        samples: n; by default 1,000, or all images of a smaller source. seed: of the random choice of images.
        prompts: a text or several, `task:NAME`, files with a prompt a line; cycled over the images, each in the model's chat template.
        layers: 0-based decoder layers (1, (1, 4), "0-7", "all"); None: those that the presets need.
        rows: rows of attention: last (the last prompt token), question (mean of the text after the image), null (that text's first token).
        per_head: also store each head's mean. groups: blocks of images whose means are stored, at most one per image.
        batch_size: images per forward pass; by default 8 on a GPU, 2 on a CPU. Results agree to about 1e-6 relative between sizes.
        workers: preprocessing processes; by default half of the cores beside a GPU, one beside a model on the CPU.
        max_skips: stop with an error after this many unusable images; by default a quarter of n, at least 10.
        save_every: seconds between two writes of the state. force: overwrite `out`. restart: delete an unfinished state.

    Returns: the prior; the same bytes for the same inputs and library versions, however often it was interrupted.

    Raises:
        BiaskitError: invalid settings, too few usable images in the source, too many unusable images. The state is kept.

    >>> from biaskit.testing import tiny_model
    >>> model, processor, _ = tiny_model("llava-1.5")
    >>> calibrate((model, processor), "generated", samples=2, layers=1, workers=0).n_images
    2
    """
    loaded = as_loaded(model)
    asked, wanted = read_prompts(prompts, loaded.wording), read_layers(layers)
    options = Options(
        samples, asked, wanted, per_head, rows, groups, seed, batch_size, workers, max_skips, save_every, force, restart
    )  # fmt: skip
    images = open_source(source)
    if options.samples is not None and 0 < len(images) < options.samples:
        images = open_source(source, n=options.samples)  # generated pictures are made in any number
    with reported(report, str(out or loaded.name), progress) as tell:
        return Calibration(loaded, images, options, None if out is None else Path(out), tell, _Attention(loaded, options)).run()


class _Attention(Quantity[Prior]):
    """The quantity of a prior: rows of attention at some layers."""

    def __init__(self, loaded: Loaded, options: Options) -> None:
        self.layers, self.per_head, self.groups = options.layers_of(loaded), options.per_head, options.groups
        self.rows, self.exact = options.rows, options.samples is not None
        self.heads = int(decoder_config(loaded.model).num_attention_heads) if self.per_head else None
        self.canonical = loaded.family.canonical(loaded.model.config)
        self.settings: Mapping[str, Any] = {}

    def statistics(self, samples: int) -> Moments:
        return Moments(samples, len(self.layers), self.canonical, self.heads, self.groups)

    def take(self, model: PreTrainedModel, prepared: Prepared, moved: Mapping[str, Tensor]) -> Tensor:
        """[L, B, (heads,) S], of the last prompt token, the mean of the question's (the text after the image), or the null row."""
        if self.rows == "last":
            recording = record_attention(model, self.layers, per_head=self.per_head, stop=True)
        else:
            recording = record_rows(model, self.layers, rows_of(prepared, self.rows), per_head=self.per_head)
        with recording as found:
            prefill(model, moved)
        return torch.stack([found[layer].to(found[self.layers[-1]].device) for layer in self.layers])

    def result(self, counted: Moments, meta: Mapping[str, str]) -> Prior:
        planes, mass = counted.stats()
        return Prior(planes, self.layers, mass, {**meta, "kind": "calibrated", "reduction": "mean"})

    def finished(self, path: Path, model: str, settings: Mapping[str, Any]) -> Prior:
        return finished_prior(path, model, settings, exact=self.exact)
