"""Temporary files and folders under names that say whose they are, so that what killed processes left is removed, and nothing else."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

_TEMPORARY = re.compile(r"\..*\.(\d{1,10})\.([0-9a-f]{8})[0-9a-f]{8}\.tmp", re.DOTALL)
_DAY, _PAUSE = 86_400.0, 60.0  # seconds: after one, another machine's temporary is a leftover; between two looks for leftovers in a folder
_open_now: set[str] = set()
_looked: dict[str, float] = {}


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a folder for what this process and its children put into the system's temporary folder; it is removed at the end.

    Its name holds the process's number, so that what a killed process left is removed when the next one begins.

    >>> with scratch() as folder:
    ...     print(folder.is_dir(), folder.parent == Path(tempfile.gettempdir()), str(os.getpid()) in folder.name)
    True True True
    >>> folder.exists()
    False
    """
    with temporary_beside(Path(tempfile.gettempdir()) / "biaskit") as folder:
        folder.mkdir(mode=0o700)
        yield folder


@contextmanager
def temporary_beside(target: Path) -> Iterator[Path]:
    """Give an unused name beside `target`, known as in use; what stands there at the end is removed."""
    sweep(target.parent, _PAUSE)
    temporary = target.with_name(f".{target.name[:40]}.{os.getpid()}.{machine()}{secrets.token_hex(4)}.tmp")
    _open_now.add(temporary.name)
    try:
        yield temporary
    finally:
        discard(temporary)
        _open_now.discard(temporary.name)


@cache
def machine() -> str:
    """Eight digits that tell machines apart: on a shared disk, process numbers mean nothing to another one."""
    import platform

    return f"{zlib.crc32(platform.node().encode()):08x}"


def sweep(folder: Path, pause: float = 0.0) -> None:
    """Remove what killed processes left half-written in a folder, unless that was done less than `pause` seconds ago.

    A temporary is a leftover if its process runs no more on this machine, or if it is another machine's and a day old.
    """
    now = time.monotonic()
    if now - _looked.get(str(folder), -_DAY) < pause:
        return
    _looked[str(folder)] = now
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = _TEMPORARY.fullmatch(entry.name)
            if found and entry.name not in _open_now and _is_mine(entry) and is_left(Path(entry.path), int(found[1]), found[2]):
                discard(Path(entry.path))


def _is_mine(entry: os.DirEntry[str]) -> bool:
    """Tell whether it belongs to this user: what others left is theirs to remove."""
    return os.name != "posix" or entry.stat(follow_symlinks=False).st_uid == os.geteuid()


def is_left(path: Path, process: int, where: str) -> bool:
    """Tell whether what a process made on a machine is a leftover: it runs no more; or the machine is another one, and a day has passed."""
    if where != machine() or os.name != "posix":
        return time.time() - path.lstat().st_mtime > _DAY
    if process == os.getpid():  # a restarted container gives the same number again
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass
    return False


def discard(path: Path) -> None:
    """Remove a file or folder that nobody needs any more, as far as that is possible."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
