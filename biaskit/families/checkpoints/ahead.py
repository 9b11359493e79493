"""Batches prepared ahead of the model, in workers."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from multiprocessing.queues import Queue
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

from torch.utils.data import DataLoader, Dataset

from biaskit.errors import BiaskitError
from biaskit.files import discard, scratch


def default_workers(local_processes: int, gpu: bool) -> int:
    """Return how many cores to spend on preprocessing: half of them beside a GPU, one beside a model on the CPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(16, cores // (2 * local_processes))) if gpu else 1


_SOCKET_PATH = 60  # bytes: the system takes 107 for a socket's path, and multiprocessing adds its own names to the folder's


def _unless_parent_left(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback, unless the main process was interrupted while it received a batch: it reports that itself."""
    if not isinstance(error, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


def _leave(error: BaseException, item: object) -> None:
    """End a worker whose batch cannot be sent, because shared memory is full for example: the main process would wait for it endlessly."""
    try:
        print(f"a batch cannot be sent to the main process: {error}", file=sys.stderr, flush=True)  # noqa: T201
    finally:  # also where standard error is on the same full disk
        os._exit(1)


def _depend(worker: int, *, parent: int, folder: Path) -> None:
    """Set up a worker: ignore Ctrl-C, and exit when the main process ends, also while it waits to send a batch.

    Args:
        parent: process id of the main process. folder: for temporary files, among them the sockets that tensors are sent through.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = _unless_parent_left
    Queue._on_queue_feeder_error = staticmethod(_leave)  # type: ignore[attr-defined]
    if len(os.fsencode(folder)) <= _SOCKET_PATH:
        tempfile.tempdir = str(folder)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        discard(folder)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _unchanged(batch: Any) -> Any:
    return batch


class Ready(Protocol):
    """An item of a dataset for `ahead`. Errors travel as data, since exceptions lose attributes on the way between processes."""

    @property
    def error(self) -> BiaskitError | None:
        """The error that ends the iteration, or None."""


R = TypeVar("R", bound=Ready)


def ahead(dataset: Dataset[R], *, workers: int, pin: bool, error: type[BiaskitError] = BiaskitError) -> Iterator[R]:
    """Yield the items of a dataset in order. At most two items a worker wait in memory.

    Args:
        workers: processes that run ahead of the model; 0 prepares in this process.
        pin: put the tensors into pinned memory. error: raised when the workers die.

    Raises:
        BiaskitError: an item has an error.
        error: the workers were killed, or ran out of shared memory.
    """
    more: dict[str, Any] = {"prefetch_factor": 2, "multiprocessing_context": "fork" if sys.platform == "linux" else "spawn"}
    try:
        with scratch() if workers else nullcontext(Path()) as folder:
            with warnings.catch_warnings():  # how many workers is the user's choice
                warnings.filterwarnings("ignore", message="This DataLoader will create")
                loader: Iterable[R] = DataLoader(
                    dataset,
                    batch_size=None,
                    num_workers=workers,
                    collate_fn=_unchanged,
                    pin_memory=pin,
                    worker_init_fn=partial(_depend, parent=os.getpid(), folder=folder),
                    **(more if workers else {}),
                )
            items = iter(loader)
            try:
                for item in items:
                    if item.error is not None:
                        raise item.error
                    yield item
            finally:  # at once, even if a traceback still references the iterator: workers clean up in the folder
                getattr(items, "_shutdown_workers", int)()
    except RuntimeError as found:
        if "DataLoader worker" not in str(found):
            raise
        raise error(
            f"the preprocessing workers died: {str(found).splitlines()[0]}",
            "the state is kept; go on with fewer --workers or a smaller --batch-size (0 workers use no shared memory)",
        ) from found
