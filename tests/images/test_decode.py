"""Decoding: every kind of picture becomes upright RGB, everything else is skipped with its reason, and nothing else ever happens."""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from biaskit.errors import ImageSkipped
from biaskit.images import decode as decoding
from biaskit.images.decode import MAX_PIXELS, MIN_SIDE, decode, measure


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def colours(rows: int = 24, cols: int = 40) -> Image.Image:
    """A picture whose four corners differ."""
    y, x = np.mgrid[0:rows, 0:cols]
    return Image.fromarray(np.stack([255 * y // rows, 255 * x // cols, np.full_like(x, 60)], axis=-1).astype(np.uint8))


def png_header(cols: int, rows: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", cols, rows, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "TGA"])
def test_lossless_formats_come_back_exactly(kind: str) -> None:
    image = decode(encode(colours(), kind), "x")
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), np.asarray(colours()))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF"])
def test_lossy_formats_come_back_nearly(kind: str) -> None:
    image = decode(encode(colours(), kind), "x")
    assert (image.mode, image.size) == ("RGB", (40, 24))
    assert np.abs(np.asarray(image, float) - np.asarray(colours(), float)).mean() < 12


def test_cmyk_jpeg_as_adobe_writes_it() -> None:
    grey = Image.new("CMYK", (32, 32), (0, 0, 0, 100))
    data = encode(grey, "JPEG", quality=95)
    assert b"Adobe" in data  # PIL stores CMYK inverted with Adobe's marker, as Photoshop does
    assert np.abs(np.asarray(decode(data, "x"), int) - 155).max() <= 3


def test_grey_and_bilevel() -> None:
    assert decode(encode(Image.new("L", (20, 20), 77)), "x").getpixel((3, 3)) == (77, 77, 77)
    assert decode(encode(Image.new("1", (20, 20), 1)), "x").getpixel((3, 3)) == (255, 255, 255)


def test_16_bit_keeps_its_absolute_scale() -> None:
    values = np.full((20, 20), 0x8080, np.uint16)
    assert decode(encode(Image.fromarray(values)), "x").getpixel((0, 0)) == (128, 128, 128)
    assert decode(encode(Image.fromarray(values), "TIFF"), "x").getpixel((0, 0)) == (128, 128, 128)


def test_32_bit_and_float_without_a_scale_are_stretched() -> None:
    ramp = np.linspace(-1e6, 1e6, 400).reshape(20, 20)
    for array in (ramp.astype(np.int32), ramp.astype(np.float32)):
        pixels = np.asarray(decode(encode(Image.fromarray(array), "TIFF"), "x"))
        assert (pixels.min(), pixels.max()) == (0, 255)
    ramp[0, 0] = np.nan
    assert decode(encode(Image.fromarray(ramp.astype(np.float32)), "TIFF"), "x").getpixel((0, 0)) == (0, 0, 0)
    unit = np.full((20, 20), 0.5, np.float32)
    assert decode(encode(Image.fromarray(unit), "TIFF"), "x").getpixel((0, 0)) == (128, 128, 128)


@pytest.mark.parametrize(
    ("mode", "clear", "solid", "seen"),
    [("RGBA", (9, 9, 9, 0), (200, 10, 30, 255), (200, 10, 30)), ("LA", (9, 0), (50, 255), (50, 50, 50))],
)
def test_transparency_is_laid_on_white(mode: str, clear: tuple[int, ...], solid: tuple[int, ...], seen: tuple[int, ...]) -> None:
    picture = Image.new(mode, (32, 32), clear)
    picture.paste(solid, (16, 0, 32, 32))
    image = decode(encode(picture), "x")
    assert image.mode == "RGB"
    assert image.getpixel((2, 2)) == (255, 255, 255)
    assert image.getpixel((30, 2)) == seen


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_transparent_palette_entry_is_laid_on_white(kind: str) -> None:
    picture = Image.new("P", (32, 32), 0)
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.paste(1, (16, 0, 32, 32))
    image = decode(encode(picture, kind, transparency=0), "x")
    assert image.getpixel((2, 2)) == (255, 255, 255)
    assert image.getpixel((30, 2)) == (200, 100, 50)
    assert decode(encode(picture, kind), "x").getpixel((2, 2)) == (10, 20, 30)


@pytest.mark.parametrize(("mode", "key", "other"), [("RGB", (10, 20, 30), (10, 20, 31)), ("L", 40, 41), ("1", 0, 1)])
def test_transparent_colour_is_laid_on_white(mode: str, key: object, other: object) -> None:
    picture = Image.new(mode, (32, 32), key)
    picture.paste(other, (16, 0, 32, 32))
    image = decode(encode(picture, transparency=key), "x")
    assert image.getpixel((2, 2)) == (255, 255, 255)
    assert image.getpixel((30, 2)) == picture.convert("RGB").getpixel((30, 2))


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue")]
    for kind in ("GIF", "PNG", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert decode(data, "x").getpixel((5, 5)) == (255, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_exif_orientation_is_applied_once(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(colours(), kind, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(encode(colours(), "PNG", exif=exif))))
    image = decode(data, "x")
    np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))
    again = ImageOps.exif_transpose(image)  # what image processors do with any PIL image they are given
    np.testing.assert_array_equal(np.asarray(again), np.asarray(image))
    assert image.info == {}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_does_not_cost_the_picture() -> None:
    data = encode(colours(), "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff junk")
    np.testing.assert_array_equal(np.asarray(decode(data, "x")), np.asarray(colours()))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", r"'x\.jpg' is empty \(0 bytes\)"),
        (b"<!DOCTYPE html><html>not found</html>", r"'x\.jpg' is not an image .*<!DOCTYP"),
        (b"\xff\xd8\xff\xe0 nothing", r"'x\.jpg' is truncated or corrupt: JPEG"),
        (encode(colours(), "JPEG")[:-20], r"'x\.jpg' is truncated or corrupt: .*truncated"),
        (encode(colours())[:-100], r"'x\.jpg' is truncated or corrupt"),
        (encode(colours(rows=MIN_SIDE - 1)), r"'x\.jpg' is 40x15 pixels: a side is under 16"),
        (encode(colours(cols=1)), r"'x\.jpg' is 1x24 pixels"),
        (png_header(50_000, 50_000), r"'x\.jpg' claims 50000x50000 pixels: over the limit of 64 megapixels"),
        (png_header(8001, 8000), r"claims 8001x8000 pixels"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n", r"is not an image"),
    ],
)
def test_skipped_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ImageSkipped, match=reason):
        decode(data, "x.jpg")


