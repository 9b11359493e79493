"""COCO images: the list through pycocotools, the files from a directory, the released zip, or the network."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, TextIO, cast

from biaskit.errors import SourceError
from biaskit.images.base import ImageSource
from biaskit.images.coco_files import COCO_URL, cache_directory, fetch_annotations, find_coco
from biaskit.images.coco_stores import CocoImage, DirectoryStore, Store, UrlStore, ZipStore
from biaskit.images.download import LOCAL_COPY, Downloader


class CocoSource(ImageSource):
    """The images of a COCO annotation file, in order of file name.

    Args:
        annotations: an `instances_*.json` or any other file that pycocotools reads.
        images: a directory or a zip with the image files; None streams each image from its `coco_url`.
        cache: where streamed images are kept; default `coco_files.cache_directory()`.
        downloader: makes the requests when streaming.

    Attributes:
        annotations: the annotation file.
        records: what it says of each image, in the order of the source.

    Raises:
        SourceError: the annotations cannot be read, or none of the images can be had.
    """

    name = "coco"

    def __init__(
        self,
        annotations: str | os.PathLike[str],
        images: str | os.PathLike[str] | None = None,
        cache: str | os.PathLike[str] | None = None,
        downloader: Downloader | None = None,
    ) -> None:
        self.annotations = Path(annotations).expanduser()
        self.records = _records(self.annotations)
        self._store = _store(images, cache, downloader)
        if not self._store.holds_any(self.records):
            where = f"is in {str(images)!r}" if images is not None else "has a coco_url to download it from"
            raise SourceError(
                f"none of the {len(self.records)} images of {str(annotations)!r} {where}", "give the directory or zip of its images"
            )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.records)

    def identify(self, index: int) -> str:
        """Return the `file_name` of the record."""
        return self.records[index].file_name

    def extent(self, index: int) -> str:
        """Return width x height by the annotations: the fingerprint is the same for directory, zip and network."""
        record = self.records[index]
        return f"{record.width}x{record.height}" if record.width and record.height else ""

    def open(self, index: int) -> bytes:
        """Return the image file.

        Raises:
            ImageSkipped: this image is missing, damaged in the zip, or not served any more.
            SourceError: directory or zip gone, or no network after several attempts.
        """
        return self._store.read(self.records[index])

    def fetch(self, indices: Iterable[int]) -> None:
        """Download those of these images that the cache lacks, several at a time; nothing to do for local copies.

        Raises:
            SourceError: no network after several attempts.
        """
        self._store.fetch(self.records[index] for index in indices)


def open_coco(
    root: str | os.PathLike[str] | None = None,
    split: str = "val2017",
    cache: Path | None = None,
    base_url: str = COCO_URL,
    downloader: Downloader | None = None,
) -> CocoSource:
    """Open COCO from a local copy, or from the network if `root` is None.

    Raises:
        SourceError: as `find_coco`, `fetch_annotations` and `CocoSource`.
    """
    if root is not None:
        annotations, images = find_coco(root, split, cache)
        return CocoSource(annotations, images, cache, downloader)
    cache = cache or cache_directory()
    return CocoSource(fetch_annotations(split, cache, base_url, downloader), None, cache, downloader)


def _store(images: str | os.PathLike[str] | None, cache: str | os.PathLike[str] | None, downloader: Downloader | None) -> Store:
    if images is None:
        return UrlStore(Path(cache).expanduser() if cache is not None else cache_directory(), downloader or Downloader())
    path = Path(images).expanduser()
    if path.is_dir():
        return DirectoryStore(path)
    if path.is_file():
        return ZipStore(path)
    raise SourceError(f"COCO images {str(images)!r} do not exist", LOCAL_COPY)


def _records(path: Path) -> list[CocoImage]:
    """Read the image list through pycocotools, ordered by file name: the order inside the file carries no meaning."""
    if not path.is_file():
        raise SourceError(f"COCO annotations {str(path)!r} do not exist", LOCAL_COPY)
    from pycocotools.coco import COCO

    try:
        with _SILENCE, redirect_stdout(cast("TextIO", _Muted(sys.stdout))):
            images = list(COCO(str(path)).imgs.values())
        records = sorted((_record(image) for image in images), key=lambda record: record.file_name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError, RecursionError) as error:
        hint = "give an instances_*.json file, or delete a damaged one from the cache so that it is downloaded again"
        raise SourceError(f"{str(path)!r} is not a COCO annotation file: {type(error).__name__} {error}", hint) from error
    if not records:
        raise SourceError(f"COCO annotations {str(path)!r} list no images", "give an instances_*.json file with an 'images' list")
    for one, other in pairwise(records):
        if one.file_name == other.file_name:
            raise SourceError(f"COCO annotations {str(path)!r} list {one.file_name!r} twice", "give every image one record")
    return records


def _record(image: Mapping[str, Any]) -> CocoImage:
    name = str(image["file_name"])
    path = PurePosixPath(name)
    # an annotation file from the internet must not reach outside the image directory
    if not path.name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise ValueError(f"file_name {name!r} is not a relative path")
    url = image.get("coco_url")
    return CocoImage(image["id"], name, image.get("width"), image.get("height"), str(url) if url else None)


_SILENCE = threading.Lock()  # two threads that swap sys.stdout at the same time would put back the wrong one


class _Muted:
    """A stand-in for sys.stdout that swallows what this thread writes (pycocotools prints its progress) and passes on all else."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._owner = threading.get_ident()

    def write(self, text: str) -> int:
        return len(text) if threading.get_ident() == self._owner else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
