"""The image list of a COCO annotation file: instances, captions, keypoints, or only a list of images.

Annotations are ignored, so they need no ids, boxes or categories.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from biaskit.errors import SourceError
from biaskit.images.answer import LOCAL_COPY
from biaskit.images.coco_stores import CocoImage
from biaskit.images.kept_records import keep, kept
from biaskit.images.regular import read_regular
from biaskit.text import shortened

MAX_JSON = 1 << 30
"""Largest size in bytes of an annotation file: that of train2017, COCO's largest, has 470 MB."""

_FILES = "instances_*.json, captions_*.json and person_keypoints_*.json have such a list"


def read_records(path: Path) -> list[CocoImage]:
    """Return the images of an annotation file in order of file name: the order inside the file carries no meaning.

    Different records with the same id are different images; equal records are one image. File names may be absolute or have backslashes:
    they are made relative to their common folder.

    Raises:
        SourceError: the file cannot be read, lists no images, or two different records name the same file.
    """
    try:
        known = kept(path, MAX_JSON, lambda images: _sorted(path, images))
        if known is not None:
            return known
        data = read_regular(path, MAX_JSON)
        found = json.loads(data, object_hook=_without_annotations)
    except FileNotFoundError as error:
        raise SourceError(f"COCO annotations {str(path)!r} do not exist", LOCAL_COPY) from error
    except OSError as error:
        raise SourceError(f"COCO annotations {str(path)!r} cannot be read: {error.strerror or error}", LOCAL_COPY) from error
    except (ValueError, RecursionError) as error:
        what = "nested too deeply" if isinstance(error, RecursionError) else f"{type(error).__name__} {error}"
        raise _refused(path, f"it is not JSON: {what}", "give the file whole: is it cut short, or a web page?") from error
    if isinstance(found, list):
        raise _refused(path, "it holds a list, not an object with an 'images' list", f"results lie in lists; {_FILES}")
    if not isinstance(found, dict) or not isinstance(found.get("images", []), list):
        raise _refused(path, "its 'images' are not a list", _FILES)
    if not found.get("images"):
        raise SourceError(f"COCO annotations {str(path)!r} list no images", f"give a file with an 'images' list: {_FILES}")
    records = _sorted(path, found["images"])
    keep(path, data, records)
    return records


def _without_annotations(found: dict[str, Any]) -> dict[str, Any] | None:
    """Drop an annotation as soon as it is parsed: those of train2017 take 3 GB together."""
    return None if "image_id" in found and not {"file_name", "images"} & found.keys() else found


def _sorted(path: Path, images: list[Any]) -> list[CocoImage]:
    records = []
    names = _relative(path, images)
    for number, (image, name) in enumerate(zip(images, names, strict=True)):
        size = [_pixels(path, number, key, image.get(key)) for key in ("width", "height")]
        url = image.get("coco_url")
        if not isinstance(url, (str, type(None))):
            raise _refused(path, f"the coco_url of image {number} is {_shown(url)}", "an address is a text")
        own = image.get("id", number)
        records.append(CocoImage(own if isinstance(own, (int, str)) else number, name, size[0], size[1], url or None))
    records.sort(key=lambda record: record.file_name)
    kept = [records[0]]
    for before, record in pairwise(records):
        if record.file_name != before.file_name:
            kept.append(record)
        elif record != before:
            raise SourceError(f"COCO annotations {str(path)!r} list {record.file_name!r} twice", "give every image one record")
    return kept


def _relative(path: Path, images: list[Any]) -> list[str]:
    """Return the file names as relative paths with forward slashes: nothing from a file may reach outside the image directory."""
    plain, absolute = [], []
    for number, image in enumerate(images):
        name = image.get("file_name") if isinstance(image, Mapping) else None
        if not isinstance(name, str):
            hint = "every entry of 'images' needs a file_name: a path relative to the directory of the images"
            raise _refused(path, f"image {number} has no file_name but {_shown(image)}", hint)
        posix = re.sub(r"^[A-Za-z]:(?=[\\/])", "", name).replace("\\", "/")
        parts = PurePosixPath(re.sub(r"^/+", "/", posix))  # POSIX gives two leading slashes, as of a UNC path, a root of their own
        if not parts.name or ".." in parts.parts or "\0" in name or not _encodes(name):
            hint = "write file_name as a path relative to the directory of the images, without '..'"
            raise _refused(path, f"file_name {name[:200]!r} is not a relative path", hint)
        absolute.append(parts.is_absolute())
        plain.append(parts)
    if not any(absolute):
        return [str(parts) for parts in plain]
    folder = posixpath.commonpath([parts.parent for parts, rooted in zip(plain, absolute, strict=True) if rooted])
    return [str(parts.relative_to(folder)) if rooted else str(parts) for parts, rooted in zip(plain, absolute, strict=True)]


def _pixels(path: Path, number: int, key: str, value: Any) -> int | None:
    """Return a width or height, None if there is none (some tools write 0 for unknown)."""
    if value is None or (isinstance(value, (int, float)) and value == 0):
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e9 or value != int(value):
        raise _refused(path, f"the {key} of image {number} is {_shown(value)}", "sizes are whole numbers of pixels, or left out")
    return int(value)


def _encodes(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # half a surrogate pair: no file system has such a name
        return False
    return True


def _shown(values: Any) -> str:
    return shortened(repr(values) if isinstance(values, (int, float, str, type(None))) else f"a {type(values).__name__}")


def _refused(path: Path, what: str, hint: str) -> SourceError:
    return SourceError(f"{str(path)!r} is not a COCO annotation file: {what}", hint)
