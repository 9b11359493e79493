"""Files that are whole or not there."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from biaskit.errors import PriorError


def check_writable(path: Path) -> None:
    """Find out before long work whether a file can be written at its end; makes its folder where needed.

    Raises:
        PriorError: it is a folder, or its folder cannot be made or written to.
    """
    if path.is_dir():
        raise PriorError(f"{path} is a folder", f"name a file in it: {path / 'NAME.safetensors'}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise PriorError(f"{path} cannot be written: {error.strerror or error}", "choose a folder you may write to") from None


def write_file(path: Path, data: bytes, force: bool) -> None:
    """Write a file in one step (temporary file beside it, fsync, rename), making its folder where needed.

    Raises:
        PriorError: it exists and `force` is not set, or cannot be written.
    """
    if path.is_dir():
        raise PriorError(f"{path} is a folder", f"name a file in it: {path}/NAME{path.suffix or '.safetensors'}")
    if path.exists() and not force:
        raise PriorError(f"{path} exists", "choose another name, or overwrite it with --force (in Python: force=True)")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        why = error.strerror or error
        raise PriorError(f"{path} cannot be written: {why}", "choose a folder you may write to, on a disk with room") from None


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the block is done, so that an image is counted wholly or not at all."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    waiting: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: waiting.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if waiting:
        signal.raise_signal(signal.SIGINT)


def existing(path: str | os.PathLike[str]) -> Path | None:
    """Return the path if something is there, else None; for texts that may be a file's name, or anything else.

    A text that no file can be called by (over 255 bytes between two slashes, a NUL, half a surrogate pair) names nothing, and neither
    does what lies in a folder that may not be entered.

    >>> existing("a prompt, " * 100) is None
    True
    """
    try:
        found = Path(path)
        found.stat()
    except (OSError, ValueError):
        return None
    return found
