"""Read a picture's file whole, if it is a regular file: reading a pipe or a device might never end."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

MAX_ENCODED = 256 << 20
"""Bytes of a picture's file. A picture of 64 megapixels without any compression, 32 bits each, just fits."""


def read_regular(path: Path, limit: int = MAX_ENCODED) -> bytes:
    """Return the bytes of a regular file of at most `limit` bytes; links are followed.

    Raises:
        OSError: it cannot be opened, is not a regular file, or is too large. The reason is in `strerror`.
    """
    with open_regular(path, limit) as (file, known):
        return file.read(known.st_size)  # a buffer of `limit` bytes would be made in full; what is appended meanwhile is not waited for


@contextmanager
def open_regular(path: Path, limit: int = MAX_ENCODED) -> Iterator[tuple[IO[bytes], os.stat_result]]:
    """Open a regular file of at most `limit` bytes for reading, with what the system knows of it.

    Raises:
        OSError: as `read_regular`.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
    with open(handle, "rb") as file:  # noqa: PTH123  (a descriptor: a FIFO opened the usual way waits for a writer)
        known = os.fstat(handle)
        if stat.S_ISDIR(known.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(known.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        if known.st_size > limit:
            raise OSError(errno.EFBIG, f"it has {known.st_size} bytes, over the limit of {limit}", str(path))
        yield file, known
