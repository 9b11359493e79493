"""Everything that is written to disk goes through here: files are whole or not there, whenever a process is killed or a disk is full.

A file is written beside its target under a temporary name, forced to disk (fsync) and renamed over the target. A symbolic link is followed:
what it points to is replaced, the link stays. Targets that are no regular files (folders, devices, pipes, sockets) are refused. Temporaries
of processes that were killed are removed when a file is next written beside them.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import stat
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO

from biaskit.errors import FileError

VERSION = "0.1.0"
"""Of biaskit: what it writes and asks of servers says so."""

_OVERWRITE = "choose another name, or overwrite it with --force"
_ROOM = "choose a folder you may write to, on a disk with room"
_TEMPORARY = re.compile(r"\..*\.(\d{1,10})\.([0-9a-f]{8})[0-9a-f]{8}\.tmp", re.DOTALL)
_DAY, _PAUSE = 86_400.0, 60.0  # seconds: after one, another machine's temporary is a leftover; between two looks for leftovers in a folder
_KINDS = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"),
          (stat.S_ISBLK, "a device"))  # fmt: skip
_open_now: set[str] = set()
_looked: dict[str, float] = {}


def check_target(path: Path, force: bool = False) -> Path:
    """Return the file that writing to `path` replaces: itself, or what a symbolic link points to.

    Raises:
        FileError: it is no regular file, it exists and `force` is not set, or the path cannot be followed.

    Example:
        >>> check_target(Path("/no/such/folder/file.json")).name
        'file.json'
    """
    try:
        target = path.resolve() if path.is_symlink() else path
        mode = target.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return target
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a circle of links; ValueError: a NUL in the name
        raise unwritable(path, error) from None
    kind = next((words for test, words in _KINDS if test(mode)), "")
    if kind:
        hint = f"name a file in it: {path}/NAME{path.suffix or '.safetensors'}" if stat.S_ISDIR(mode) else "name a regular file"
        raise FileError(f"{path} is {kind}", hint)
    if not force:
        raise FileError(f"{path} exists", _OVERWRITE)
    return target


def check_writable(path: Path) -> None:
    """Find out before long work whether a file can be written at its end; makes its folder where needed.

    Raises:
        FileError: it is no regular file, or its folder cannot be made or written to.
    """
    target = check_target(path, force=True)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise unwritable(path, error) from None


@contextmanager
def replacing(path: Path, force: bool = True, sync: bool = True) -> Iterator[IO[bytes]]:
    """Give a binary file that takes the place of `path` when the block ends well, and vanishes when it does not.

    Args:
        path: of the target; its folder is made where needed. force: replace a file that exists.
        sync: force the data to disk before the rename, so that it also outlives a power failure; for many small files that can be made
            again, leave it out.

    Raises:
        FileError: the target is refused (`check_target`), or the disk is full, or the folder cannot be written to.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> with replacing(folder / "answer.txt") as file:
        ...     _ = file.write(b"42")
        ...     print([path.name for path in folder.iterdir() if path.suffix == ".txt"])
        []
        >>> (folder / "answer.txt").read_text()
        '42'
    """
    target = check_target(path, force)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _temporary(target) as temporary:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            temporary.replace(target)
        if sync:
            _sync_folder(target.parent)
    except OSError as error:
        raise unwritable(path, error) from error


def write_file(path: Path, data: bytes | str, force: bool = True, *, sync: bool = True) -> None:
    """Write a file in one step, making its folder where needed; text as UTF-8.

    Args:
        path, force, sync: as `replacing` takes them. data: all of it.

    Raises:
        FileError: as `replacing`.

    Example:
        >>> path = Path(tempfile.mkdtemp()) / "new" / "answer.txt"
        >>> write_file(path, "42")
        >>> path.read_bytes()
        b'42'
        >>> write_file(path, "43", force=False)
        Traceback (most recent call last):
        ...
        biaskit.errors.FileError: ...answer.txt exists...
    """
    with replacing(path, force, sync) as file:
        file.write(data.encode("utf-8") if isinstance(data, str) else data)


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Give a temporary folder whose files go into `folder`, each in one step, when the block ends well: for libraries that write files.

    Raises:
        FileError: `folder` is no folder, cannot be written to, or the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _temporary(folder / "stage") as stage:  # inside: beside it may be another disk, or a folder nobody may write to
            stage.mkdir()
            yield stage
            for file in sorted(found for found in stage.rglob("*") if found.is_file()):
                target = check_target(folder / file.relative_to(stage), force=True)
                target.parent.mkdir(parents=True, exist_ok=True)
                with file.open("rb+") as written:
                    os.fsync(written.fileno())
                file.replace(target)
        _sync_folder(folder)
    except OSError as error:
        raise unwritable(folder, error) from error


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
    with _temporary(Path(tempfile.gettempdir()) / "biaskit") as folder:
        folder.mkdir(mode=0o700)
        yield folder


@contextmanager
def _temporary(target: Path) -> Iterator[Path]:
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


def _sync_folder(folder: Path) -> None:
    """Force a rename to disk; not every file system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def unwritable(path: Path, error: Exception) -> FileError:
    """Return the error of a file that the system would not let us write."""
    return FileError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}", _ROOM)


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
