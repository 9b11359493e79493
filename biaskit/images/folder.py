"""Any directory of image files."""

from __future__ import annotations

import os
from pathlib import Path

from biaskit.errors import ImageSkipped, SourceError
from biaskit.images.base import ImageSource
from biaskit.images.regular import read_regular

_KINDS = ("avif", "bmp", "dib", "gif", "jfif", "jp2", "jpe", "jpeg", "jpg", "pbm", "pgm", "png", "pnm", "ppm", "tga", "tif", "tiff", "webp")
SUFFIXES = frozenset(f".{kind}" for kind in _KINDS)


class FolderSource(ImageSource):
    """All image files under a directory, recursively, sorted by relative path.

    Files are recognised by suffix, in upper or lower case. Links are followed; hidden files and directories (.NAME) are left out.

    Raises:
        SourceError: no such directory, or no image file in it.
    """

    name = "folder"

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory).expanduser()
        if not self.directory.is_dir():
            raise SourceError(f"image folder {str(directory)!r} is not a directory", "give an existing directory of image files")
        self.files = sorted(_walk(self.directory))
        if not self.files:
            raise SourceError(
                f"image folder {str(directory)!r} holds no image file",
                f"put images into it or choose another one; files count by suffix: {', '.join(sorted(SUFFIXES))}",
            )

    def __len__(self) -> int:
        """Return the number of image files."""
        return len(self.files)

    def identify(self, index: int) -> str:
        """Return the path relative to the directory, with forward slashes."""
        return self.files[index]

    def open(self, index: int) -> bytes:
        """Return the file.

        Raises:
            ImageSkipped: this file cannot be read.
            SourceError: the whole directory does not exist any more.
        """
        try:
            return read_regular(self.directory / self.files[index])
        except OSError as error:
            if not self.directory.is_dir():
                hint = "is a drive or a network share no longer mounted?"
                raise SourceError(f"image folder {str(self.directory)!r} is gone", hint) from error
            raise ImageSkipped(f"image {self.files[index]!r} cannot be read: {error.strerror or type(error).__name__}") from error


def _walk(directory: Path) -> list[str]:
    """Return the relative paths of all image files, unsorted."""
    found = []
    seen = set()  # of real directories: a link to a parent would otherwise be followed endlessly
    for folder, folders, files in os.walk(directory, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        # os.walk goes by this very list; sorted, so that of two links to one directory the same one is kept everywhere
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        kept = [name for name in files if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES]
        found += [(Path(folder) / name).relative_to(directory).as_posix() for name in kept]
    return found
