"""COCO images: the list from an annotation file, the files from a directory, the released zip, or the network."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from PIL import Image

from biaskit.errors import ImageSkipped, SourceError
from biaskit.images.answer import LOCAL_COPY
from biaskit.images.base import ImageSource, SourceRequest, sources
from biaskit.images.coco_files import COCO_URL, cache_directory, fetch_annotations, find_coco
from biaskit.images.coco_records import read_records
from biaskit.images.coco_stores import DirectoryStore, Store, UrlStore, ZipStore
from biaskit.images.decode import decode
from biaskit.images.download import Downloader


@sources.register("coco")
class CocoSource(ImageSource):
    """The images of a COCO annotation file, in order of file name.

    Args:
        annotations: an `instances_*.json`, or any other file with COCO's list of images: see `coco_records`.
        images: a directory or a zip with the image files; None streams each image from its `coco_url`.
        cache: directory for streamed images; default `coco_files.cache_directory()`.
        downloader: makes the requests when streaming.

    Attributes:
        annotations: the annotation file.
        records: its entry of each image, in the order of the source.

    Raises:
        SourceError: the annotations cannot be read, or none of the images can be fetched.
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
        self.records = read_records(self.annotations)
        self._store = _store(images, cache, downloader)
        if not self._store.holds_any(self.records):
            where = f"is in {str(images)!r}" if images is not None else "has a coco_url to download it from"
            raise SourceError(
                f"none of the {len(self.records)} images of {str(annotations)!r} {where}", "give the directory or zip of its images"
            )

    @classmethod
    def named(cls, asked: SourceRequest) -> ImageSource:
        """Open COCO from its local copy, at the root that was given or $BIASKIT_COCO, else from the network."""
        return open_coco(asked.coco_root or os.environ.get("BIASKIT_COCO") or None, asked.split)

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
            SourceError: directory or zip deleted, or no network after several attempts.
        """
        return self._store.read(self.records[index])

    def load(self, index: int) -> Image.Image:
        """Return one image, decoded, upright and RGB. A cached copy that is not a picture is deleted and fetched again.

        Raises:
            ImageSkipped, SourceError: as `open`, and ImageSkipped for bytes that are not a usable picture.
        """
        record = self.records[index]
        try:
            return decode(self.open(index), record.file_name)
        except ImageSkipped:
            if not self._store.discard(record):
                raise
        return decode(self.open(index), record.file_name)

    def fetch(self, indices: Iterable[int]) -> None:
        """Download those of these images that are not in the cache, several at a time; nothing for local copies.

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
    annotations = fetch_annotations(split, cache, base_url, downloader)
    try:
        return CocoSource(annotations, None, cache, downloader)
    except SourceError:  # what the cache holds is not what it was kept for
        with suppress(OSError):
            annotations.unlink()
    annotations = fetch_annotations(split, cache, base_url, downloader)
    try:
        return CocoSource(annotations, None, cache, downloader)
    except SourceError:
        with suppress(OSError):
            annotations.unlink()
        raise


def _store(images: str | os.PathLike[str] | None, cache: str | os.PathLike[str] | None, downloader: Downloader | None) -> Store:
    if images is None:
        return UrlStore(Path(cache).expanduser() if cache is not None else cache_directory(), downloader or Downloader())
    path = Path(images).expanduser()
    if path.is_dir():
        return DirectoryStore(path)
    if path.is_file():
        return ZipStore(path)
    raise SourceError(f"COCO images {str(images)!r} do not exist", LOCAL_COPY)
