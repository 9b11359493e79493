"""Stores of COCO's image files: a directory, the released zip, or a server with a local cache."""

from __future__ import annotations

import hashlib
import lzma
import os
import struct
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from biaskit.errors import ImageSkipped, SourceError
from biaskit.files import existing, file_part
from biaskit.images.answer import MAX_BODY, NotServedError, TooLargeError
from biaskit.images.decode import decode, measure
from biaskit.images.download import THREADS, Downloader, replacing
from biaskit.images.regular import MAX_ENCODED, read_regular


@dataclass(frozen=True)
class CocoImage:
    """One record of the `images` list of an annotation file. Sizes are in pixels, None where the file has none."""

    id: int | str
    file_name: str
    width: int | None
    height: int | None
    coco_url: str | None


class Store(ABC):
    """Gives the encoded files of COCO images."""

    @abstractmethod
    def read(self, image: CocoImage) -> bytes:
        """Return the file. Raises ImageSkipped for this one image, SourceError if the whole store is not available."""

    @abstractmethod
    def holds_any(self, images: Iterable[CocoImage]) -> bool:
        """True if at least one of these images may be available."""

    def fetch(self, images: Iterable[CocoImage]) -> None:
        """Prepare these images; nothing for local files. Raises SourceError if the whole store is not available."""
        del images

    def discard(self, image: CocoImage) -> bool:
        """Delete a cached copy that is not a picture; True if there was one, so that reading again may help."""
        del image
        return False


class DirectoryStore(Store):
    """Files in a directory, under their `file_name` or its last part."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def _places(self, image: CocoImage) -> tuple[Path, Path]:
        return self.directory / image.file_name, self.directory / PurePosixPath(image.file_name).name

    def read(self, image: CocoImage) -> bytes:
        """Return the file."""
        for place in self._places(image):
            try:
                return read_regular(place)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise ImageSkipped(f"image {image.file_name!r} cannot be read: {error.strerror or type(error).__name__}") from error
        if not self.directory.is_dir():
            raise SourceError(f"image directory {str(self.directory)!r} is gone", "is a drive or a network share no longer mounted?")
        raise ImageSkipped(f"image {image.file_name!r} is missing")

    def holds_any(self, images: Iterable[CocoImage]) -> bool:
        """Tell whether at least one of the files exists."""
        return any((place := existing(path)) and place.is_file() for image in images for path in self._places(image))


DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError, struct.error, OverflowError, MemoryError)
"""What `zipfile` raises for a damaged zip. RuntimeError: an encrypted member. ValueError: a header that contradicts the directory."""


class ZipStore(Store):
    """Members of a zip file such as the released val2017.zip, which is never unpacked.

    Every process opens the file for itself: parent and child of a fork would
    otherwise share one file offset and read each other's bytes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: tuple[int, zipfile.ZipFile, dict[str, zipfile.ZipInfo | None]] | None = None
        self._open()  # a bad file shows here and not in the middle of a run

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the open file."""
        return {**self.__dict__, "_opened": None}

    def _open(self) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo | None]]:
        """Return this process's handle, and members by full name and by its last part (None: several have that)."""
        if self._opened is None or self._opened[0] != os.getpid():
            try:
                archive = zipfile.ZipFile(self.path)
            except (OSError, *DAMAGED_ZIP) as error:
                hint = "download the file again, or give the directory of the unpacked images"
                raise SourceError(f"cannot read image zip {str(self.path)!r}: {error}", hint) from error
            members: dict[str, zipfile.ZipInfo | None] = {}
            files = [info for info in archive.infolist() if not info.is_dir() and not info.filename.startswith("__MACOSX/")]
            for info in files:
                last = PurePosixPath(info.filename).name
                members[last] = None if last in members else info
            members.update((info.filename, info) for info in files)
            self._opened = (os.getpid(), archive, members)  # one assignment, so that threads see a consistent state
        return self._opened[1:]

    def _find(self, image: CocoImage) -> zipfile.ZipInfo:
        members = self._open()[1]
        for name in (image.file_name, PurePosixPath(image.file_name).name):
            if name in members:
                info = members[name]
                if info is None:
                    raise ImageSkipped(f"image {image.file_name!r}: {self.path.name} has several files of that name")
                return info
        raise ImageSkipped(f"image {image.file_name!r} is missing from {self.path.name}")

    def read(self, image: CocoImage) -> bytes:
        """Return the member, its checksum verified."""
        info = self._find(image)
        if info.file_size > MAX_ENCODED:
            raise ImageSkipped(f"image {image.file_name!r} would have {info.file_size} bytes: over the limit of {MAX_ENCODED}")
        try:
            return self._open()[0].read(info)
        except DAMAGED_ZIP as error:
            raise ImageSkipped(f"image {image.file_name!r} is damaged in {self.path.name}: {error}") from error
        except OSError as error:
            hint = "is a drive or a network share no longer mounted?"
            raise SourceError(f"cannot read image zip {str(self.path)!r}: {error.strerror or error}", hint) from error

    def holds_any(self, images: Iterable[CocoImage]) -> bool:
        """Tell whether at least one of the images is a member."""
        members = self._open()[1]
        return any(image.file_name in members or PurePosixPath(image.file_name).name in members for image in images)


