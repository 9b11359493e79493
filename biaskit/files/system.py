"""Errors of the operating system as a FileError with a hint."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from biaskit.errors import FileError

_HINTS = {
    errno.ENOSPC: "free some space on that disk, and run the same command again",
    errno.EDQUOT: "free some space within your quota, and run the same command again",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or choose another disk",
    errno.EACCES: "check its permissions, or choose a place you may use",
    errno.EPERM: "check its permissions, or choose a place you may use",
    errno.EROFS: "that disk is read-only: choose another place",
    errno.EIO: "that disk fails: choose another one",
    errno.ESTALE: "the network share lost it: mount it again, and run the same command again",
    errno.ELOOP: "its links lead in a circle: name the file itself",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "check the name",
    errno.ENOTDIR: "one of the folders in that path is a file",
    errno.EISDIR: "it is a folder: name a file in it",
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n)",
    errno.ENFILE: "too many files are open on this machine: close some programs",
}
_ELSE = "check that path and the disk it is on"
_ROOM = "choose a folder you may write to, on a disk with free space"


def of_system(error: OSError) -> FileError:
    """Return an error of the system as a FileError: the path, the system's message, and a hint.

    >>> found = of_system(OSError(errno.ELOOP, "Too many levels of symbolic links", "a.json"))
    >>> print(found, "|", found.hint)
    a.json: Too many levels of symbolic links | its links lead in a circle: name the file itself
    """
    place = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes | os.PathLike) else "standard output or a file"
    return FileError(f"{place}: {error.strerror or error}", _HINTS.get(error.errno or 0, _ELSE))


def unwritable(path: Path, error: Exception) -> FileError:
    """Return the error of a file that could not be written."""
    return FileError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}", _ROOM)
