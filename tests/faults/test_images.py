"""Pictures: mutated files of every format, and small files that ask for much."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from contextlib import suppress

import numpy as np
import pytest
from mutations import mutated
from PIL import Image
from sandbox import times

from biaskit.errors import ImageSkipped
from biaskit.images.decode import MIN_SIDE, decode, measure

FORMATS = ["JPEG", "JPEG progressive", "PNG", "PNG 16", "PNG palette", "GIF", "WEBP", "TIFF", "TIFF lzw", "TIFF float", "BMP", "ICO", "PCX",
           "SGI", "TGA", "PPM", "JPEG2000", "AVIF", "DDS", "MPO"]  # fmt: skip


def seed(kind: str) -> bytes:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize((64, 48))
    exif = Image.Exif()
    exif[0x0112] = 6
    options: dict[str, object] = {"exif": exif} if kind.split()[0] in ("JPEG", "PNG", "TIFF", "WEBP") else {}
    if kind == "PNG 16":
        picture = Image.fromarray(np.asarray(picture.convert("L"), dtype=np.uint16) * 257)
    elif kind == "TIFF float":
        picture = Image.fromarray(np.asarray(picture.convert("L"), dtype=np.float32))
    elif kind == "PNG palette":
        picture = picture.quantize()
        options["transparency"] = 3
    elif kind == "TIFF lzw":
        options["compression"] = "tiff_lzw"
    elif kind == "JPEG progressive":
        options["progressive"] = True
    buffer = io.BytesIO()
    picture.save(buffer, kind.split()[0], **options)
    return buffer.getvalue()


def read(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with suppress(ImageSkipped):
            measure(data, "x")
        image = decode(data, "x")
    assert image.mode == "RGB"
    assert min(image.size) >= MIN_SIDE


@pytest.mark.parametrize("kind", FORMATS)
def test_mutated(kind, survives, random):
    try:
        data = seed(kind)
    except (OSError, KeyError, ValueError):
        pytest.skip(f"this PIL does not write {kind}")
    inputs = [(f"{kind} {k}", mutated(data, random)) for k in range(times(25, 250))]
    survives("pictures mutated", read, [("whole", data), *inputs])


def png(cols: int, rows: int, depth: int = 8, kind: int = 2, bands: int = 3) -> bytes:
    """A PNG of zeros, whole."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    pack = zlib.compressobj(9)
    line = b"\0" + bytes(cols * depth * bands // 8)
    pixels = b"".join(pack.compress(line) for _ in range(rows)) + pack.flush()
    header = struct.pack(">IIBBBBB", cols, rows, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def scans(count: int, side: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (9, 99, 199)).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + data[-2:]


def tiff(mode: str, side: int) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (side, side)).save(buffer, "TIFF", compression="tiff_adobe_deflate")
    return buffer.getvalue()


def qoi(side: int) -> bytes:
    return b"qoif" + struct.pack(">IIBB", side, side, 3, 0) + b"\xfd" * (side * side // 62 + 1) + bytes(7) + b"\1"


LARGE = {
    "16-bit PNG of 64 megapixels": lambda: png(8000, 8000, 16, 0, 1),
    "RGBA PNG of 64 megapixels": lambda: png(8000, 8000, 8, 6, 4),
    "float TIFF of 64 megapixels": lambda: tiff("F", 8000),
    "400 scans": lambda: scans(400, 1000),
    "400 scans of 16 megapixels": lambda: scans(400, 4000),
    "QOI of 49 megapixels, decoded in Python": lambda: qoi(7000),
    "QOI of 3 megapixels": lambda: qoi(1700),
    "plain PPM": lambda: b"P3 1700 1700 255 " + b"1 " * (1700 * 1700 * 3),
}


def test_small_files_that_ask_for_much(survives):
    names = LARGE if times(0, 1) else [name for name in LARGE if "TIFF" not in name]
    outcome = survives("pictures that ask for much", read, [(name, LARGE[name]()) for name in names])
    assert outcome.read and outcome.refused