class UrlStore(Store):
    """Files at each record's `coco_url`, with a cache directory.

    Only pictures enter the cache: downloads are decoded first, and compared with the size in the annotations if there is one.
    """

    def __init__(self, cache: Path, downloader: Downloader) -> None:
        self.cache = cache
        self.downloader = downloader

    def place(self, url: str) -> Path:
        """Return the cached file of an address, with a readable name that is unique per server and folder."""
        folder, _, name = url.partition("?")[0].rpartition("/")
        plain = file_part(name)
        if plain != name or "?" in url:
            plain = f"{_digest(url)}-{plain}"
        return self.cache / f"{file_part(folder.rpartition('/')[2])}-{_digest(folder)}" / plain

    def read(self, image: CocoImage) -> bytes:
        """Return the file from the cache, or download it into the cache first."""
        with suppress(OSError):  # not cached, or unreadable: download it
            if image.coco_url and (data := read_regular(self.place(image.coco_url), MAX_BODY)) and not _foreign(data, image):
                return data
        return self._download(image)

    def discard(self, image: CocoImage) -> bool:
        """Remove the image from the cache; return True if it was there."""
        try:
            self.place(image.coco_url or "").unlink()
        except OSError:
            return False
        return True

    def fetch(self, images: Iterable[CocoImage]) -> None:
        """Download the images that are not in the cache, several at a time."""
        wanted = {image.coco_url: image for image in images if image.coco_url}
        missing = [image for url, image in wanted.items() if not self.place(url).is_file()]
        if not missing:
            return
        pool = ThreadPoolExecutor(THREADS, thread_name_prefix="biaskit-coco")
        try:
            for done in as_completed([pool.submit(self._download, image) for image in missing]):
                with suppress(ImageSkipped):  # `read` raises it again for this image
                    done.result()
        finally:  # on Ctrl-C or a dead network: start no further download, and do not wait for those in progress
            pool.shutdown(wait=False, cancel_futures=True)

    def holds_any(self, images: Iterable[CocoImage]) -> bool:
        """Tell whether at least one image has an http(s) address."""
        return any(urlsplit(image.coco_url or "").scheme in ("http", "https") for image in images)

    def _download(self, image: CocoImage) -> bytes:
        url = image.coco_url
        if not url:
            raise ImageSkipped(f"image {image.file_name!r} has no coco_url to download it from")
        try:
            answer = self.downloader.get(url, limit=_most_bytes(image))
        except (NotServedError, TooLargeError) as error:
            raise ImageSkipped(f"image {image.file_name!r}: {error.message}") from error
        kind = answer.headers.get("Content-Type", "")
        if not answer.data or kind.startswith("text/html"):  # usually a login page
            raise ImageSkipped(f"image {image.file_name!r}: {url} answers with {kind if answer.data else 'nothing'}, no image")
        decode(answer.data, image.file_name)
        if reason := _foreign(answer.data, image):
            raise ImageSkipped(f"image {image.file_name!r}: {url} answers with {reason}")
        with replacing(self.place(url)) as file:
            file.write(answer.data)
        return answer.data


def _most_bytes(image: CocoImage) -> int:
    """Return how long the file of an image may be: 16 bits in four channels and a megabyte of metadata, for any format."""
    if not (image.width and image.height):
        return MAX_BODY
    return min(MAX_BODY, 8 * image.width * image.height + (1 << 20))


def _foreign(data: bytes, image: CocoImage) -> str:
    """Return why these bytes cannot be the picture in the annotations, judged by its header; "" if they can."""
    try:
        found = measure(data, image.file_name)
    except ImageSkipped as error:
        return error.message
    expected = (image.width or found.size[0], image.height or found.size[1])
    if expected in (found.size, found.stored):
        return ""
    return f"a picture of {found.size[0]}x{found.size[1]} pixels, where the annotations say {expected[0]}x{expected[1]}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
