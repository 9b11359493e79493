"""Several processes (torchrun): who am I, how many are we, and gathering small objects."""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")


class Ranks:
    """This process among the processes that torchrun started; alone without it.

    Attributes:
        rank: 0 … count − 1. local_count: processes on this machine.
    """

    def __init__(self) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self.local_count = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if self.count > 1:
            import torch
            from accelerate import PartialState

            self._state = PartialState(cpu=not torch.cuda.is_available())

    @property
    def main(self) -> bool:
        """Tell whether this process writes the result."""
        return self.rank == 0

    @property
    def suffix(self) -> str:
        """Return what sets this process's files apart: empty when alone."""
        return "" if self.count == 1 else f".{self.rank}of{self.count}"

    def gather(self, value: T) -> list[T]:
        """Return every process's value, in rank order, on every process."""
        if self.count == 1:
            return [value]
        import torch.distributed as dist

        values: list[T | None] = [None] * self.count
        dist.all_gather_object(values, value)
        return [value for value in values if value is not None]

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.count > 1:
            self._state.wait_for_everyone()
