"""Copies to a device and back with as few synchronisations as possible.

A copy from pageable memory synchronises with the device, and so does reading a number from it. Here copies go through page-locked memory,
and several results come back together, for one host-device synchronisation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_pretend = False  # tests: take the device's code paths on the CPU


def on_device(x: Tensor) -> bool:
    """Whether work on a tensor is queued on a device, so that reading it synchronises."""
    return x.is_cuda or _pretend


def cast_inputs(inputs: Mapping[str, Tensor], dtype: torch.dtype, device: torch.device | None = None) -> dict[str, Tensor]:
    """Return a processor's output with its pixels in a dtype, and all of it on a device; None leaves it where it is.

    >>> inputs = {"pixel_values": torch.ones(1), "input_ids": torch.tensor([1])}
    >>> {name: part.dtype for name, part in cast_inputs(inputs, torch.half).items()}
    {'pixel_values': torch.float16, 'input_ids': torch.int64}
    """
    return {name: part.to(device or part.device, dtype if part.is_floating_point() else part.dtype) for name, part in inputs.items()}


def upload(values: NDArray[Any] | Tensor, device: torch.device) -> Tensor:
    """Copy from the host to a device without waiting for it."""
    source = values if isinstance(values, Tensor) else torch.from_numpy(np.ascontiguousarray(values))
    if device.type == "cuda" and source.device.type == "cpu":
        source = source.pin_memory()
    return _sent(source, device)


def _sent(source: Tensor, device: torch.device) -> Tensor:
    return source.to(device, non_blocking=True)


class Fetch:
    """An asynchronous copy of results to the host. Starting does not wait; reading waits for them, not for work queued later."""

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
    """Make a device the current one inside the block."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


Look = Callable[[NDArray[Any]], None]
"""A check of numbers; raises an error if they are invalid."""


_held: ContextVar[list[tuple[Tensor, Look]] | None] = ContextVar("held", default=None)  # checks to be made with the next results


@contextmanager
def deferred() -> Iterator[None]:
    """Postpone checks of numbers on a device until `settle` reads results, in the same synchronisation; the rest are made at the end."""
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
    """Check numbers of a device, now or with the next results: see `deferred`."""
    held = _held.get()
    if held is None:
        look(fetch([numbers])[0])
    else:
        held.append((numbers, look))


def settle(results: Sequence[Tensor]) -> list[NDArray[Any]]:
    """Return results of a device with one synchronisation, and make the postponed checks; they raise their errors."""
    held = _held.get() or []
    checks = list(held)
    held.clear()
    found = fetch([*results, *(numbers for numbers, _ in checks)])
    token = _held.set(None)  # a check may make further checks, at once
    try:
        for (_, look), numbers in zip(checks, found[len(results) :], strict=True):
            look(numbers)
    finally:
        _held.reset(token)
    return found[: len(results)]
