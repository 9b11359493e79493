"""A calibration run, for any quantity: images → result. Resumable at any moment, on one process or several (torchrun)."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic

import numpy as np
from numpy.typing import NDArray

from biaskit.calibration.attend import attended
from biaskit.calibration.feed import Batch, Preprocessor, Skip, Task, feed
from biaskit.calibration.options import Options
from biaskit.calibration.phases import Phases
from biaskit.calibration.progress import Progress, Report
from biaskit.calibration.ranks import Ranks
from biaskit.calibration.settings import all_settings, provenance
from biaskit.calibration.state import Ledger, States, in_order
from biaskit.calibration.statistics import Quantity, R
from biaskit.errors import CalibrationError
from biaskit.families.checkpoints.ahead import default_workers
from biaskit.families.checkpoints.device import input_device
from biaskit.families.checkpoints.load import Loaded
from biaskit.files import uninterrupted
from biaskit.images import ImageSource
from biaskit.images.base import order
from biaskit.text import differences


class Calibration(Generic[R]):
    """One run: model and source, statistics so far, and state files."""

    def __init__(
        self, loaded: Loaded, source: ImageSource, options: Options, out: Path | None, report: Report, quantity: Quantity[R]
    ) -> None:
        self.loaded, self.source, self.options, self.out, self.report = loaded, source, options, out, report
        self.ranks, self.quantity = Ranks(), quantity
        self.config = loaded.model.config
        self.gpu = input_device(loaded.model).type != "cpu"
        self.samples = options.samples_of(source)
        self.order = order(source, options.seed).tolist()
        self.max_skips = max(10, self.samples // 4) if options.max_skips is None else options.max_skips
        self.counts = quantity.statistics(self.samples)
        self.ledger = Ledger()
        self.before, self.skipped_before, self.counted_before = set[Task](), 0, 0  # by earlier, interrupted runs
        self.counting = False  # True while a batch is only partly counted
        self.settings = {**all_settings(loaded, source, options, samples=self.samples, layers=quantity.layers), **quantity.settings}
        self.states = States(out, self.ranks.rank)

    def run(self) -> R:
        """Fill every slot, then write the result and delete the state."""
        done = self.ranks.lead(self._begin)
        if not isinstance(done, tuple):
            return done
        self.before, self.skipped_before, self.counted_before = done
        try:
            self._fill()
            result = self._result()
            self.ranks.lead(lambda: self._write(result))
        except BaseException:
            if not self.counting:
                self.states.write(self.settings, self.ledger, self.counts)
            raise
        self.states.clear()
        return result

    def _write(self, result: R) -> None:
        if self.out is not None:
            result.save(self.out, force=True)

    def _begin(self) -> R | tuple[set[Task], int, int]:
        """On the first process: load the state, of any number of processes; return the tasks, the number skipped and the number counted."""
        if self.out is not None and self.out.exists() and not self.options.force:
            return self._finished(self.out)
        if self.options.restart:
            self.states.clear()
        self.ledger = self.states.take(self.settings, self.counts)
        if self.ledger.aborted:
            self.ledger.retry(set(self._last_phase()))
        return self.ledger.done, len(self.ledger.skips), len(self.ledger.counted)

    def _finished(self, out: Path) -> R:
        """Return the result on disk if a run with these settings made it, and delete its state; else raise CalibrationError."""
        result = self.quantity.finished(out, self.loaded.name, self.settings)
        if all(not differences(found, self.settings) for found in self.states.settings()):
            self.states.clear()
        return result

    def _last_phase(self) -> list[Task]:
        """Return the tasks of the last phase with any done: retrying skips of earlier phases would change the later ones."""
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
        """Process batches of tasks, and save the state every few seconds."""
        preprocessor = Preprocessor(
            self.source, self.loaded.family, self.loaded.processor, self.config, self.options.prompts, self.loaded.model.dtype
        )
        workers = default_workers(self.ranks.local_count, self.gpu) if self.options.workers is None else self.options.workers
        saved = time.monotonic()
        self.report(self._progress(()))
        batches = feed(preprocessor, todo, workers=workers, pin=input_device(self.loaded.model).type == "cuda")
        for batch, attention in attended(self.loaded.model, batches, self.quantity.take):
            with uninterrupted():
                self.counting = True
                skipped = (*batch.skipped, *self._count(batch, attention))
                self.ledger.skips.extend(skipped)
                self.ledger.counted.update(set(batch.tasks) - {(skip.slot, skip.index) for skip in skipped})
                self.counting = False
            self.report(self._progress(skipped))
            self._check_skips(self.ledger.skips, 0 if self.ranks.main else self.skipped_before)
            if time.monotonic() - saved > self.options.save_every:
                self.states.write(self.settings, self.ledger, self.counts)
                saved = time.monotonic()

    def _count(self, batch: Batch, attention: NDArray[Any] | None) -> list[Skip]:
        """Count the images of a batch from its values [L, B, …, S]; return as skips those whose attention is not finite."""
        if batch.prepared is None or attention is None:
            return []
        indices, skipped = dict(batch.tasks), []
        for row, (slot, layout) in enumerate(zip(batch.slots, batch.prepared.layouts, strict=True)):
            values = attention[:, row][..., layout.positions]
            if np.isfinite(values).all():
                self.counts.add(slot, layout, values)
            else:
                bad = [str(layer) for layer, row_of in zip(self.quantity.layers, values, strict=True) if not np.isfinite(row_of).all()]
                reason = f"its attention is not finite at layer{'s' * (len(bad) > 1)} {', '.join(bad)} in {self.settings['dtype']}"
                skipped.append(Skip(slot, indices[slot], self.source.identify(indices[slot]), reason))
        return skipped

    def _progress(self, skipped: tuple[Skip, ...]) -> Progress:
        """Return the progress of all processes, estimated as if they were equally fast."""
        new = self.counts.count - (self.counted_before if self.ranks.main else 0)
        return Progress(min(self.samples, self.counted_before + new * self.ranks.count), self.samples, skipped)

    def _check_skips(self, skips: Sequence[Skip], more: int = 0) -> None:
        """Raise CalibrationError if there are too many skips: these, and `more` from before."""
        count = len(skips) + more
        if skips and count > self.max_skips:
            recent = skips[-1]
            self.ledger.aborted = True
            overflow = "use --dtype bfloat16 or float32, whose range is wider, or " if "is not finite" in recent.reason else ""
            raise CalibrationError(
                f"{count} images could not be used, the last one {recent.name}: {recent.reason}",
                f"{overflow}fix the source and run the same command again (they are tried once more), or allow more with --max-skips",
            )

    def _result(self) -> R:
        """Merge the statistics of all processes and return the result."""
        counted = self.counts.alike()
        for tensors in self.ranks.gather(self.counts.tensors()):
            counted.merge(self.counts.alike().restore(tensors))
        skipped = in_order([skip for part in self.ranks.gather(self.ledger.skips) for skip in part])
        if not counted.count:
            raise CalibrationError(f"none of the {len(self.source)} images of {self.source.name} is usable", "check the source")
        found = {"n_images": str(counted.count), "n_skipped": str(len(skipped))}
        found["skipped"] = json.dumps([[skip.name, skip.reason] for skip in skipped])
        return self.quantity.result(counted, provenance(self.settings) | found)
