"""Several processes (torchrun): rank, number of processes, and exchange of small objects."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from biaskit.errors import BiaskitError, FileError
from biaskit.files import discard, is_left, machine, write_file

T = TypeVar("T")

_NOTE = re.compile(r"\.biaskit-torchrun\.(\d{1,10})\.([0-9a-f]{8})")
_LOGS = re.compile(r"torchelastic_\w+")
_PATIENCE = timedelta(days=7)  # to wait for a slower process; a lost one is noticed at once


class Ranks:
    """This process among those that torchrun started; without torchrun, a single process.

    They communicate over gloo, on the CPU, for every device of the model: the messages are small.

    Attributes:
        rank: 0 … count − 1. local_count: processes on this machine.

    Raises:
        BiaskitError: the others cannot be reached.

    >>> Ranks().gather("mine")
    ['mine']
    """

    def __init__(self) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self.local_count = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        self._group: Any = None
        if self.count > 1:
            import torch.distributed as dist

            if os.environ.get("LOCAL_RANK", "0") == "0":
                sweep_torchrun()
            with self._talking():
                if not dist.is_initialized():
                    dist.init_process_group("gloo", timeout=_PATIENCE)
                elif dist.get_backend() != "gloo":
                    self._group = dist.new_group(backend="gloo", timeout=_PATIENCE)

    @property
    def main(self) -> bool:
        """True if this process writes the result."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """Return every process's value, in rank order, on every process.

        Raises:
            BiaskitError: a process was lost.
        """
        if self.count == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.count
        with self._talking():
            dist.all_gather_object(values, value, group=self._group)
        return values

    def lead(self, act: Callable[[], T]) -> T:
        """Call `act` on the first process, and return its result on every process.

        Raises:
            BiaskitError: on every process, what `act` raised; or a process was lost.
        """
        if self.count == 1:
            return act()
        import torch.distributed as dist

        found: list[Any] = [None, None]
        if self.main:
            try:
                found[0] = act()
            except BiaskitError as error:
                found[1] = error
        with self._talking():
            dist.broadcast_object_list(found, src=0, group=self._group)
        if found[1] is not None:
            raise found[1]
        value: T = found[0]
        return value

    def wait(self) -> None:
        """Wait until every process has called this.

        Raises:
            BiaskitError: a process was lost.
        """
        self.gather(None)

    @contextmanager
    def _talking(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError, OSError) as error:
            line = (str(error).strip().splitlines() or [""])[0]
            raise BiaskitError(
                f"process {self.rank} of {self.count} has lost the others: {line}",
                "what was done is kept; the same command resumes, with any number of processes (torchrun --standalone finds a free port)",
            ) from error


def sweep_torchrun() -> None:
    """Remove the log folder that an earlier torchrun of ours left, and record the folder of this one.

    torchrun makes such a folder and never removes it. It is removed only if a record of an earlier process names it and that process's
    torchrun no longer runs on this machine.
    """
    folder = Path(tempfile.gettempdir())
    with suppress(OSError, FileError):
        for note in folder.glob(".biaskit-torchrun.*"):
            found = _NOTE.fullmatch(note.name)
            if found and _mine(note) and is_left(note, int(found[1]), found[2]):
                logs = folder / note.read_text(encoding="utf-8")
                if _LOGS.fullmatch(logs.name) and logs.parent == folder and _mine(logs):
                    discard(logs)
                discard(note)
        report = Path(os.environ.get("TORCHELASTIC_ERROR_FILE", ""))
        name = report.relative_to(folder).parts[0] if report.is_relative_to(folder) else ""
        if _LOGS.fullmatch(name):
            write_file(folder / f".biaskit-torchrun.{os.getppid()}.{machine()}", name, sync=False)


def _mine(path: Path) -> bool:
    return os.name == "posix" and not path.is_symlink() and path.lstat().st_uid == os.geteuid()
