"""A cache of the image list of a large annotation file, keyed by the file's hash, so that the file is not parsed again.

The cached list is a hidden file beside the annotations, or in the cache directory if that folder is not writable. It is a short annotation
file, read with the same checks as a long one; if it is damaged or of another version of the file, it is deleted.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from biaskit.errors import BiaskitError
from biaskit.files import write_file
from biaskit.images.coco_files import cache_directory
from biaskit.images.coco_stores import CocoImage
from biaskit.images.regular import open_regular, read_regular

WORTH = 8 << 20
"""Minimum size in bytes of a file whose list is cached: parsing it takes at least a tenth of a second, and several times the memory."""
_BLOCK = 1 << 20


def keep(path: Path, data: bytes, records: Sequence[CocoImage]) -> None:
    """Keep the images of an annotation file whose bytes are `data`, in the first place that can be written to."""
    if len(data) < WORTH:
        return
    digest = hashlib.blake2b(data, digest_size=32).hexdigest()
    body = json.dumps([asdict(record) for record in records]).encode()
    for place in _places(path, digest):
        with suppress(BiaskitError):
            write_file(place, f"{digest} {hashlib.blake2b(body, digest_size=32).hexdigest()}\n".encode() + body, sync=False)
            return


def kept(path: Path, limit: int, read: Callable[[list[Any]], list[CocoImage]]) -> list[CocoImage] | None:
    """Return the kept images of an annotation file, None if there are none.

    Args:
        path: of the annotations. limit: maximum size in bytes. read: turns a list of images into records, with all checks.

    Raises:
        OSError: the annotations cannot be read.
    """
    with open_regular(path, limit) as (file, known):
        if known.st_size < WORTH:
            return None
        digest = hashlib.blake2b(digest_size=32)
        while block := file.read(_BLOCK):
            digest.update(block)
    for place in _places(path, digest.hexdigest()):
        try:
            if place.lstat().st_uid not in _owners(path):
                continue  # another user's file: its addresses are not trusted
            head, _, body = read_regular(place, limit).partition(b"\n")
            if head.decode() == f"{digest.hexdigest()} {hashlib.blake2b(body, digest_size=32).hexdigest()}":
                images = json.loads(body)
                if isinstance(images, list) and images:
                    return read(images)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, TypeError, RecursionError, BiaskitError):
            pass
        with suppress(OSError):  # damaged, or of an earlier version of the file
            place.unlink()
    return None


def _places(path: Path, digest: str) -> Iterator[Path]:
    with suppress(OSError):
        yield path.resolve().parent / f".{path.name}.images"
    with suppress(OSError, RuntimeError):
        yield cache_directory() / "lists" / digest


def _owners(path: Path) -> set[int]:
    return {path.stat().st_uid, os.getuid() if hasattr(os, "getuid") else 0}
