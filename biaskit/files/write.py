"""Files written completely or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from biaskit.files.leftovers import temporary_beside
from biaskit.files.system import unwritable
from biaskit.files.target import check_target


@contextmanager
def replacing(path: Path, force: bool = True, sync: bool = True) -> Iterator[IO[bytes]]:
    """Yield a binary file that replaces `path` when the block ends without an error, and is removed otherwise.

    Args:
        path: of the target; its folder is created if missing. force: replace a file that exists.
        sync: force the data to disk before the rename, so that it survives a power failure; False for many small files that can be
            created again.

    Raises:
        FileError: the target is refused (`check_target`), or the disk is full, or the folder cannot be written to.

    Example:
        >>> import tempfile
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
        with temporary_beside(target) as temporary:
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
    """Write a file atomically, creating its folder if missing; text as UTF-8.

    Args:
        path, force, sync: as for `replacing`. data: the whole contents.

    Raises:
        FileError: as `replacing`.

    Example:
        >>> import tempfile
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
    """Yield a temporary folder whose files are moved into `folder` when the block ends without an error: for libraries that write files.

    Raises:
        FileError: `folder` is not a folder, cannot be written to, or the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary_beside(folder / "stage") as stage:  # inside: beside it may be another disk, or a read-only folder
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


def _sync_folder(folder: Path) -> None:
    """Force a rename to disk; not every file system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
