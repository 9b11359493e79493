"""Where each family's visual tokens sit: light one spot of the image and find it at the right plane, row and col."""

from __future__ import annotations

import re
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from biaskit.errors import ModelError
from biaskit.families import families
from biaskit.families.checkpoints.decoder import decoder
from biaskit.families.checkpoints.tiny import TINY, tiny_model
from biaskit.families.checkpoints.tiny_parts import available
from biaskit.families.internvl import arrangement

SIZES = [(640, 480), (480, 640), (500, 200), (150, 420), (336, 336)]
SPOTS = [(0.5, 0.5), (0.12, 0.2), (0.85, 0.3), (0.3, 0.9), (0.93, 0.93)]


def visual_embeddings(model, prepared):
    """[N, D] what the language model receives for the visual tokens of the first sample."""
    got = []
    handle = decoder(model).register_forward_pre_hook(lambda module, args, kwargs: got.append(kwargs["inputs_embeds"]), with_kwargs=True)
    try:
        with torch.no_grad():
            model.base_model(**prepared.inputs, use_cache=False)
    finally:
        handle.remove()
    return got[0][0, torch.from_numpy(prepared.layouts[0].positions)]


def lit(size, spot=None, radius=7):
    """A grey image, with one white spot centred at the fraction `spot` of it."""
    cols, rows = size
    pixels = np.full((rows, cols, 3), 90, dtype=np.uint8)
    if spot is not None:
        x, y = int(spot[0] * cols), int(spot[1] * rows)
        pixels[max(0, y - radius) : y + radius, max(0, x - radius) : x + radius] = 255
    return Image.fromarray(pixels)


def _scales(plane, size):
    """For rows and cols: pixels of the image, cells of the plane, and the fraction of the image they span."""
    left, top, right, bottom = plane.box
    return (size[1], plane.rows, bottom - top), (size[0], plane.cols, right - left)


def cell_of(plane, spot):
    """(row, col) of the cell that covers the spot, or None; from the plane's box alone."""
    left, top, right, bottom = plane.box
    col, row = (spot[0] - left) / (right - left) * plane.cols, (spot[1] - top) / (bottom - top) * plane.rows
    return (row, col) if 0 <= row < plane.rows and 0 <= col < plane.cols else None


@pytest.fixture(scope="module", params=TINY)
def local(request):
    """(model, processor, family) whose vision tower has no attention: a patch of the image reaches the visual tokens that cover it only."""
    model, processor, family = tiny_model(request.param)
    silenced = 0
    with torch.no_grad():
        for name, weight in model.named_parameters():
            tower = "vision" in name or "visual" in name
            if tower and re.search(r"attn?\w*\.(out_proj|proj|projection_layer)\.|attention\.(out_proj|o_proj|projection_layer)\.", name):
                weight.zero_()
                silenced += name.endswith("weight")
    vision = model.config.vision_config
    assert silenced >= (getattr(vision, "depth", None) or vision.num_hidden_layers), "every layer's output projection, and a pooling head's"
    return model, processor, family


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_a_lit_spot_is_found_where_the_layout_says(local, size):
    model, processor, family = local
    dark = family.prepare(processor, model.config, [[lit(size)]], ["where?"])
    layout = dark.layouts[0]
    before = visual_embeddings(model, dark)
    found = 0
    for spot in SPOTS:
        after = visual_embeddings(model, family.prepare(processor, model.config, [[lit(size, spot)]], ["where?"]))
        changed = layout.fold((after - before).norm(dim=-1).numpy())
        for plane, change in zip(layout.planes, changed, strict=True):
            if plane.box is None:
                assert change.max() == 0, "a newline token does not see the image"
                continue
            expected = cell_of(plane, spot)
            if expected is None:
                continue
            rows, cols = np.nonzero(change > 1e-3 * change.max())
            radius = [7 / pixels * cells / span for pixels, cells, span in _scales(plane, size)]
            reach = [r + 1.5 for r in radius]  # the resampling filter, and half a cell
            assert change.max() > 0
            assert np.abs(rows + 0.5 - expected[0]).max() <= reach[0], (plane, spot, expected, rows)
            assert np.abs(cols + 0.5 - expected[1]).max() <= reach[1], (plane, spot, expected, cols)
            row, col = np.unravel_index(change.argmax(), change.shape)
            assert abs(row + 0.5 - expected[0]) <= radius[0] + 0.5, (plane, spot, (row, col), expected)
            assert abs(col + 0.5 - expected[1]) <= radius[1] + 0.5, (plane, spot, (row, col), expected)
            found += 1
    assert found >= len([p for p in layout.planes if p.box is not None]), "most spots must lie inside the planes"


