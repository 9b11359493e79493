"""Tiles and grids of the newer families at the sizes of the real checkpoints: a config and an image processor, no weights."""

from __future__ import annotations

import pytest
import transformers as hf
from PIL import Image

from biaskit.families import families
from biaskit.families.checkpoints.processors import build_processor
from biaskit.families.checkpoints.tiny import _TINY
from biaskit.families.checkpoints.tiny_parts import available

idefics = pytest.mark.skipif(not available("Idefics3ImageProcessor"), reason="this release has no Idefics 3 image processor on PIL")


def prepared(name, size, *, vision, pixels, settings=None, **config):
    """A tiny checkpoint's tokenizer and template with a real one's tower, tiles and settings."""
    whole, _stock, tokenizer, own = _TINY[name](1)
    for key, value in vision.items():
        setattr(whole.vision_config, key, value)
    for key, value in config.items():
        setattr(whole, key, value)
    family = families.get(whole.model_type)
    processor = build_processor(family, pixels, tokenizer, {**own, **(settings or {})})
    return family.prepare(processor, whole, [[Image.new("RGB", size)]], ["What?"]).layouts[0]


def planes(layout):
    return [(plane.name, plane.rows, plane.cols) for plane in layout.planes]


@idefics
@pytest.mark.parametrize(
    ("size", "tiles"), [((640, 480), (3, 4)), ((480, 640), (4, 3)), ((500, 200), (2, 4)), ((300, 300), (4, 4)), ((1000, 100), (1, 4))]
)
def test_smolvlm_256m(size, tiles):
    """Tiles of 512 pixels with 64 tokens; the longer side is four tiles."""
    pixels = hf.Idefics3ImageProcessorPil(size={"longest_edge": 2048}, max_image_size={"longest_edge": 512})
    layout = prepared(
        "idefics3", size, vision={"image_size": 512, "patch_size": 16}, pixels=pixels, settings={"image_seq_len": 64}, scale_factor=4
    )
    assert planes(layout) == [("canvas", tiles[0] * 8, tiles[1] * 8), ("thumbnail", 8, 8)]
    assert len(layout) == 64 * (tiles[0] * tiles[1] + 1)


@idefics
def test_idefics3_8b():
    """Tiles of 364 pixels with 169 tokens."""
    pixels = hf.Idefics3ImageProcessorPil(size={"longest_edge": 1456}, max_image_size={"longest_edge": 364})
    layout = prepared(
        "idefics3", (640, 480), vision={"image_size": 364, "patch_size": 14}, pixels=pixels, settings={"image_seq_len": 169}, scale_factor=2
    )
    assert planes(layout) == [("canvas", 39, 52), ("thumbnail", 13, 13)]


@idefics
def test_idefics3_without_tiles():
    """One view alone, of the whole image."""
    pixels = hf.Idefics3ImageProcessorPil(size={"longest_edge": 1456}, max_image_size={"longest_edge": 364}, do_image_splitting=False)
    layout = prepared(
        "idefics3", (640, 480), vision={"image_size": 364, "patch_size": 14}, pixels=pixels, settings={"image_seq_len": 169}, scale_factor=2
    )
    assert planes(layout) == [("thumbnail", 13, 13)]


@pytest.mark.parametrize(("size", "tiles"), [((640, 480), (3, 4)), ((480, 640), (4, 3)), ((300, 300), (1, 1)), ((1000, 100), (1, 10))])
def test_aya_vision_8b(size, tiles):
    """Tiles of 364 pixels with 169 tokens, at most 12."""
    pixels = hf.GotOcr2ImageProcessorPil(size={"height": 364, "width": 364}, crop_to_patches=True, min_patches=1, max_patches=12)
    layout = prepared("aya-vision", size, vision={"image_size": 364, "patch_size": 14}, pixels=pixels, settings={"img_size": 364})
    canvas = ("canvas", tiles[0] * 13, tiles[1] * 13)
    assert planes(layout) == ([canvas] if tiles == (1, 1) else [canvas, ("thumbnail", 13, 13)])


def test_glm_4_1v_9b():
    """Merged patches of 28 pixels."""
    layout = prepared("glm4v", (640, 480), vision={"image_size": 336, "patch_size": 14}, pixels=hf.Glm4vImageProcessorPil())
    assert planes(layout) == [("image", 17, 23)]


def test_llava_next_video_is_llava_next_on_images():
    grid, square = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]], {"height": 336, "width": 336}
    pixels = hf.LlavaNextImageProcessorPil(size={"shortest_edge": 336}, crop_size=square, image_grid_pinpoints=grid)
    layouts = [
        planes(prepared(name, (640, 480), vision={"image_size": 336}, pixels=pixels, image_grid_pinpoints=grid))
        for name in ("llava-next", "llava-next-video")
    ]
    assert layouts[0] == layouts[1] == [("base", 24, 24), ("canvas", 36, 48), ("newline", 36, 1)]
