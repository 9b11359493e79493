"""Decode the bytes of an image file safely to an upright RGB picture."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from PIL import Image, UnidentifiedImageError

from biaskit.errors import ImageSkipped
from biaskit.images.rgb import to_rgb

MIN_SIDE = 16
"""Smallest side in pixels; smaller pictures show nothing, and some image processors divide by zero."""

MAX_PIXELS = 64_000_000
"""Most pixels by the file's header; more is taken for a decompression bomb."""

MAX_MEMORY = 900_000_000
"""Most bytes for decoding, by the header: pixels times bytes per pixel of the decoder, of the stored picture, and of RGB."""

MAX_SCANNED = 700_000_000
"""Most pixels times scans of a progressive JPEG: every scan processes the whole picture again."""

_STORED = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}  # bytes a pixel; every other mode has 4
_DECODER = {"JPEG": 6, "MPO": 6, "TIFF": 4, "WEBP": 10, "AVIF": 8, "JPEG2000": 12}  # bytes a pixel that it takes on the way
_SLOW = {"JPEG2000": 24_000_000}  # pixels of about 10 s on one core of 2025
_SLOW_PYTHON = 3_000_000  # likewise, for the formats that PIL decodes in Python (DDS, QOI, plain PPM, BMP with runs, …)

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_SAME_SIDES = frozenset({Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM})

# EPS runs Ghostscript and WMF the Windows renderer: pictures from the internet must not reach either. ICNS decodes what it holds to
# find out how large it is.
_REFUSED = frozenset({"EPS", "WMF", "ICNS"})

_Factory = Callable[[io.BytesIO, str], Image.Image]
_Accept = Callable[[bytes], "bool | str"]


def decode(data: bytes, name: str) -> Image.Image:
    """Decode an image file into an upright RGB image without metadata.

    The EXIF orientation is applied; transparency is laid on white; 16-bit, float, palette, grey, bilevel and CMYK pictures become RGB;
    of an animation the first frame counts. Whether the picture is too large is decided from its header, before any pixel is decoded, by
    `MAX_PIXELS` alone: neither `PIL.Image.MAX_IMAGE_PIXELS` nor the warnings filter is read or touched, so threads do not disturb each
    other. (The plugins of a few formats, TIFF, ICO and WebP among them, also keep to PIL's own limit if the program has lowered it.)

    Args:
        data: the whole file.
        name: of the image, for messages.

    Raises:
        ImageSkipped: the bytes are not a usable picture; the message says why. No other error is raised, for any bytes.
    """
    with _reasons(data, name):
        rgb, turn = _pixels(data, name)
        if turn is not None:
            rgb = rgb.transpose(turn)
    rgb.info = {}  # without the orientation, which would turn the picture again
    return rgb


@dataclass(frozen=True)
class Measured:
    """Size and orientation in the header of an image file.

    Attributes:
        size: (cols, rows) of the upright picture, as `decode` returns it. stored: (cols, rows) in the file.
        turn: how it is turned upright; None if it is.
    """

    size: tuple[int, int]
    stored: tuple[int, int]
    turn: Image.Transpose | None


def measure(data: bytes, name: str) -> Measured:
    """Return the size of a picture before and after it is turned upright; its pixels are not decoded unless its format demands it.

    Raises:
        ImageSkipped: as `decode`.
    """
    with _reasons(data, name), _identify(data, name) as image:
        _check_cost(image, data, name)
        turn, size, kind = _turn_of(image), image.size, image.format
    swapped = size[::-1] if turn is not None and turn not in _SAME_SIDES else size
    return Measured(size, swapped, turn) if kind == "TIFF" else Measured(swapped, size, turn)  # PIL turns TIFF, and its size, itself


@contextmanager
def _reasons(data: bytes, name: str) -> Iterator[None]:
    """Turn any error of PIL into an ImageSkipped that says why."""
    if not data:
        raise ImageSkipped(f"image {name!r} is empty (0 bytes)")
    try:
        yield
    except ImageSkipped:
        raise
    except Image.DecompressionBombError as error:
        raise ImageSkipped(f"image {name!r} is over the pixel limit of PIL: {_reason(error)}") from error
    except (
        Exception
    ) as error:  # PIL plugins raise errors of many types on broken files: SyntaxError, struct.error, KeyError, MemoryError, …
        raise ImageSkipped(f"image {name!r} is truncated or corrupt: {_reason(error)}") from error


def _pixels(data: bytes, name: str) -> tuple[Image.Image, Image.Transpose | None]:
    """Return the picture as it is stored, in RGB, and how to turn it. Intermediate pictures are freed."""
    with _identify(data, name) as image:
        _check_cost(image, data, name)
        image.load()
        _check_cost(image, data, name)  # the true size of an icon or a TIFF may be known only now
        return to_rgb(image), _turn_of(image)


