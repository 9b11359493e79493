"""Arrays that are larger than memory, as files whose disk space is allocated before they are mapped."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from biaskit.files import check_target, unwritable


def memory_map(path: Path, dtype: DTypeLike, shape: tuple[int, ...], *, fresh: bool) -> np.memmap[Any, np.dtype[Any]]:
    """Open a `.npy` file as a writable memory map whose disk space is already allocated.

    A map of a sparse file kills the process (SIGBUS) when the disk fills up; here the space is allocated first.

    Args:
        path: of the file. dtype, shape: of the array. fresh: create the file; False opens the existing one.

    Raises:
        FileError: the disk is full, or the file cannot be written.

    Example:
        >>> from tempfile import mkdtemp
        >>> array = memory_map(Path(mkdtemp()) / "features.npy", "float16", (3, 4), fresh=True)
        >>> array[1] = 2
        >>> float(array.sum())
        8.0
    """
    check_target(path, force=True)
    try:
        array = np.lib.format.open_memmap(path, "w+" if fresh else "r+", np.dtype(dtype), shape)
        with path.open("rb+") as file:
            _allocate(file.fileno(), path.stat().st_size, array.offset if fresh else None)
    except OSError as error:
        if fresh:
            path.unlink(missing_ok=True)
        raise unwritable(path, error) from error
    return array


def _allocate(handle: int, size: int, zeros_from: int | None) -> None:
    """Allocate the disk space of a file of `size` bytes; where the system cannot, write zeros from an offset on (None: do nothing)."""
    try:
        os.posix_fallocate(handle, 0, size)
        return
    except AttributeError:  # no such call on this system
        pass
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    block, start = bytes(1 << 20), size if zeros_from is None else zeros_from
    os.lseek(handle, start, os.SEEK_SET)
    while start < size:
        start += os.write(handle, block[: size - start])
