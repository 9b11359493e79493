"""Calibrate: images × model → Prior. Resumable at any moment, on one process or several (torchrun)."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

import torch
import transformers

from biaskit import __version__
from biaskit.calibration.attend import attended
from biaskit.calibration.feed import Preprocessor, Skip, Task, feed
from biaskit.calibration.moments import GROUPS, Moments
from biaskit.calibration.prompts import PROMPT
from biaskit.calibration.ranks import Ranks
from biaskit.calibration.state import Ledger, load_state, save_state
from biaskit.errors import CalibrationError
from biaskit.families.checkpoints.ahead import default_workers
from biaskit.families.checkpoints.decoder import check_layers, decoder_config
from biaskit.families.checkpoints.load import Loaded, load_model
from biaskit.files import uninterrupted
from biaskit.images import ImageSource, open_source
from biaskit.images.base import order
from biaskit.prior.value import Prior

SAMPLES = 1000


@dataclass(frozen=True)
class Progress:
    """How far a calibration is: images done on all processes, of how many, and what was skipped on this one since the last report."""

    done: int
    total: int
    skipped: tuple[Skip, ...] = ()


@dataclass(frozen=True)
class Options:
    """How to calibrate; see `calibrate`."""

    samples: int | None = None
    prompts: tuple[str, ...] = (PROMPT,)
    layers: tuple[int, ...] | str | None = None
    per_head: bool = False
    groups: int = GROUPS
    seed: int = 0
    batch_size: int | None = None
    workers: int | None = None
    max_skips: int | None = None
    save_every: float = 10.0
    force: bool = False
    restart: bool = False


def calibrate(
    model: Loaded | str,
    source: ImageSource | str = "coco",
    *,
    out: Path | str | None = None,
    report: Callable[[Progress], None] | None = None,
    **options: Any,
) -> Prior:
    """Average the last prompt token's attention over many images: the prior A_bias (D2Pruner, section 3).

    Args:
        model: a loaded checkpoint, or a name for `load_model`.
        source: images, or a name for `open_source`.
        out: where the prior goes. The state of an unfinished run is kept beside it as `OUT.partial`, and the same call goes on from it.
            Without `out` nothing is written.
        report: called after every batch.
        samples: n; by default 1,000, or all images of a smaller source.
        prompts: texts, cycled over the images, each wrapped in the model's chat template.
        layers: 0-based decoder layers, "all", or None for those the presets need.
        per_head: also keep each head's mean. groups: blocks of images whose means are kept, at most one an image.
        seed: of the choice of images.
        batch_size: images a forward pass; by default 8 on a GPU, 2 on a CPU. Results agree to about 1e-6 relative between sizes.
        workers: preprocessing processes; by default as the machine has cores to spare.
        save_every: seconds between two writes of the state.
        max_skips: give up after so many unusable images; by default a quarter of n, at least 10.
        force: overwrite `out`. restart: throw an unfinished state away.

    Returns:
        The prior, the same bytes for the same inputs on the same stack, however often it was interrupted.

    Raises:
        BiaskitError: settings that cannot work, a source that runs dry, too many unusable images. The state is kept.
    """
    chosen = Options(**options)
    loaded = load_model(model) if isinstance(model, str) else model
    images = open_source(source) if isinstance(source, str) else source
    return _Calibration(loaded, images, chosen, None if out is None else Path(out), report or (lambda progress: None)).run()


class _Calibration:
    """One run: what it works on, what it has counted, where its state lies."""

    def __init__(self, loaded: Loaded, source: ImageSource, options: Options, out: Path | None, report: Callable[[Progress], None]) -> None:
        self.loaded, self.source, self.options, self.out, self.report = loaded, source, options, out, report
        self.ranks = Ranks()
        self.config = loaded.model.config
        self.device = loaded.model.get_input_embeddings().weight.device
        stack = decoder_config(loaded.model)
        self.layers = _layers(options.layers, stack.num_hidden_layers, loaded)
        self.samples = _samples(options.samples, source)
        self.order = order(source, options.seed)
        self.max_skips = max(10, self.samples // 4) if options.max_skips is None else options.max_skips
        canonical = loaded.family.canonical(self.config)
        heads = int(stack.num_attention_heads) if options.per_head else None
        self.shape = (self.samples, len(self.layers), canonical, heads, options.groups)
        self.moments = Moments(*self.shape)
        self.ledger = Ledger()
        self.counting = False  # a batch is half counted
        self.settings = self._settings()
        self.state = None if out is None else out.with_name(f"{out.name}.partial{self.ranks.suffix}")

    def _settings(self) -> dict[str, Any]:
        """Everything the result depends on."""
        processor = self.loaded.processor
        template = json.dumps(getattr(processor, "chat_template", None), sort_keys=True)
        return {
            "version": __version__,
            "model": self.loaded.name,
            "revision": self.loaded.revision,
            "model_type": self.config.model_type,
            "prompt": list(self.options.prompts),
            "chat_template_sha256": hashlib.sha256(template.encode()).hexdigest(),
            "image_processor": type(processor.image_processor).__name__,
            "source": self.source.name,
            "source_fingerprint": self.source.fingerprint(),
            "n_images": self.samples,
            "seed": self.options.seed,
            "layers": list(self.layers),
            "per_head": self.options.per_head,
            "groups": self.options.groups,
            "dtype": str(self.loaded.model.dtype).removeprefix("torch."),
            "attention": decoder_config(self.loaded.model)._attn_implementation,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }

    def run(self) -> Prior:
        """Fill every slot, then write the prior and delete the state."""
        if self.out is not None and self.out.exists() and not self.options.force:
            return self._finished(self.out)
        self._restore()
        try:
            self._fill()
        except BaseException:
            if not self.counting:
                self._save()
            raise
        prior = self._prior()
        if self.out is not None and self.ranks.main:
            prior.save(self.out, force=True)
        self.ranks.wait()
        if self.state is not None:
            self.state.unlink(missing_ok=True)
        return prior

    def _finished(self, out: Path) -> Prior:
        """Return the prior on disk if it is this very run's, killed after writing it and before deleting the state; else refuse."""
        if self.state is not None and self.state.exists():
            load_state(self.state, self.settings, self.moments)
            prior = Prior.load(out)
            if prior.layers == self.layers and {**prior.meta, **self._provenance()} == dict(prior.meta):
                self.state.unlink()
                return prior
        raise CalibrationError(f"{out} exists", "choose another --out, or overwrite it with --force")

    def _restore(self) -> None:
        if self.state is None or self.out is None:
            return
        for name in (self.state.name, self.out.name):
            for stale in self.state.parent.glob(f".{escape(name)}.*.tmp"):  # left by a kill in the middle of a write
                stale.unlink(missing_ok=True)
        if self.options.restart:
            self.state.unlink(missing_ok=True)
        self.ledger = load_state(self.state, self.settings, self.moments) or self.ledger

    def _save(self) -> None:
        if self.state is not None:
            save_state(self.state, self.settings, self.ledger, self.moments)

    def _fill(self) -> None:
        """Go through the phases: all slots first, then the slots whose image was skipped with the next images of the order, and so on."""
        tasks = [(slot, int(self.order[slot])) for slot in range(self.samples)]
        cursor, phase = self.samples, 0
        while tasks:
            if phase == len(self.ledger.history):  # else it was finished before a restart
                if self.ledger.todo is None:
                    self.ledger.todo = tasks[self.ranks.rank :: self.ranks.count]
                self._work(self.ledger.todo)
                self.ledger.close_phase()
            empty = sorted(skip.slot for part in self.ranks.gather(self.ledger.history[phase]) for skip in part)
            spare = self.order[cursor : cursor + len(empty)].tolist()
            if len(spare) < len(empty) and self.options.samples is not None:
                usable = self.samples - len(empty) + len(spare)
                raise CalibrationError(
                    f"{self.source.name}: {self.samples} images wanted, {usable} of {len(self.order)} are usable",
                    "lower --samples, or give a larger source",
                )
            tasks = list(zip(empty, spare, strict=False))
            cursor += len(empty)
            phase += 1

    def _work(self, todo: list[Task]) -> None:
        """Do tasks, crossing them off, and save the state every few seconds."""
        gpu = self.device.type != "cpu"
        preprocessor = Preprocessor(
            self.source,
            self.loaded.family,
            self.loaded.processor,
            self.config,
            self.options.prompts,
            self.loaded.model.dtype,
            self.options.batch_size or (8 if gpu else 2),
        )
        workers = default_workers(self.ranks.local_count, gpu) if self.options.workers is None else self.options.workers
        saved = time.monotonic()
        self.report(self._progress(()))
        batches = feed(preprocessor, todo, workers=workers, pin=self.device.type == "cuda")
        for batch, attention in attended(self.loaded.model, batches, self.layers, per_head=self.options.per_head):
            with uninterrupted():
                self.counting = True
                if batch.prepared is not None and attention is not None:
                    for row, (slot, layout) in enumerate(zip(batch.slots, batch.prepared.layouts, strict=True)):
                        self.moments.add(slot, layout, attention[:, row][..., layout.positions])
                self.ledger.failed.extend(batch.skipped)
                del todo[: len(batch.tasks)]
                self.counting = False
            self.report(self._progress(batch.skipped))
            self._check_skips()
            if time.monotonic() - saved > self.options.save_every:
                self._save()
                saved = time.monotonic()

    def _progress(self, skipped: tuple[Skip, ...]) -> Progress:
        return Progress(min(self.samples, self.moments.count * self.ranks.count), self.samples, skipped)

    def _check_skips(self) -> None:
        count = self.ledger.n_skipped
        if count > self.max_skips:
            recent = self.ledger.failed[-1]
            self.ledger.aborted = True
            raise CalibrationError(
                f"{count} images could not be used, the last one {recent.name}: {recent.reason}",
                "mend the source and run the same command again (they are tried once more), or allow more with --max-skips",
            )

    def _provenance(self) -> dict[str, str]:
        """The settings as a prior's metadata has them."""
        names = ("layers", "per_head", "groups", "n_images")
        return {name: value if isinstance(value, str) else json.dumps(value) for name, value in self.settings.items() if name not in names}

    def _prior(self) -> Prior:
        """Put the counts of all processes together."""
        moments = self.moments
        skipped = self.ledger.skipped
        if self.ranks.count > 1:
            moments = Moments(*self.shape)
            for tensors in self.ranks.gather(self.moments.tensors()):
                moments.merge(Moments(*self.shape).restore(tensors))
            skipped = sorted((skip for part in self.ranks.gather(skipped) for skip in part), key=lambda skip: (skip.slot, skip.index))
        if not moments.count:
            raise CalibrationError(f"none of the {len(self.source)} images of {self.source.name} is usable", "check the source")
        planes, mass = moments.stats()
        meta = self._provenance() | {
            "kind": "calibrated",
            "reduction": "mean",
            "n_images": str(moments.count),
            "n_skipped": str(len(skipped)),
            "skipped": json.dumps([[skip.name, skip.reason] for skip in skipped]),
        }
        return Prior(planes, self.layers, mass, meta)


def _layers(wanted: tuple[int, ...] | str | None, depth: int, loaded: Loaded) -> tuple[int, ...]:
    if wanted is None:
        wanted = loaded.family.default_layers(loaded.model.config)
    elif isinstance(wanted, str):
        if wanted != "all":
            raise CalibrationError(f"layers {wanted!r}", 'give numbers from 0, or "all"')
        wanted = tuple(range(depth))
    return check_layers(wanted, depth)


def _samples(wanted: int | None, source: ImageSource) -> int:
    """Return n: as wanted, or 1,000 at most of a source."""
    if wanted is None:
        return min(SAMPLES, len(source))
    if not 1 <= wanted <= len(source):
        raise CalibrationError(f"{wanted} samples of a source with {len(source)} images", f"use --samples between 1 and {len(source)}")
    return wanted
