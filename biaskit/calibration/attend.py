"""Run the model on batches and record the values that a calibration counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from biaskit.calibration.feed import Batch, HostCopy
from biaskit.engine.recorder import query_rows
from biaskit.errors import CalibrationError
from biaskit.families import Prepared
from biaskit.families.checkpoints.device import input_device

Take = Callable[[PreTrainedModel, Prepared, Mapping[str, Tensor]], Tensor]
"""Called with the model, a prepared batch and its tensors on the model's device; runs the model and returns the values to count."""


def rows_of(prepared: Prepared, queries: str) -> NDArray[np.bool_]:
    """Return which rows of a batch's prompts are the queries: [B, S] bool, by `engine.recorder.query_rows`."""
    valid = prepared.inputs["attention_mask"].numpy().astype(bool)
    visual = np.zeros_like(valid)
    for number, layout in enumerate(prepared.layouts):
        visual[number, layout.positions] = True
    return query_rows(valid, visual, queries)


def attended(model: PreTrainedModel, batches: Iterable[Batch], take: Take) -> Iterator[tuple[Batch, NDArray[Any] | None]]:
    """Yield each batch with its recorded values, [L, B, …, S], or None if none of its images is usable.

    The model runs one batch ahead of the statistics, and values are copied from a GPU as soon as they are computed, so that the GPU does
    not wait for the host.

    Raises:
        CalibrationError: the GPU ran out of memory. ModelError: a prompt that ends with its image has no question.
    """
    waiting: tuple[Batch, HostCopy | None] | None = None
    for batch in batches:
        rows = None if batch.prepared is None else HostCopy(_attend(model, batch.prepared, take))
        if waiting is not None:
            yield waiting[0], None if waiting[1] is None else waiting[1].numpy()
        waiting = (batch, rows)
    if waiting is not None:
        yield waiting[0], None if waiting[1] is None else waiting[1].numpy()


@torch.inference_mode()
def _attend(model: PreTrainedModel, prepared: Prepared, take: Take) -> Tensor:
    device = input_device(model)
    moved = {name: value.to(device, non_blocking=True) for name, value in prepared.inputs.items()}
    try:
        return take(model, prepared, moved)
    except torch.OutOfMemoryError as error:
        raise CalibrationError("the GPU ran out of memory", "the state is kept; resume with a smaller --batch-size") from error