def test_planes_cover_the_image(tiny):
    """Each family shows the whole image at least once, except LLaVA-1.5, which crops the centre."""
    model, processor, family = tiny
    for size in SIZES:
        layout = family.prepare(processor, model.config, [[lit(size, (0.5, 0.5))]], ["?"]).layouts[0]
        boxes = [plane.box for plane in layout.planes if plane.box is not None]
        left, top, right, bottom = (min(b[0] for b in boxes), min(b[1] for b in boxes), max(b[2] for b in boxes), max(b[3] for b in boxes))
        if family.title == "LLaVA-1.5":  # the longer side is scaled to a whole number of pixels
            scaled = [336 if pixels == min(size) else 336 * pixels // min(size) for pixels in size]
            assert right - left == pytest.approx(336 / scaled[0]) and bottom - top == pytest.approx(336 / scaled[1])
            assert left * scaled[0] == pytest.approx((scaled[0] - 336) // 2) and top * scaled[1] == pytest.approx((scaled[1] - 336) // 2)
        else:
            assert left <= 1e-9 and top <= 1e-9 and right >= 1 - 1e-9 and bottom >= 1 - 1e-9


def test_batches_with_several_images_per_prompt(tiny):
    model, processor, family = tiny
    a, b, c = lit((320, 240), (0.5, 0.5)), lit((200, 300), (0.2, 0.2)), lit((300, 300), (0.8, 0.8))
    batch = family.prepare(processor, model.config, [[a, b], [c]], ["compare the two", "what?"])
    ids = batch.inputs["input_ids"]
    for row, layout in enumerate(batch.layouts):
        assert np.array_equal(layout.positions, np.flatnonzero(ids[row].numpy() == model.config.image_token_id))
    assert {plane.image for plane in batch.layouts[0].planes} == {0, 1}
    assert {plane.image for plane in batch.layouts[1].planes} == {0}
    alone = family.prepare(processor, model.config, [[c]], ["what?"]).layouts[0]
    assert [(p.name, p.rows, p.cols) for p in batch.layouts[1].planes] == [(p.name, p.rows, p.cols) for p in alone.planes]
    with torch.no_grad():
        model(**batch.inputs)


def test_layout_of_stock_inputs_without_sizes(tiny):
    """What a user's own processor call gives is enough; only the part of the image LLaVA-1.5 crops stays unknown."""
    model, processor, family = tiny
    rng = np.random.default_rng(0)
    for size in SIZES:
        smooth = Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
        prepared = family.prepare(processor, model.config, [[smooth]], ["?"])
        (layout,) = family.layout(model.config, prepared.inputs)
        known = prepared.layouts[0]
        assert [(p.name, p.rows, p.cols) for p in layout.planes] == [(p.name, p.rows, p.cols) for p in known.planes]
        assert all(np.array_equal(getattr(layout, part), getattr(known, part)) for part in ("positions", "plane", "row", "col"))


def test_mismatched_inputs_are_refused(tiny):
    model, processor, family = tiny
    prepared = family.prepare(processor, model.config, [[lit((320, 240), (0.5, 0.5))]], ["?"])
    broken = dict(prepared.inputs)
    ids = broken["input_ids"].clone()
    ids[0, prepared.layouts[0].positions[0]] = 3
    broken["input_ids"] = ids
    with pytest.raises(ModelError, match="visual tokens"):
        family.layout(model.config, broken)


def test_internvl_arrangement_is_the_processors():
    rng = np.random.default_rng(0)
    for _ in range(3000):
        size = tuple(int(v) for v in rng.integers(30, 2000, 2))
        cols, rows = get_optimal_tiled_canvas(size, (448, 448), 1, 12)
        assert arrangement(cols * rows, size[1] / size[0]) == (rows, cols), size


def test_every_family_is_tested_and_gives_a_canonical_size(tiny):
    model, processor, family = tiny
    layout = family.prepare(processor, model.config, [[lit((640, 480), (0.5, 0.5))]], ["?"]).layouts[0]
    assert {plane.name for plane in layout.planes} <= set(family.canonical(model.config))
    assert max(family.default_layers(model.config)) < model.config.text_config.num_hidden_layers


def test_the_list_of_tiny_models_covers_every_family():
    """Where the stock library's image processor does not run without torchvision, a family has none."""
    missing = set() if available("Idefics3ImageProcessor") else {"idefics3", "smolvlm"}
    missing |= set() if find_spec("torchvision") else {"mistral3"}
    assert {tiny_model(name, layers=1)[0].config.model_type for name in TINY} == set(families.names()) - missing


def test_a_processor_without_chat_template_is_refused(tiny):
    model, processor, family = tiny
    kept, processor.chat_template = processor.chat_template, None
    try:
        with pytest.raises(ModelError, match="no chat template"):
            family.prepare(processor, model.config, [[lit((64, 64), (0.5, 0.5))]], ["?"])
    finally:
        processor.chat_template = kept
