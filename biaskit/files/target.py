"""Which file a path means, whether it exists, and whether it may be overwritten."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from biaskit.errors import FileError
from biaskit.files.system import unwritable

_OVERWRITE = "choose another name, or overwrite it with --force"
_KINDS = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"),
          (stat.S_ISBLK, "a device"))  # fmt: skip


def check_target(path: Path, force: bool = False) -> Path:
    """Return the file that writing to `path` replaces: itself, or what a symbolic link points to.

    Raises:
        FileError: it is not a regular file, it exists and `force` is not set, or the path cannot be resolved.

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
    """Check before long work that a file can be written; creates its folder if missing.

    Raises:
        FileError: it is not a regular file, or its folder cannot be created or written to.
    """
    target = check_target(path, force=True)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise unwritable(path, error) from None


def existing(path: str | os.PathLike[str]) -> Path | None:
    """Return the path if it exists, else None; for texts that may or may not be the name of a file.

    A text that cannot be a file's name (over 255 bytes between two slashes, a NUL, half a surrogate pair) gives None, and so does a file
    in a folder without permission.

    >>> existing("a prompt, " * 100) is None
    True
    """
    try:
        found = Path(path)
        found.stat()
    except (OSError, ValueError):
        return None
    return found
