"""To a device and back, waiting for it as rarely as possible.

A copy from ordinary memory waits until the device has done all that it was told, and so does every look at a number that is there. Here
copies go through page-locked memory, and several results come back together, for one host-device synchronisation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_pretend = False  # tests: take the ways of a device, on the CPU


def on_device(x: Tensor) -> bool:
    """Tell whether work on a tensor is queued on a device, so that looking at it means waiting."""
    return x.is_cuda or _pretend


def upload(values: NDArray[Any] | Tensor, device: torch.device) -> Tensor:
    """Copy from the host to a device without waiting for it."""
    source = values if isinstance(values, Tensor) else torch.from_numpy(np.ascontiguousarray(values))
    if device.type == "cuda" and source.device.type == "cpu":
        source = source.pin_memory()
    return _sent(source, device)


def _sent(source: Tensor, device: torch.device) -> Tensor:
    return source.to(device, non_blocking=True)


class Fetch:
    """Results on their way from a device to the host. Starting does not wait; reading waits for them, not for what was queued later."""

    def __init__(self, *results: Tensor) -> None:
        """Start to copy."""
        self._done: list[torch.cuda.Event] = []
        self._found = [self._started(part) for part in results]
        for device in {part.device for part in results if part.is_cuda}:
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(device))
            self._done.append(event)

    def _started(self, part: Tensor) -> Tensor:
        if not part.is_cuda:
            return part
        found = torch.empty(part.shape, dtype=part.dtype, device="cpu", pin_memory=True)
        return found.copy_(part, non_blocking=True)

    def read(self) -> list[NDArray[Any]]:
        """Wait, and return the results."""
        for event in self._done:
            event.synchronize()
        self._done = []
        return [part.detach().numpy() for part in self._found]


def fetch(results: Sequence[Tensor]) -> list[NDArray[Any]]:
    """Wait for several results at once and return them."""
    return Fetch(*results).read()


def active(device: torch.device) -> AbstractContextManager[Any]:
    """Make a device the one that kernels are launched on."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


Look = Callable[[NDArray[Any]], None]
"""Looks at numbers and raises an error if it does not like them."""


_held: ContextVar[list[tuple[Tensor, Look]] | None] = ContextVar("held", default=None)  # checks to be made with the next results


@contextmanager
def deferred() -> Iterator[None]:
    """Put off checks of numbers on a device until results are read by `settle`, in the same wait; what is left is read at the end."""
    if _held.get() is not None:
        yield
        return
    token = _held.set([])
    try:
        yield
        if _held.get():
            settle(())
    finally:
        _held.reset(token)


def expect(numbers: Tensor, look: Look) -> None:
    """Have numbers of a device looked at, now or with the next results: see `deferred`."""
    held = _held.get()
    if held is None:
        look(fetch([numbers])[0])
    else:
        held.append((numbers, look))


def settle(results: Sequence[Tensor]) -> list[NDArray[Any]]:
    """Return results of a device, for one synchronisation, and make the checks that were put off; they raise their errors."""
    held = _held.get() or []
    checks = list(held)
    held.clear()
    found = fetch([*results, *(numbers for numbers, _ in checks)])
    token = _held.set(None)  # whoever looks may look closer, at once
    try:
        for (_, look), numbers in zip(checks, found[len(results) :], strict=True):
            look(numbers)
    finally:
        _held.reset(token)
    return found[: len(results)]
