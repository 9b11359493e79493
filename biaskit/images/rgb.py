"""Convert any of PIL's modes to 8-bit RGB, a band of rows at a time, to save memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_BAND = 1 << 20  # pixels


def to_rgb(image: Image.Image) -> Image.Image:
    """Return a new RGB image; `image` is loaded.

    Transparency is laid on white; 16-bit, 32-bit and float grey is brought to 8 bits.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _by_bands(image, _scaling(image))
    if image.mode in ("RGB", "L") and "transparency" in image.info:
        return _by_bands(image, _keying(image))
    if image.has_transparency_data:
        return _by_bands(image, _on_white)
    return image.copy() if image.mode == "RGB" else image.convert("RGB")


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield the first row of each band, and the band."""
    cols, rows = image.size
    step = max(1, _BAND // cols)
    for top in range(0, rows, step):
        yield top, image.crop((0, top, cols, min(top + step, rows)))


def _by_bands(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    made = Image.new("RGB", image.size)
    for top, band in _bands(image):
        made.paste(convert(band), (0, top))
    return made


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":  # PIL cannot convert premultiplied grey directly to RGBA
        image = image.convert("LA")
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white.convert("RGB")


def _keying(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """Lay an image with one transparent colour (PNG's tRNS) on white. PIL leaves the colour of a 16-bit file in 16 bits."""
    key = np.atleast_1d(np.asarray(image.info["transparency"], dtype=np.int64))
    if key.max(initial=0) > 255:
        key = key >> 8

    def keyed(band: Image.Image) -> Image.Image:
        pixels = np.asarray(band)
        clear = (pixels.reshape(*pixels.shape[:2], -1) == key).all(axis=-1)
        rgb = np.array(band.convert("RGB"))
        rgb[clear] = 255
        return Image.fromarray(rgb)

    return keyed


def _scaling(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """Bring 16-bit, 32-bit and float grey down to 8 bits.

    16-bit values and floats in [0, 1] keep their absolute scale; other values, whose scale is unknown, are stretched from their minimum to
    their maximum. NaN becomes black.
    """
    low, high = _range(image)
    if image.mode != "F" and low >= 0 and high <= 65535:
        low, high = 0.0, 65535.0
    elif image.mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0

    def scaled(band: Image.Image) -> Image.Image:
        unit = np.nan_to_num((_values(band) - low) / (high - low or 1.0), nan=0.0, posinf=1.0, neginf=0.0)
        return Image.fromarray((unit.clip(0, 1) * 255).round().astype(np.uint8)).convert("RGB")

    return scaled


def _range(image: Image.Image) -> tuple[float, float]:
    """Return the smallest and the largest finite value; (0, 1) if there is none."""
    found = []
    for _, band in _bands(image):
        values = _values(band)
        finite = values[np.isfinite(values)]
        if finite.size:
            found += [float(finite.min()), float(finite.max())]
    return (min(found), max(found)) if found else (0.0, 1.0)


def _values(band: Image.Image) -> NDArray[np.float64]:
    return np.asarray(band, dtype=np.float64)
