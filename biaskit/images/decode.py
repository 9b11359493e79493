"""One safe way from the bytes of an image file to an upright RGB picture."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from biaskit.errors import ImageSkipped

MIN_SIDE = 16
"""Pixels. Below this there is nothing to see, and some image processors divide by zero."""

MAX_PIXELS = 64_000_000
"""Pixels by the file's own header: more is taken for a decompression bomb."""

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

# EPS runs Ghostscript and WMF the Windows renderer: pictures from the internet must not reach either.
_REFUSED = frozenset({"EPS", "WMF"})

_Factory = Callable[[io.BytesIO, str], Image.Image]
_Accept = Callable[[bytes], "bool | str"]


def decode(data: bytes, name: str) -> Image.Image:
    """Decode an image file into an upright RGB image that carries no metadata.

    The EXIF orientation is applied; transparency is laid on white; 16-bit, float, palette, grey, bilevel and CMYK pictures become RGB;
    of an animation the first frame counts. Whether the picture is too large is decided from its header, before any pixel is decoded, by
    `MAX_PIXELS` alone: neither `PIL.Image.MAX_IMAGE_PIXELS` nor the warnings filter is read or touched, so threads do not disturb each
    other. (The plugins of a few formats, TIFF, ICO and WebP among them, also keep to PIL's own limit if the program has lowered it.)

    Args:
        data: the whole file.
        name: what to call it in the reason.

    Raises:
        ImageSkipped: the bytes are no usable picture; the message says precisely why. Nothing else is raised, whatever the bytes.
    """
    if not data:
        raise ImageSkipped(f"image {name!r} is empty (0 bytes)")
    try:
        with _identify(data, name) as image:
            _check_size(image.size, name)
            image.load()
            _check_size(image.size, name)  # an icon or a TIFF may only know its true size now
            return _upright(_to_rgb(image), image)
    except ImageSkipped:
        raise
    except Image.DecompressionBombError as error:
        raise ImageSkipped(f"image {name!r} is over the pixel limit of PIL: {_reason(error)}") from error
    except Exception as error:  # PIL plugins raise nearly anything on broken files: SyntaxError, struct.error, KeyError, MemoryError, …
        raise ImageSkipped(f"image {name!r} is truncated or corrupt: {_reason(error)}") from error


@cache
def _formats() -> tuple[tuple[str, _Factory, _Accept | None], ...]:
    """Return every format PIL reads. Those that look at the first bytes come first: the others would try to make sense of anything."""
    Image.preinit()
    Image.init()
    known: dict[str, tuple[Any, Any]] = {key: value for key, value in Image.OPEN.items() if key not in _REFUSED}
    return tuple((key, *known[key]) for key in sorted(known, key=lambda key: (known[key][1] is None, key)))


def _identify(data: bytes, name: str) -> Image.Image:
    """Read the header. `Image.open` would do, but it consults the process-wide pixel limit and warnings filter for every format."""
    reason = ""
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


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if min(width, height) < MIN_SIDE:
        raise ImageSkipped(f"image {name!r} is {width}x{height} pixels: a side is under {MIN_SIDE}")
    if width * height > MAX_PIXELS:
        raise ImageSkipped(f"image {name!r} claims {width}x{height} pixels: over the limit of {MAX_PIXELS / 1e6:.0f} megapixels")


def _to_rgb(image: Image.Image) -> Image.Image:
    """Return a new RGB image; `image` is loaded."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _scaled(image)
    if image.mode in ("RGB", "L") and "transparency" in image.info:
        return _keyed(image)
    if image.has_transparency_data:
        if image.mode == "La":  # PIL has no direct way from premultiplied grey to RGBA
            image = image.convert("LA")
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        return white.convert("RGB")
    return image.copy() if image.mode == "RGB" else image.convert("RGB")


def _keyed(image: Image.Image) -> Image.Image:
    """Lay an image with one transparent colour (PNG's tRNS) on white. PIL leaves the colour of a 16-bit file in 16 bits."""
    key = np.atleast_1d(np.asarray(image.info["transparency"], dtype=np.int64))
    if key.max(initial=0) > 255:
        key = key >> 8
    pixels = np.asarray(image)
    clear = (pixels.reshape(*pixels.shape[:2], -1) == key).all(axis=-1)
    rgb = np.array(image.convert("RGB"))
    rgb[clear] = 255
    return Image.fromarray(rgb)


def _scaled(image: Image.Image) -> Image.Image:
    """Bring 16-bit, 32-bit and float grey down to 8 bits.

    16-bit values and floats in [0, 1] keep their absolute scale; anything else has no known one and is stretched from its own least to its
    greatest value. NaN becomes black.
    """
    values = np.asarray(image, dtype=np.float64)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if image.mode != "F" and low >= 0 and high <= 65535:
        low, high = 0.0, 65535.0
    elif image.mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    unit = np.nan_to_num((values - low) / (high - low or 1.0), nan=0.0, posinf=1.0, neginf=0.0)
    return Image.fromarray((unit.clip(0, 1) * 255).round().astype(np.uint8)).convert("RGB")


def _upright(rgb: Image.Image, image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation of `image` to `rgb` and drop all metadata, lest someone downstream turns the picture a second time."""
    turn = None
    with suppress(Exception):  # broken metadata is no reason to lose a sound picture
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    if turn is not None:
        rgb = rgb.transpose(turn)
    rgb.info = {}
    return rgb


def _reason(error: Exception) -> str:
    """Return an error's text. Object addresses go: the reason is stored in the prior, which must come out the same every time."""
    if isinstance(error, UnidentifiedImageError):
        return "it holds a part that is not an image"
    return re.sub(r" at 0x[0-9a-fA-F]+", "", str(error)) or type(error).__name__
