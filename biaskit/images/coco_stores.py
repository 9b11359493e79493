"""Where the files of COCO images lie: in a directory, in the released zip, or on a server with a cache in front."""

from __future__ import annotations

import hashlib
import os
import re
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
from biaskit.images.download import THREADS, Downloader, NotServedError, replacing


@dataclass(frozen=True)
class CocoImage:
    """One record of the `images` list of an annotation file. Sizes are in pixels, None where the file has none."""

    id: int | str
    file_name: str
    width: int | None
    height: int | None
    coco_url: str | None


class Store(ABC):
    """Hands out the encoded files of COCO images."""

    @abstractmethod
    def read(self, image: CocoImage) -> bytes:
        """Return the file. Raises ImageSkipped for this one image, SourceError if the whole store is gone."""

    @abstractmethod
    def holds_any(self, images: Iterable[CocoImage]) -> bool:
        """Tell whether at least one of these images may be had."""

    def fetch(self, images: Iterable[CocoImage]) -> None:
        """Get these images ready; nothing to do for local files. Raises SourceError if the whole store is gone."""
        del images


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
                return place.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise ImageSkipped(f"image {image.file_name!r} cannot be read: {error.strerror or type(error).__name__}") from error
        if not self.directory.is_dir():
            raise SourceError(f"image directory {str(self.directory)!r} is gone", "is a drive or a network share no longer mounted?")
        raise ImageSkipped(f"image {image.file_name!r} is missing")

    def holds_any(self, images: Iterable[CocoImage]) -> bool:
        """Tell whether at least one of the files exists."""
        return any(place.is_file() for image in images for place in self._places(image))


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
        """Leave the open file behind."""
        return {**self.__dict__, "_opened": None}

    def _open(self) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo | None]]:
        """Return this process's handle, and members by full name and by last part of it (None: several share that)."""
        if self._opened is None or self._opened[0] != os.getpid():
            try:
                archive = zipfile.ZipFile(self.path)
            except (OSError, zipfile.BadZipFile) as error:
                hint = "download the file again, or give the directory of the unpacked images"
                raise SourceError(f"cannot read image zip {str(self.path)!r}: {error}", hint) from error
            members: dict[str, zipfile.ZipInfo | None] = {}
            files = [info for info in archive.infolist() if not info.is_dir() and not info.filename.startswith("__MACOSX/")]
            for info in files:
                last = PurePosixPath(info.filename).name
                members[last] = None if last in members else info
            members.update((info.filename, info) for info in files)
            self._opened = (os.getpid(), archive, members)  # one assignment: threads see all of it or nothing
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
        try:
            return self._open()[0].read(info)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:  # RuntimeError: encrypted
            raise ImageSkipped(f"image {image.file_name!r} is damaged in {self.path.name}: {error}") from error
        except OSError as error:
            hint = "is a drive or a network share no longer mounted?"
            raise SourceError(f"cannot read image zip {str(self.path)!r}: {error.strerror or error}", hint) from error

    def holds_any(self, images: Iterable[CocoImage]) -> bool:
        """Tell whether at least one of the images is a member."""
        members = self._open()[1]
        return any(image.file_name in members or PurePosixPath(image.file_name).name in members for image in images)


class UrlStore(Store):
    """Files behind each record's `coco_url`, kept in a cache directory: what is there is not fetched again."""

    def __init__(self, cache: Path, downloader: Downloader) -> None:
        self.cache = cache
        self.downloader = downloader

    def place(self, url: str) -> Path:
        """Return where the cache keeps the file of an address: the name stays readable, other servers and folders do not collide."""
        folder, _, name = url.partition("?")[0].rpartition("/")
        plain = _plain(name)
        if plain != name or "?" in url:
            plain = f"{_digest(url)}-{plain}"
        return self.cache / f"{_plain(folder.rpartition('/')[2])}-{_digest(folder)}" / plain

    def read(self, image: CocoImage) -> bytes:
        """Return the file from the cache, or download it into the cache first."""
        with suppress(OSError):  # not cached, or cached but unreadable: the network decides
            if image.coco_url and (data := self.place(image.coco_url).read_bytes()):
                return data
        return self._download(image)

    def fetch(self, images: Iterable[CocoImage]) -> None:
        """Download what the cache lacks, several at a time."""
        wanted = {image.coco_url: image for image in images if image.coco_url}
        missing = [image for url, image in wanted.items() if not self.place(url).is_file()]
        if not missing:
            return
        pool = ThreadPoolExecutor(THREADS, thread_name_prefix="biaskit-coco")
        try:
            for done in as_completed([pool.submit(self._download, image) for image in missing]):
                with suppress(ImageSkipped):  # told by `read`, to the one who asks for this image
                    done.result()
        finally:  # on Ctrl-C or a dead network: nothing new is begun, and nobody waits for the rest
            pool.shutdown(wait=False, cancel_futures=True)

    def holds_any(self, images: Iterable[CocoImage]) -> bool:
        """Tell whether at least one image has an http(s) address."""
        return any(urlsplit(image.coco_url or "").scheme in ("http", "https") for image in images)

    def _download(self, image: CocoImage) -> bytes:
        if not image.coco_url:
            raise ImageSkipped(f"image {image.file_name!r} has no coco_url to download it from")
        try:
            response = self.downloader.get(image.coco_url)
        except NotServedError as error:
            raise ImageSkipped(f"image {image.file_name!r}: {error.message}") from error
        kind = response.headers.get("Content-Type", "")
        if not response.data or kind.startswith("text/html"):  # must not settle in the cache: it may be a login page
            raise ImageSkipped(f"image {image.file_name!r}: {image.coco_url} answers with {kind if response.data else 'nothing'}, no image")
        with replacing(self.place(image.coco_url)) as file:
            file.write(response.data)
        return response.data


def _plain(name: str) -> str:
    """Return a name that is safe as one part of a path on every system."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".")[-100:] or "image"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
