"""Finding COCO: the usual layouts on disk, and the official annotation list on the network."""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple, cast

from biaskit.errors import SourceError
from biaskit.images.answer import LOCAL_COPY, MAX_FILE
from biaskit.images.coco_stores import DAMAGED_ZIP
from biaskit.images.download import Downloader, replacing
from biaskit.images.folder import SUFFIXES
from biaskit.images.remote_file import RangeFile

COCO_URL = "http://images.cocodataset.org"


class CocoFiles(NamedTuple):
    """An annotation file and its images: a directory, a zip, or None if they are not on this machine."""

    annotations: Path
    images: Path | None


def cache_directory() -> Path:
    """Return where downloads are kept: $BIASKIT_CACHE/coco, else $XDG_CACHE_HOME/biaskit/coco, else ~/.cache/biaskit/coco."""
    own = os.environ.get("BIASKIT_CACHE")
    if own:
        return Path(own).expanduser() / "coco"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "biaskit" / "coco"


def find_coco(root: str | os.PathLike[str], split: str = "val2017", cache: Path | None = None) -> CocoFiles:
    """Find annotations and images of a split under a directory.

    Understood are ROOT/annotations/instances_SPLIT.json, ROOT/instances_SPLIT.json and ROOT/annotations_trainvalYEAR.zip (of which only the
    member asked for is unpacked, into the cache), with images as `find_images` finds them.

    Raises:
        SourceError: no such directory, or no annotations of this split in it.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise SourceError(f"COCO root {str(root)!r} is not a directory", "give the directory that holds annotations/ and val2017/")
    name = f"instances_{split}.json"
    for path in (root / "annotations" / name, root / name):
        if path.is_file():
            return CocoFiles(path, find_images(root, split))
    for path in (root / _zip_name(split), root / "annotations" / _zip_name(split)):
        if path.is_file():
            with _opened(path, str(path)) as archive:
                info = _member(archive, name, str(path))
                # by checksum, so that two releases of the same name do not pass for each other
                target = (cache or cache_directory()) / f"annotations-{info.CRC:08x}" / name
                if not target.is_file() or target.stat().st_size != info.file_size:
                    _unpack(archive, info, target, str(path))
            return CocoFiles(target, find_images(root, split))
    others = sorted(
        path.stem.removeprefix("instances_") for folder in (root, root / "annotations") for path in folder.glob("instances_*.json")
    )
    hint = f"expected annotations/{name}, {name} or {_zip_name(split)} in it"
    if others:
        hint = f"it has {', '.join(others)}: give that annotation file itself as the image source"
    raise SourceError(f"COCO root {str(root)!r} has no annotations of {split}", hint)


def find_images(root: Path, split: str) -> Path | None:
    """Return the directory or the zip under `root` that holds the images of a split, None if there is neither.

    Directories named for the split win over zips, and both over image files that lie in ROOT/images/ or ROOT itself.
    """
    for path in (root / split, root / "images" / split):
        if path.is_dir() and any(path.iterdir()):
            return path
    for path in (root / f"{split}.zip", root / "images" / f"{split}.zip"):
        if path.is_file():
            return path
    for path in (root / "images", root):
        if path.is_dir() and any(file.suffix.lower() in SUFFIXES for file in path.iterdir()):
            return path
    return None


def looks_like_coco(directory: Path) -> bool:
    """Return True if a directory is a COCO root (of any split) rather than a folder of images."""
    return any(
        any(folder.glob(name)) for folder in (directory, directory / "annotations") for name in ("instances_*.json", "annotations_*.zip")
    )


def fetch_annotations(
    split: str = "val2017", cache: Path | None = None, base_url: str = COCO_URL, downloader: Downloader | None = None
) -> Path:
    """Return the official annotation file of a split, downloading it into the cache if it is not there.

    Of the 240 MB zip only the directory and this member are read, by HTTP Range; if the server does not support that, the whole zip is
    downloaded and deleted afterwards.

    Raises:
        SourceError: an unknown split, no network, or something other than the zip at the address.
    """
    if not re.fullmatch(r"(train|val)20(14|17)", split):
        raise SourceError(f"COCO split {split!r} is unknown", "the official ones are val2017, train2017, val2014 and train2014")
    name = f"instances_{split}.json"
    cache = cache or cache_directory()
    target = cache / "annotations" / name
    if target.is_file():
        return target
    url = f"{base_url.rstrip('/')}/annotations/{_zip_name(split)}"
    downloader = downloader or Downloader()
    size = downloader.length_if_ranged(url)
    if size is not None:
        with _opened(cast("IO[bytes]", RangeFile(url, size, downloader)), url) as archive:
            _unpack(archive, _member(archive, name, url), target, url)
        return target
    whole = cache / f".{os.getpid()}.{_zip_name(split)}"
    try:
        downloader.save(url, whole)
        with _opened(whole, url) as archive:
            _unpack(archive, _member(archive, name, url), target, url)
    finally:
        with suppress(OSError):
            whole.unlink(missing_ok=True)
    return target


def _zip_name(split: str) -> str:
    return f"annotations_trainval{split[-4:]}.zip"


def _opened(file: Path | IO[bytes], where: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except (OSError, *DAMAGED_ZIP) as error:
        raise SourceError(f"cannot read annotation zip {where}: {error}", LOCAL_COPY) from error


def _member(archive: zipfile.ZipFile, name: str, where: str) -> zipfile.ZipInfo:
    for info in archive.infolist():
        if info.filename.rpartition("/")[2] == name:
            return info
    raise SourceError(f"annotation zip {where} has no {name}", LOCAL_COPY)


def _unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, where: str) -> None:
    """Write a member to `target`, atomically; zipfile verifies its checksum at the end."""
    if info.file_size > MAX_FILE:
        raise SourceError(
            f"annotation zip {where} holds {info.filename} of {info.file_size} bytes", f"no more than {MAX_FILE} are unpacked"
        )
    try:
        with replacing(target) as file, archive.open(info) as member:
            shutil.copyfileobj(member, file, 1 << 20)  # a remote zip is asked for as much at a time; it ends at the size it states
    except (OSError, *DAMAGED_ZIP) as error:
        raise SourceError(f"annotation zip {where} is damaged: {error}", LOCAL_COPY) from error
