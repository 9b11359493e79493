"""Temporary files and folders whose names identify their process, so that those of killed processes can be removed."""

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
_DAY, _PAUSE = 86_400.0, 60.0  # seconds: age at which another machine's temporary is a leftover; time between two sweeps of a folder
_open_now: set[str] = set()
_looked: dict[str, float] = {}


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield a folder for temporary files of this process and its children; it is removed at the end.

    Its name has the process's number, so that the folder of a killed process is removed when the next one begins.

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
    """Yield an unused name beside `target`, which `sweep` skips; a file or folder of that name is removed at the end."""
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
    """Eight digits that identify the machine: on a shared disk, process numbers of other machines mean nothing."""
    import platform

    return f"{zlib.crc32(platform.node().encode()):08x}"


def sweep(folder: Path, pause: float = 0.0) -> None:
    """Remove temporary files of killed processes from a folder, unless that was done less than `pause` seconds ago.

    A temporary is a leftover if its process no longer runs on this machine, or if it is another machine's and a day old.
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
    """Whether it belongs to this user: those of other users are not removed."""
    return os.name != "posix" or entry.stat(follow_symlinks=False).st_uid == os.geteuid()


def is_left(path: Path, process: int, where: str) -> bool:
    """Whether a file of a process is a leftover: the process no longer runs; or it ran on another machine, and a day has passed."""
    if where != machine() or os.name != "posix":
        return time.time() - path.lstat().st_mtime > _DAY
    if process == os.getpid():  # a restarted container reuses the number
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass
    return False


def discard(path: Path) -> None:
    """Remove a file or folder; errors are ignored."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