def test_sixteen_pixels_are_enough() -> None:
    assert decode(encode(colours(MIN_SIDE, MIN_SIDE)), "x").size == (16, 16)


def test_size_is_judged_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly at the limit the (broken) pixels are looked at, one row above they are not."""
    from PIL import PngImagePlugin

    loads: list[tuple[int, int]] = []
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: loads.append(self.size))
    with pytest.raises(ImageSkipped, match="megapixels"):
        decode(png_header(8000, MAX_PIXELS // 8000 + 1), "x")
    assert loads == []
    monkeypatch.setattr("biaskit.images.decode.to_rgb", lambda _: Image.new("RGB", (16, 16)))
    decode(png_header(8000, MAX_PIXELS // 8000), "x")
    assert set(loads) == {(8000, 8000)}


@pytest.mark.parametrize("limit", [1, None])
def test_global_limit_of_pil_is_neither_read_nor_changed(limit: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    for kind in ("JPEG", "PNG", "BMP", "GIF"):
        assert decode(encode(colours(), kind), "x").size == (40, 24)
    with pytest.raises(ImageSkipped, match="claims 20000x20000"):
        decode(png_header(20_000, 20_000), "x")
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("action", ["error", "ignore"])
def test_warnings_filter_is_neither_read_nor_changed(action: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter(action)  # type: ignore[arg-type]
        before = list(warnings.filters)
        with pytest.raises(ImageSkipped, match="claims 10000x10000 pixels: over the limit"):  # PIL itself would only warn here
            decode(png_header(10_000, 10_000), "x")
        assert warnings.filters == before


def test_threads_do_not_disturb_each_other() -> None:
    good, bomb = encode(colours(), "JPEG"), png_header(30_000, 30_000)
    wrong: list[object] = []

    def work(data: bytes, fine: bool) -> None:
        for _ in range(60):
            try:
                decode(data, "x")
                ok = fine
            except ImageSkipped as error:
                ok = not fine and "megapixels" in error.message
            if not ok:
                wrong.append(data[:4])

    threads = [threading.Thread(target=work, args=(data, fine)) for data, fine in ((good, True), (bomb, False)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_reason_is_the_same_every_time() -> None:
    """Reasons are stored in the prior: no object addresses in them."""
    icon = b"\0\0\1\0\1\0\x20\x20\0\0\1\0\x20\0\x30\0\0\0\x16\0\0\0" + b"\x89PNG\r\n\x1a\n" + b"junk" * 20
    reasons = set()
    for _ in range(3):
        with pytest.raises(ImageSkipped) as caught:
            decode(icon, "x.ico")
        reasons.add(caught.value.message)
    assert len(reasons) == 1
    assert "0x" not in reasons.pop()


def with_scans(count: int, side: int) -> bytes:
    """A progressive JPEG whose last scan is repeated: each costs a pass over the whole picture, and a few hundred bytes."""
    data = encode(Image.new("RGB", (side, side), (9, 99, 199)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * (count - data.count(b"\xff\xda")) + data[-2:]


def test_scans_are_counted_before_they_are_decoded() -> None:
    assert decode(with_scans(400, 500), "x").size == (500, 500)
    with pytest.raises(ImageSkipped, match=r"'x' has 400 scans of 2000x2000 pixels: over the limit of 700 megapixels"):
        decode(with_scans(400, 2000), "x")
    with pytest.raises(ImageSkipped, match="400 scans"):
        measure(with_scans(400, 2000), "x")


@pytest.mark.parametrize(
    ("kind", "mode", "pixels", "reason"),
    [("DDS", "RGB", 3.2e6, "3 megapixels of DDS"), ("WEBP", "RGBA", 51e6, "50 megapixels of WEBP in mode RGB")],
)
def test_slow_and_hungry_formats_have_lower_limits(
    kind: str, mode: str, pixels: float, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture of a quarter of the pixels is enough where every bound is a quarter."""
    for bound in ("MAX_PIXELS", "MAX_MEMORY", "_SLOW_PYTHON"):
        monkeypatch.setattr(f"biaskit.images.decode.{bound}", getattr(decoding, bound) // 100)
    side = int((pixels / 100) ** 0.5) + 1
    with pytest.raises(ImageSkipped, match="over the limit of 0 megapixels of"):
        decode(encode(Image.new(mode, (side, side)), kind), "x")
    assert decode(encode(Image.new(mode, (side * 9 // 10, side * 9 // 10)), kind), "x").mode == "RGB"
    monkeypatch.undo()
    with pytest.raises(ImageSkipped, match=reason):
        decoding._check_cost(Sized((int(pixels**0.5) + 1,) * 2, kind, "RGB"), b"", "x")  # type: ignore[arg-type]


class Sized:
    """The header of a picture of any size."""

    def __init__(self, size: tuple[int, int], kind: str, mode: str) -> None:
        self.size, self.format, self.mode = size, kind, mode
        self.tile = [("dds_rgb",)] if kind == "DDS" else []


def test_an_icon_is_as_large_as_the_picture_in_it() -> None:
    """Its directory says 32x32, the PNG inside something else."""
    inner = png_header(9000, 9000)
    icon = struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 32, 32, 0, 0, 1, 32, len(inner), 22) + inner
    with pytest.raises(ImageSkipped, match="claims an icon of 9000x9000 pixels: over the limit"):
        decode(icon, "x.ico")


@pytest.mark.parametrize("mode", ["I;16", "I", "F", "RGBA", "LA", "P", "L with a key", "RGB with a key"])
def test_bands_are_as_the_whole(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    options: dict[str, object] = {}
    if mode in ("I;16", "I", "F"):
        dtype = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        picture = Image.fromarray((rng.random((60, 40)) * 60000 - (3000 if mode == "I" else 0)).astype(dtype))
    else:
        picture = Image.fromarray(rng.integers(0, 255, (60, 40, 4), dtype=np.uint8))
        picture = picture.quantize() if mode == "P" else picture.convert(mode.split()[0])
    if "key" in mode:
        options["transparency"] = picture.getpixel((7, 7))
    data = encode(picture, "TIFF" if mode in ("F", "I") else "PNG", **options)
    whole = decode(data, "x")
    monkeypatch.setattr("biaskit.images.rgb._BAND", 40 * 7)
    np.testing.assert_array_equal(np.asarray(decode(data, "x")), np.asarray(whole))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_header_says_how_large_a_picture_is(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("PNG", "JPEG", "TIFF"):
        data = encode(colours(), kind, exif=exif)
        found = measure(data, "x")
        assert found.size == decode(data, "x").size
        assert found.stored == (40, 24)
        assert (found.turn is None) == (orientation == 1)


JPEG = encode(colours(), "JPEG")
SEEDS = [JPEG, encode(colours(), "JPEG", progressive=True), encode(colours()), encode(colours(), "GIF"), encode(colours(), "WEBP")]
SEEDS += [encode(colours(), kind) for kind in ("TIFF", "BMP", "ICO", "PCX", "SGI", "TGA", "PPM", "JPEG2000")]
MAGIC = st.sampled_from(
    [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"MM\0*", b"BM", b"P6 ", b"RIFF", b"\0\0\1\0", b"8BPS"]
)


def survives(data: bytes) -> None:
    """Anything but a picture or ImageSkipped fails the test by itself."""
    with suppress(ImageSkipped):
        image = decode(data, "fuzz")
        assert image.mode == "RGB"
        assert min(image.size) >= MIN_SIDE


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=300, deadline=None)
@given(MAGIC, st.binary(max_size=300))
def test_fuzz_random_bytes(magic: bytes, rest: bytes) -> None:
    survives(magic + rest)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=200, deadline=None)
@given(st.sampled_from(SEEDS), st.floats(0, 1))
def test_fuzz_truncations(data: bytes, fraction: float) -> None:
    survives(data[: int(len(data) * fraction)])


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=500, deadline=None)
@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8))
def test_fuzz_byte_flips(data: bytes, flips: list[tuple[float, int]]) -> None:
    broken = bytearray(data)
    for place, value in flips:
        broken[int(place * len(data))] = value
    survives(bytes(broken))
