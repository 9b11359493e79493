"""Decode and preprocess images ahead of the model, in worker processes with bounded memory; run the model over the batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import Dataset

from biaskit.device import cast_inputs
from biaskit.errors import BiaskitError, CalibrationError, ImageSkipped
from biaskit.families import ModelFamily, Prepared
from biaskit.families.checkpoints.ahead import ahead
from biaskit.images.base import ImageSource

Task = tuple[int, int]
"""(slot, index): image number of the calibration, and which image of the source fills it."""


@dataclass(frozen=True)
class Skip:
    """An image that could not be used."""

    slot: int
    index: int
    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class Batch:
    """The result of some tasks: usable images prepared for the model, the others with reasons; or an error that ends the calibration."""

    tasks: tuple[Task, ...]
    slots: tuple[int, ...]
    prepared: Prepared | None
    skipped: tuple[Skip, ...]
    error: BiaskitError | None = None

    def pin_memory(self) -> Batch:
        """Pin the tensors (called by the loader's pinning thread)."""
        prepared = None if self.prepared is None else self.prepared.pin_memory()
        return replace(self, prepared=prepared)


class Preprocessor(Dataset[Batch]):
    """Batches of tasks, by number; runs inside the workers.

    Args:
        source: the images. family, processor, config: of the checkpoint.
        prompts: cycled over the slots. dtype: pixel values are cast to it.
    """

    def __init__(
        self,
        source: ImageSource,
        family: ModelFamily,
        processor: Any,
        config: Any,
        prompts: Sequence[str],
        dtype: torch.dtype,
    ) -> None:
        self.source, self.family, self.processor, self.config = source, family, processor, config
        self.prompts, self.dtype = tuple(prompts), dtype
        self.batches: tuple[tuple[Task, ...], ...] = ()

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.batches)

    def __getitem__(self, number: int) -> Batch:
        """Prepare one batch. Errors of the whole source are returned in it, since exceptions lose their attributes between processes."""
        tasks = self.batches[number]
        try:
            return self._batch(tasks)
        except BiaskitError as error:
            return Batch(tasks, (), None, (), error)

    def _batch(self, tasks: tuple[Task, ...]) -> Batch:
        self.source.fetch([index for _, index in tasks])
        images: dict[Task, Image] = {}
        skipped = []
        for task in tasks:
            try:
                images[task] = self.source.load(task[1])
            except ImageSkipped as error:
                skipped.append(self._skip(task, error))
        prepared = self._prepare(images, skipped)
        return Batch(tasks, tuple(slot for slot, _ in images), prepared, tuple(sorted(skipped, key=lambda skip: skip.slot)))

    def _skip(self, task: Task, error: ImageSkipped) -> Skip:
        return Skip(*task, self.source.identify(task[1]), error.message.splitlines()[0])

    def _together(self, images: dict[Task, Image]) -> Prepared:
        prompts = [self.prompts[slot % len(self.prompts)] for slot, _ in images]
        made = self.family.prepare(self.processor, self.config, [[image] for image in images.values()], prompts)
        return Prepared(cast_inputs(made.inputs, self.dtype), made.layouts)

    def _prepare(self, images: dict[Task, Image], skipped: list[Skip]) -> Prepared | None:
        """Prepare the images together; if the processor refuses, find the image that it refuses, and drop it from `images`."""
        try:
            return self._together(images) if images else None
        except ImageSkipped as error:
            if len(images) == 1:
                skipped.append(self._skip(next(iter(images)), error))
                images.clear()
                return None
        for task in list(images):
            try:
                self._together({task: images[task]})
            except ImageSkipped as error:
                skipped.append(self._skip(task, error))
                del images[task]
        return self._together(images) if images else None


def feed(preprocessor: Preprocessor, batches: Sequence[tuple[Task, ...]], *, workers: int, pin: bool) -> Iterator[Batch]:
    """Yield the batches in order, prepared, as `ahead` does.

    Args:
        preprocessor: makes the batches. batches: the tasks of each.

    Raises:
        BiaskitError: the source as a whole failed.
        CalibrationError: the workers were killed, or ran out of shared memory.
    """
    preprocessor.batches = tuple(batches)
    return ahead(preprocessor, workers=workers, pin=pin, error=CalibrationError)


class HostCopy:
    """An asynchronous copy of a tensor to the host, started at once: started later it would wait for kernels launched in between."""

    def __init__(self, rows: Tensor) -> None:
        self.host, self.event = rows, None
        if rows.is_cuda:
            self.host = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True).copy_(rows, non_blocking=True)
            self.event = torch.cuda.Event()
            self.event.record(torch.cuda.current_stream(rows.device))

    def numpy(self) -> NDArray[Any]:
        """Wait for the copy, and return it as an array."""
        if self.event is not None:
            self.event.synchronize()
        array: NDArray[Any] = self.host.numpy()
        return array
