"""Device names, and the device that a model takes its inputs on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from biaskit.errors import ModelError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def input_device(model: PreTrainedModel) -> torch.device:
    """Return the device that a model's inputs go to: that of its text embedding.

    If accelerate dispatched the model, this is the embedding's execution device; its weights may be on the CPU or on disk.
    """
    import torch

    embeddings = model.get_input_embeddings()
    where = getattr(getattr(embeddings, "_hf_hook", None), "execution_device", None)
    if where is None:
        device: torch.device = embeddings.weight.device
        return device
    return torch.device("cuda", where) if isinstance(where, int) else torch.device(where)


def find_device(device: str) -> str:
    """Return the torch device for `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.

    Raises:
        ModelError: this machine does not have it.
    """
    import torch

    if device == "auto":
        cuda = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"  # torchrun gives each process its own GPU
        return cuda if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ModelError(f"unknown device {device!r}", "use auto, cpu, cuda, cuda:1, mps") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ModelError(
            f"device {device!r} is not there", f"this machine has {torch.cuda.device_count()} CUDA devices; use --device auto or cpu"
        )
    return device
