"""Find the picture of a question, whose name may be written in any of the ways that published files use for COCO's pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from biaskit.errors import ImageSkipped, TaskError
from biaskit.files import existing

if TYPE_CHECKING:
    from PIL.Image import Image

    from biaskit.images.decode import Measured

_FOLDERS = ("train2014", "val2014", "train2017", "val2017", "images", "images/train2014", "images/mscoco/images/train2014", "image")
_COCO = re.compile(r"(?:COCO_(train|val)2014_)?(\d{12})(?:_\d+)?\.(jpe?g|png)", re.IGNORECASE)
HINT = "give the directory of the images (--images)"


def spellings(name: str) -> list[str]:
    """Return the names that a picture may have on disk, the given one first.

    COCO's pictures are `COCO_train2014_000000581857.jpg` in 2014 and `000000581857.jpg` in 2017; RefCOCO's refs add the number of the
    annotation (`…581857_16.jpg`).
    """
    last = PurePosixPath(name).name
    found = _COCO.fullmatch(last)
    names = [name, last]
    if "." not in last:  # TextVQA and the hub's POPE name a picture without its suffix
        names += [f"{one}.{suffix}" for one in (name, last) for suffix in ("jpg", "png", "jpeg")]
    if found is not None:
        part, number, suffix = found.groups()
        names += [f"COCO_{half}2014_{number}.{suffix}" for half in ([part] if part else ["train", "val"])] + [f"{number}.{suffix}"]
    return list(dict.fromkeys(names))


class Pictures:
    """The directories (or zips of COCO) that are searched for pictures.

    Args:
        images: given by the user. places: searched if `images` is None: directories near the questions, and COCO's usual folders in them.

    Raises:
        TaskError: `images` does not exist.
    """

    def __init__(self, images: Path | None, places: Sequence[Path] = ()) -> None:
        if images is not None and existing(images) is None:
            raise TaskError(f"the images {str(images)[:300]!r} do not exist", "give the directory of the images, or a zip of COCO")
        from biaskit.images.coco_stores import ZipStore

        self.roots = [images] if images is not None else list(dict.fromkeys(places))
        self._zips = [ZipStore(root) for root in self.roots if root.is_file()]

    def open(self, name: str) -> Image:
        """Return a picture, RGB and upright.

        Raises:
            TaskError: it is not found, or it is broken.
        """
        return decoded(self.read(name), name)

    def read(self, name: str) -> bytes:
        """Return the file of a picture.

        Raises:
            TaskError: it is not found, or cannot be read.
        """
        from biaskit.images.coco_stores import CocoImage
        from biaskit.images.regular import read_regular

        name = name.replace("\\", "/")
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\0" in name:
            raise TaskError(f"image {name[:200]!r} is not a relative path", "name images by paths below the directory of the images")
        for store in self._zips:
            for spelling in spellings(name):
                record = CocoImage(spelling, spelling, None, None, None)
                if store.holds_any([record]):
                    try:
                        return store.read(record)
                    except ImageSkipped as error:
                        raise TaskError(error.message, "download the zip again") from error
        for place in self._places(name):
            if (there := existing(place)) and not there.is_dir():
                try:
                    return read_regular(place)
                except OSError as error:
                    hint = "download the image again, or fix its permissions"
                    raise TaskError(f"image {name!r} cannot be read: {error.strerror or error}", hint) from error
        looked = ", ".join(str(root) for root in self.roots) or "nowhere"
        raise TaskError(f"image {name[:200]!r} is not there (looked in {looked})", HINT)

    def _places(self, name: str) -> Iterator[Path]:
        for root in self.roots:
            if root.is_dir():
                for folder in ("", *_FOLDERS):
                    for spelling in spellings(name):
                        yield root / folder / spelling


def decoded(data: bytes, name: str) -> Image:
    """Decode a picture, RGB and upright.

    Raises:
        TaskError: the bytes are not a usable picture.
    """
    from biaskit.images.decode import decode

    try:
        return decode(data, name)
    except ImageSkipped as error:
        raise TaskError(error.message, "download the image again") from error


def measured(data: bytes, name: str) -> Measured:
    """Return the size of a picture from its header.

    Raises:
        TaskError: as `decoded`.
    """
    from biaskit.images.decode import measure

    try:
        return measure(data, name)
    except ImageSkipped as error:
        raise TaskError(error.message, "download the image again") from error
