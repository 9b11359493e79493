"""Models that are spread over several devices, the CPU and disk (accelerate)."""

from __future__ import annotations

import atexit
import os
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from biaskit.errors import ModelError
from biaskit.families.checkpoints.device import find_device
from biaskit.files import scratch

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    DeviceMap = str | Mapping[str, str | int | torch.device]
    """How to spread a model: one of accelerate's ways, or module → device (`cpu` and `disk` among them)."""

WAYS = ("auto", "balanced", "balanced_low_0", "sequential")
_kept = ExitStack()
atexit.register(_kept.close)


def check_device_map(device_map: DeviceMap, device: str) -> None:
    """Check a device map before anything is loaded.

    Raises:
        ModelError: an unknown name, a device this machine does not have, a device beside a map, or several processes (torchrun) that
            would each spread the model over all GPUs.

    >>> check_device_map("auto", "auto")
    >>> check_device_map({"": "cpu"}, "cuda")
    Traceback (most recent call last):
    ...
    biaskit.errors.ModelError: device 'cuda' besides a device map...
    """
    if device != "auto":
        raise ModelError(f"device {device!r} besides a device map", "leave one of --device and --device-map out")
    if isinstance(device_map, str):
        if device_map not in WAYS:
            raise ModelError(f"unknown device map {device_map!r}", f"use {', '.join(WAYS)}; in Python also a mapping of modules to devices")
        alone(f"device map {device_map!r}")
        return
    for where in device_map.values():
        if where != "disk":
            find_device(f"cuda:{where}" if isinstance(where, int) else str(where))


def check_names(model: PreTrainedModel, device_map: DeviceMap | None) -> None:
    """Refuse a map with names that the model does not have: accelerate would ignore them.

    Raises:
        ModelError: a name is neither a module nor a parameter.
    """
    known = {name for name, _ in (*model.named_modules(), *model.named_parameters())}
    unknown = [] if device_map is None or isinstance(device_map, str) else [name for name in device_map if name not in known]
    if unknown:
        parts = ", ".join(name for name, _ in model.base_model.named_children())
        raise ModelError(f"the model has no module {unknown[0]!r} for the device map", f"its parts are {parts}, with `model.` before each")


def alone(what: str) -> None:
    """Refuse to use all GPUs of a machine from each of several processes (torchrun). `what` begins the message.

    Raises:
        ModelError: there are several processes and GPUs.
    """
    import torch

    count = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if count > 1 and torch.cuda.device_count():
        raise ModelError(f"{what}: {count} processes would each spread the model over all GPUs", "use one process, or a device a process")


def offload_folder() -> str:
    """Return a folder for weights that are kept on disk; it is deleted when this process ends."""
    return str(_kept.enter_context(scratch()))


def weight(model: PreTrainedModel, name: str) -> torch.Tensor:
    """Return a parameter or buffer by name, from wherever it was offloaded to.

    Raises:
        ModelError: it has no values.
    """
    from accelerate.utils import align_module_device

    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    with align_module_device(module, "cpu"):
        value: Any = getattr(module, leaf)
    if value.is_meta:
        raise ModelError(f"{name} has no values: the model was made, not loaded", "load the checkpoint's weights first")
    found: torch.Tensor = value.detach()
    return found
