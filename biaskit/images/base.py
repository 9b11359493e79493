"""The base class of image sources: number of images, their names and bytes, and a fingerprint of the whole."""

from __future__ import annotations

import hashlib
import json
import operator
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import SupportsIndex, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from biaskit.images.decode import decode
from biaskit.registry import Registry


@dataclass(frozen=True)
class SourceRequest:
    """The arguments of opening a source by name.

    Attributes:
        name: one of the names that the source is registered under. n: how many pictures to draw, None for the default. seed: of drawn ones.
        coco_root: local copy of COCO. split: which part of COCO.

    Example:
        >>> SourceRequest("generated", n=4).seed
        0
    """

    name: str
    n: int | None = None
    seed: int = 0
    coco_root: str | os.PathLike[str] | None = None
    split: str = "val2017"

    @property
    def count(self) -> int:
        """How many pictures to draw."""
        return 1000 if self.n is None else self.n


class ImageSource(ABC):
    """A sized, indexable collection of images, which are decoded on demand.

    A subclass writes `__len__`, `identify` and `open`. Indices given to the methods are 0 ≤ index < len; only `source[index]` counts from
    the end as well. A source can be pickled: every worker process gets its own copy, and a copy also works in a forked child.

    Attributes:
        name: kind of source (`coco`, `folder`, `generated`); stored in the prior.
    """

    name: str = ""

    def __repr__(self) -> str:
        """One line: its kind and how many images it has."""
        return f"<{type(self).__name__} {self.name}: {len(self)} images>"

    @classmethod
    def named(cls, asked: SourceRequest) -> ImageSource:
        """Open the source under one of the names that it is registered under; sources without a name are opened by path.

        Raises:
            SourceError: the source exists but cannot be used.
        """
        raise NotImplementedError(f"{cls.__name__} has no names")

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def identify(self, index: int) -> str:
        """Return the stable name of one image, such as its file name: relative, the same on every machine."""

    @abstractmethod
    def open(self, index: int) -> bytes:
        """Return the encoded file of one image.

        Raises:
            ImageSkipped: this one image cannot be used (missing, not served any more).
            SourceError: the source as a whole failed (directory deleted, no network).
        """

    def extent(self, index: int) -> str:
        """Return an image's size as text for the fingerprint, if it is known without decoding; else ""."""
        del index
        return ""

    def load(self, index: int) -> Image.Image:
        """Return one image, decoded, upright and RGB.

        Raises:
            ImageSkipped, SourceError: as `open`, and ImageSkipped for bytes that are not a usable picture.
        """
        return decode(self.open(index), self.identify(index))

    def fetch(self, indices: Iterable[int]) -> None:
        """Announce that these images come next, so that a streaming source can download them concurrently. Default: nothing.

        Raises:
            SourceError: the source as a whole failed. An image that cannot be fetched is not reported here but by `open`.
        """
        del indices

    def fingerprint(self) -> str:
        """Return the sha256 (hex) of the sorted identifiers and extents; it does not depend on the directory."""
        listing = sorted([self.identify(index), self.extent(index)] for index in range(len(self)))
        return hashlib.sha256(json.dumps(listing).encode("ascii")).hexdigest()

    @overload
    def __getitem__(self, index: slice) -> ImageSource: ...
    @overload
    def __getitem__(self, index: SupportsIndex) -> Image.Image: ...
    def __getitem__(self, index: SupportsIndex | slice) -> ImageSource | Image.Image:
        """Return the decoded image at a whole number, or a view of the images of a slice."""
        if isinstance(index, slice):
            return View(self, range(len(self))[index])
        return self.load(range(len(self))[operator.index(index)])


class View(ImageSource):
    """Some images of another source, in a given order; nothing is copied. Its fingerprint covers only these images."""

    def __init__(self, source: ImageSource, indices: Sequence[int]) -> None:
        self.source = source
        self.indices = indices
        self.name = source.name

    def __len__(self) -> int:
        """Return the number of images in view."""
        return len(self.indices)

    def identify(self, index: int) -> str:
        """Return the name the source gives to this image."""
        return self.source.identify(self.indices[index])

    def open(self, index: int) -> bytes:
        """Return the encoded file from the source."""
        return self.source.open(self.indices[index])

    def extent(self, index: int) -> str:
        """Return what the source knows of the size."""
        return self.source.extent(self.indices[index])

    def load(self, index: int) -> Image.Image:
        """Return the image as the source decodes it."""
        return self.source.load(self.indices[index])

    def fetch(self, indices: Iterable[int]) -> None:
        """Pass the hint on."""
        self.source.fetch([self.indices[index] for index in indices])


def order(source: ImageSource, seed: int) -> NDArray[np.int64]:
    """Return all indices in seeded random order, int64 [len(source)].

    A run of n images uses the first n; skipped ones are replaced by those that follow.

    Example:
        >>> from biaskit.images import open_source
        >>> sorted(order(open_source("generated", n=4), seed=0).tolist())
        [0, 1, 2, 3]
    """
    return np.random.default_rng(seed).permutation(len(source)).astype(np.int64)


def _keep_class(cls: type[ImageSource]) -> type[ImageSource]:
    return cls


sources: Registry[type[ImageSource]] = Registry("image source", __name__.rpartition(".")[0], _keep_class, ImageSource)
"""Sources that have names. Its entry-point group is `biaskit.images`."""
