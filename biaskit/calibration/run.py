"""Calibrate: images × model → Prior. Resumable at any moment, on one process or several (torchrun)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from biaskit.calibration.attend import attended
from biaskit.calibration.feed import Batch, Preprocessor, Skip, Task, feed
from biaskit.calibration.moments import GROUPS, Moments
from biaskit.calibration.options import Options
from biaskit.calibration.phases import Phases
from biaskit.calibration.progress import Progress, Report, reported
from biaskit.calibration.prompts import PROMPT, read_prompts
from biaskit.calibration.ranks import Ranks
from biaskit.calibration.settings import all_settings, finished_prior, provenance
from biaskit.calibration.state import Ledger, States, in_order
from biaskit.calibration.sums import Floats
from biaskit.errors import CalibrationError
from biaskit.families.checkpoints.ahead import default_workers
from biaskit.families.checkpoints.decoder import decoder_config
from biaskit.families.checkpoints.device import input_device
from biaskit.families.checkpoints.load import Loaded
from biaskit.families.checkpoints.wrap import as_loaded
from biaskit.files import uninterrupted
from biaskit.images import ImageSource, open_source
from biaskit.images.base import order
from biaskit.prior.layers import Layers, read_layers
from biaskit.prior.value import Prior, Rows
from biaskit.registry import named_arguments
from biaskit.text import differences

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
        source: images, or what `open_source` opens: a name or a path.
        out: where the prior goes. The state of an unfinished run is kept beside it as `OUT.partial`, and the same call resumes it;
            once it is finished, the same call returns what it wrote. Without `out` nothing is written.
        report: called after every batch. progress: show a bar with the rate and the time left, and skipped images; by default on a terminal
            and in a notebook, unless there is a `report`.
        samples: n; by default 1,000, or all images of a smaller source. seed: of their choice.
        prompts: a text or several, `task:NAME`, files with a prompt a line; cycled over the images, each in the model's chat template.
        layers: 0-based decoder layers (1, (1, 4), "0-7", "all"), or None for those the presets need.
        rows: whose attention: last (prompt token), question (mean of the text after the image), null (its first token).
        per_head: also keep each head's mean. groups: blocks of images whose means are kept, at most one an image.
        batch_size: images a forward pass; by default 8 on a GPU, 2 on a CPU. Results agree to about 1e-6 relative between sizes.
        workers: preprocessing processes; by default as the machine has cores to spare.
        max_skips: give up after this many unusable images; by default a quarter of n, at least 10.
        save_every: seconds between two writes of the state. force: overwrite `out`. restart: delete an unfinished state.

    Returns: the same bytes for the same inputs on the same stack, however often it was interrupted.

    Raises:
        BiaskitError: settings that cannot work, a source that runs dry, too many unusable images. The state is kept.

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
        images = open_source(source, n=options.samples)  # pictures that are generated are made in any number
    with reported(report, str(out or loaded.name), progress) as tell:
        return _Calibration(loaded, images, options, None if out is None else Path(out), tell).run()


class _Calibration:
    """One run: what it works on, what it has counted, where its state lies."""

    def __init__(self, loaded: Loaded, source: ImageSource, options: Options, out: Path | None, report: Report) -> None:
        self.loaded, self.source, self.options, self.out, self.report = loaded, source, options, out, report
        self.ranks = Ranks()
        self.config = loaded.model.config
        self.gpu = input_device(loaded.model).type != "cpu"
        stack = decoder_config(loaded.model)
        self.layers = options.layers_of(loaded)
        self.samples = options.samples_of(source)
        self.order = order(source, options.seed).tolist()
        self.max_skips = max(10, self.samples // 4) if options.max_skips is None else options.max_skips
        heads = int(stack.num_attention_heads) if options.per_head else None
        self.moments = Moments(self.samples, len(self.layers), loaded.family.canonical(self.config), heads, options.groups)
        self.ledger = Ledger()
        self.before, self.skipped_before, self.counted_before = set[Task](), 0, 0  # by runs that were interrupted
        self.counting = False  # a batch is half counted
        self.settings = all_settings(loaded, source, options, samples=self.samples, layers=self.layers)
        self.states = States(out, self.ranks.rank)

    def run(self) -> Prior:
        """Fill every slot, then write the prior and delete the state."""
        done = self.ranks.lead(self._begin)
        if isinstance(done, Prior):
            return done
        self.before, self.skipped_before, self.counted_before = done
        try:
            self._fill()
            prior = self._prior()
            self.ranks.lead(lambda: self._write(prior))
        except BaseException:
            if not self.counting:
                self.states.write(self.settings, self.ledger, self.moments)
            raise
        self.states.clear()
        return prior

    def _write(self, prior: Prior) -> None:
        if self.out is not None:
            prior.save(self.out, force=True)

    def _begin(self) -> Prior | tuple[set[Task], int, int]:
        """On the first process: load the state, of any number of processes; return the tasks, the number skipped and the number counted."""
        if self.out is not None and self.out.exists() and not self.options.force:
            return self._finished(self.out)
        if self.options.restart:
            self.states.clear()
        self.ledger = self.states.take(self.settings, self.moments)
        if self.ledger.aborted:
            self.ledger.retry(set(self._last_phase()))
        return self.ledger.done, len(self.ledger.skips), len(self.ledger.counted)

    def _finished(self, out: Path) -> Prior:
        """Return the prior on disk if this very run made it, and delete the rest of its state; else refuse."""
        prior = finished_prior(out, self.loaded.name, self.settings, exact=self.options.samples is not None)
        if all(not differences(found, self.settings) for found in self.states.settings()):
            self.states.clear()
        return prior

    def _last_phase(self) -> list[Task]:
        """Return the tasks of the last phase in which something was done: to skip less before it would change what followed."""
        phases, done = Phases(self.order, self.samples), self.ledger.done
        skipped = done - self.ledger.counted
        while True:
            tasks = phases.tasks
            phases.advance(skipped)
            if not done.intersection(phases.tasks):
                return tasks

    def _fill(self) -> None:
        """Go through the phases."""
        phases = Phases(self.order, self.samples)
        size = self.options.batch_size or (8 if self.gpu else 2)
        while phases.tasks:
            self._work(phases.shared(size, self.before, self.ranks.rank, self.ranks.count))
            skips = [skip for part in self.ranks.gather(self.ledger.skips) for skip in part]
            self._check_skips(skips)
            phases.advance({(skip.slot, skip.index) for skip in skips})
            if phases.empty and self.options.samples is not None:
                raise CalibrationError(
                    f"{self.source.name}: {self.samples} images wanted, {self.samples - phases.empty} of {len(self.order)} are usable",
                    "lower --samples, or give a larger source",
                )

    def _work(self, todo: list[tuple[Task, ...]]) -> None:
        """Do batches of tasks, and save the state every few seconds."""
        preprocessor = Preprocessor(
            self.source, self.loaded.family, self.loaded.processor, self.config, self.options.prompts, self.loaded.model.dtype
        )
        workers = default_workers(self.ranks.local_count, self.gpu) if self.options.workers is None else self.options.workers
        saved = time.monotonic()
        self.report(self._progress(()))
        batches = feed(preprocessor, todo, workers=workers, pin=input_device(self.loaded.model).type == "cuda")
        for batch, attention in attended(self.loaded.model, batches, self.layers, per_head=self.options.per_head, rows=self.options.rows):
            with uninterrupted():
                self.counting = True
                skipped = (*batch.skipped, *self._count(batch, attention))
                self.ledger.skips.extend(skipped)
                self.ledger.counted.update(set(batch.tasks) - {(skip.slot, skip.index) for skip in skipped})
                self.counting = False
            self.report(self._progress(skipped))
            self._check_skips(self.ledger.skips, 0 if self.ranks.main else self.skipped_before)
            if time.monotonic() - saved > self.options.save_every:
                self.states.write(self.settings, self.ledger, self.moments)
                saved = time.monotonic()

    def _count(self, batch: Batch, attention: Floats | None) -> list[Skip]:
        """Count the images of a batch, given its attention [L, B, (heads,) S]; return those whose attention is not finite, uncounted."""
        if batch.prepared is None or attention is None:
            return []
        indices, skipped = dict(batch.tasks), []
        for row, (slot, layout) in enumerate(zip(batch.slots, batch.prepared.layouts, strict=True)):
            values = attention[:, row][..., layout.positions]
            if np.isfinite(values).all():
                self.moments.add(slot, layout, values)
            else:
                bad = [str(layer) for layer, row_of in zip(self.layers, values, strict=True) if not np.isfinite(row_of).all()]
                reason = f"its attention is not finite at layer{'s' * (len(bad) > 1)} {', '.join(bad)} in {self.settings['dtype']}"
                skipped.append(Skip(slot, indices[slot], self.source.identify(indices[slot]), reason))
        return skipped

    def _progress(self, skipped: tuple[Skip, ...]) -> Progress:
        """Say how far all are, as if they were equally fast."""
        new = self.moments.count - (self.counted_before if self.ranks.main else 0)
        return Progress(min(self.samples, self.counted_before + new * self.ranks.count), self.samples, skipped)

    def _check_skips(self, skips: Sequence[Skip], more: int = 0) -> None:
        """Give up if there are too many skips: these, and `more` that were skipped before."""
        count = len(skips) + more
        if skips and count > self.max_skips:
            recent = skips[-1]
            self.ledger.aborted = True
            overflow = "use --dtype bfloat16 or float32, whose range is wider, or " if "is not finite" in recent.reason else ""
            raise CalibrationError(
                f"{count} images could not be used, the last one {recent.name}: {recent.reason}",
                f"{overflow}mend the source and run the same command again (they are tried once more), or allow more with --max-skips",
            )

    def _prior(self) -> Prior:
        """Put the counts of all processes together."""
        moments = self.moments.alike()
        for tensors in self.ranks.gather(self.moments.tensors()):
            moments.merge(self.moments.alike().restore(tensors))
        skipped = in_order([skip for part in self.ranks.gather(self.ledger.skips) for skip in part])
        if not moments.count:
            raise CalibrationError(f"none of the {len(self.source)} images of {self.source.name} is usable", "check the source")
        planes, mass = moments.stats()
        meta = provenance(self.settings) | {
            "kind": "calibrated",
            "reduction": "mean",
            "n_images": str(moments.count),
            "n_skipped": str(len(skipped)),
            "skipped": json.dumps([[skip.name, skip.reason] for skip in skipped]),
        }
        return Prior(planes, self.layers, mass, meta)
