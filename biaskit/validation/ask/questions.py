"""Prepare questions for a model: each batch once, in advance if there are workers, for all cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL.Image import Image
from torch.utils.data import Dataset

from biaskit.device import cast_inputs
from biaskit.errors import BiaskitError, ImageSkipped
from biaskit.families import ModelFamily, Prepared
from biaskit.families.checkpoints.catalog import box_convention_of
from biaskit.families.downscale import Downscaler
from biaskit.grid import Layout
from biaskit.tasks.base import WHOLE, Part, Seen, Task
from biaskit.tasks.conventions import Wording


@dataclass(frozen=True, eq=False)
class QuestionBatch:
    """Questions that are prepared together; or the error of preparing them, which ends the run.

    Attributes:
        items: their indices in the task. prompts: their texts. seen: how the model sees each image. prepared: the model's inputs.
        whole: visual tokens of each unscaled image, if images were scaled down; else None.
        tiles: of each question, the patches of every tile that the vision tower sees; None where the family does not say.
    """

    items: tuple[int, ...]
    prompts: tuple[str, ...]
    seen: tuple[Seen, ...]
    prepared: Prepared | None
    error: BiaskitError | None = None
    whole: tuple[int, ...] | None = None
    tiles: tuple[tuple[int, ...], ...] | None = None

    def pin_memory(self) -> QuestionBatch:
        """Pin the tensors (called by the loader's pinning thread)."""
        return replace(self, prepared=None if self.prepared is None else self.prepared.pin_memory())


class Questions(Dataset[QuestionBatch]):
    """Batches of questions, by number; runs inside the workers.

    Args:
        task: the questions. family, processor, config: of the checkpoint. base: its short name, "" if it has none.
        wording: question templates.
        dtype: of pixel values. batches: indices of the questions of each batch.
    """

    def __init__(
        self,
        task: Task,
        family: ModelFamily,
        processor: Any,
        config: Any,
        base: str,
        wording: Wording,
        dtype: torch.dtype,
        batches: Sequence[Sequence[int]],
    ) -> None:
        self.task, self.family, self.processor, self.config = task, family, processor, config
        self.scaler = Downscaler(family, processor, config)
        self.base, self.wording, self.dtype, self.batches = base, wording, dtype, [tuple(items) for items in batches]

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.batches)

    def __getitem__(self, number: int) -> QuestionBatch:
        """Prepare one batch. Errors are returned in it, since exceptions lose their attributes between processes."""
        try:
            return self.prepare(self.batches[number])
        except BiaskitError as error:
            return QuestionBatch(self.batches[number], (), (), None, error)

    def prepare(self, items: Sequence[int], most: Sequence[int] | None = None) -> QuestionBatch:
        """Prepare some questions together.

        Args:
            most: largest number of visual tokens of each image, which is scaled down accordingly; None: no scaling.

        Raises:
            BiaskitError: an image is broken, the processor refuses it, or it cannot be made small enough. No question is skipped.
        """
        originals = images = [self.task.image(i) for i in items]
        whole = None
        if most is not None:
            whole = tuple(self.scaler.tokens(image.size) for image in images)
            images = [self._scaled(i, image, n) for i, image, n in zip(items, images, most, strict=True)]
        prompts = [self.task.prompt(i, self.wording) for i in items]
        try:
            made = self.family.prepare(self.processor, self.config, [[image] for image in images], prompts)
        except ImageSkipped as error:
            names = ", ".join(self.task.identify(i) for i in items)
            raise BiaskitError(f"{names}: {error.message}", "fix the image, or remove the question from the data") from error
        cast = cast_inputs(made.inputs, self.dtype)
        seen = [
            see(self.family, self.config, self.base, layout, (image.height, image.width))
            for layout, image in zip(made.layouts, originals, strict=True)
        ]
        return QuestionBatch(tuple(items), tuple(prompts), tuple(seen), Prepared(cast, made.layouts), whole=whole)

    def _scaled(self, item: int, image: Image, most: int) -> Image:
        """Scale the image of a question down; an error says which question it is, and how to go on."""
        try:
            return self.scaler.scaled(image, most)
        except BiaskitError as error:
            hint = f"{error.hint}; or start again without downscale, or without this question: answers so far are kept"
            raise BiaskitError(f"downscale, {self.task.identify(item)}: {error.message}", hint) from error


def see(family: ModelFamily, config: Any, base: str, layout: Layout, size: tuple[int, int]) -> Seen:
    """Return how a model sees an image of (rows, cols) pixels, from the layout of its visual tokens."""
    part: Part = WHOLE
    for plane in layout.planes:
        if plane.name == "image" and plane.box is not None:
            left, top, right, bottom = plane.box
            part = (top, left, bottom, right)
    return Seen(size, family.resized(config, layout), part, box_convention_of(family, base))