@cache
def _formats() -> tuple[tuple[str, _Factory, _Accept | None], ...]:
    """Return every format PIL reads. Those that look at the first bytes come first: the others accept any bytes."""
    Image.preinit()
    Image.init()
    known: dict[str, tuple[Any, Any]] = {key: value for key, value in Image.OPEN.items() if key not in _REFUSED}
    return tuple((key, *known[key]) for key in sorted(known, key=lambda key: (known[key][1] is None, key)))


def _identify(data: bytes, name: str) -> Image.Image:
    """Read the header. `Image.open` would do, but it consults the process-wide pixel limit and warnings filter for every format."""
    reason = ""
    if data.startswith(b"\0\0\1\0"):
        _check_icon(data, name)
    for kind, factory, accept in _formats():
        try:
            claim = accept is None or accept(data[:16])
            if isinstance(claim, str):  # PIL knows the format but was built without its decoder
                reason = reason or claim
            elif claim:
                return factory(io.BytesIO(data), "")
        except Image.DecompressionBombError:
            raise
        except Exception as error:  # the bytes only looked like this format: another one may still claim them
            if accept is not None:
                reason = reason or f"{kind}: {_reason(error)}"
    if reason:
        raise ImageSkipped(f"image {name!r} is truncated or corrupt: {reason}")
    raise ImageSkipped(f"{name!r} is not an image (no format that PIL reads begins with {data[:8]!r})")


def _check_cost(image: Image.Image, data: bytes, name: str) -> None:
    """Refuse pictures that would take too much memory or time, judged by the header."""
    width, height = image.size
    if min(width, height) < MIN_SIDE:
        raise ImageSkipped(f"image {name!r} is {width}x{height} pixels: a side is under {MIN_SIDE}")
    pixels = width * height
    if pixels > MAX_PIXELS:
        raise ImageSkipped(f"image {name!r} claims {width}x{height} pixels: over the limit of {MAX_PIXELS / 1e6:.0f} megapixels")
    each = _STORED.get(image.mode, 4) + 4 + _DECODER.get(image.format or "", 0)
    if pixels * each > MAX_MEMORY:
        most = f"{MAX_MEMORY / each / 1e6:.0f} megapixels of {image.format} in mode {image.mode}"
        raise ImageSkipped(f"image {name!r} claims {width}x{height} pixels: over the limit of {most}")
    python = any(tile[0] in Image.DECODERS for tile in getattr(image, "tile", ()))
    slow = _SLOW_PYTHON if python else _SLOW.get(image.format or "", MAX_PIXELS)
    if pixels > slow:
        raise ImageSkipped(
            f"image {name!r} claims {width}x{height} pixels: over the limit of {slow / 1e6:.0f} megapixels of {image.format}"
        )
    if image.format in ("JPEG", "MPO"):
        scans = data.count(b"\xff\xda")
        if scans > 2 and scans * pixels > MAX_SCANNED:
            raise ImageSkipped(
                f"image {name!r} has {scans} scans of {width}x{height} pixels: over the limit of {MAX_SCANNED / 1e6:.0f} megapixels"
            )


def _check_icon(data: bytes, name: str) -> None:
    """Refuse an ICO file whose icons are larger than any picture may be: PIL decodes one of them to read the header."""
    count = int.from_bytes(data[4:6], "little")
    for entry in range(6, min(6 + 16 * count, len(data)), 16):
        start = int.from_bytes(data[entry + 12 : entry + 16], "little")
        if data[start : start + 4] == b"\x89PNG":
            sides = [int.from_bytes(data[start + place : start + place + 4], "big") for place in (16, 20)]
        else:
            sides = [abs(int.from_bytes(data[start + place : start + place + 4], "little", signed=True)) for place in (4, 8)]
        if sides[0] * sides[1] > MAX_PIXELS // 4:
            raise ImageSkipped(f"image {name!r} claims an icon of {sides[0]}x{sides[1]} pixels: over the limit")


def _turn_of(image: Image.Image) -> Image.Transpose | None:
    """Return how to turn an image by its EXIF orientation."""
    with suppress(Exception):  # a good picture with broken metadata is used
        return _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    return None


def _reason(error: Exception) -> str:
    """Return an error's text without object addresses: it is stored in the prior, which must be reproducible."""
    if isinstance(error, UnidentifiedImageError):
        return "it holds a part that is not an image"
    return re.sub(r" at 0x[0-9a-fA-F]+", "", str(error)) or type(error).__name__
