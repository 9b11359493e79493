"""Run the model up to the last wanted layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from biaskit.calibration.feed import Batch, HostCopy
from biaskit.engine.attention import prefill, record_attention
from biaskit.engine.prompt_rows import record_rows
from biaskit.engine.recorder import query_rows
from biaskit.errors import CalibrationError
from biaskit.families import Prepared
from biaskit.families.checkpoints.device import input_device
from biaskit.prior.value import Rows


def attended(
    model: PreTrainedModel, batches: Iterable[Batch], layers: Sequence[int], *, per_head: bool, rows: Rows = "last"
) -> Iterator[tuple[Batch, NDArray[Any] | None]]:
    """Yield each batch with its attention rows [L, B, (heads,) S], or None if none of its images is usable.

    The rows are the last prompt token's, the mean of the question's (the text after the image), or the null row's (its first token).

    The model runs one batch ahead of the statistics, and rows are copied from a GPU as soon as they are computed: the GPU does not wait for
    the host.

    Raises:
        CalibrationError: the GPU ran out of memory. ModelError: a prompt that ends with its image has no question.
    """
    waiting: tuple[Batch, HostCopy | None] | None = None
    for batch in batches:
        made = None if batch.prepared is None else HostCopy(_attend(model, batch.prepared, layers, per_head=per_head, rows=rows))
        if waiting is not None:
            yield waiting[0], None if waiting[1] is None else waiting[1].numpy()
        waiting = (batch, made)
    if waiting is not None:
        yield waiting[0], None if waiting[1] is None else waiting[1].numpy()


@torch.inference_mode()
def _attend(model: PreTrainedModel, prepared: Prepared, layers: Sequence[int], *, per_head: bool, rows: Rows) -> Tensor:
    device = input_device(model)
    moved = {name: value.to(device, non_blocking=True) for name, value in prepared.inputs.items()}
    if rows == "last":
        recording = record_attention(model, layers, per_head=per_head, stop=True)
    else:
        valid = prepared.inputs["attention_mask"].numpy().astype(bool)
        visual = np.zeros_like(valid)
        for number, layout in enumerate(prepared.layouts):
            visual[number, layout.positions] = True
        recording = record_rows(model, layers, query_rows(valid, visual, rows), per_head=per_head)
    try:
        with recording as found:
            prefill(model, moved)
    except torch.OutOfMemoryError as error:
        raise CalibrationError("the GPU ran out of memory", "the state is kept; resume with a smaller --batch-size") from error
    return torch.stack([found[layer].to(found[layers[-1]].device) for layer in layers])
