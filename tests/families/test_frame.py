"""The frame of a picture is where the stock processors really take their pixels from: a gradient tells, pixel by pixel."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import transformers as hf
from geometry import gradient

from biaskit.families.frame import frame

SQUARE = {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}
PROCESSORS = {
    "clip": lambda: hf.CLIPImageProcessorPil(**SQUARE),
    "clip, another crop": lambda: hf.CLIPImageProcessorPil(size={"shortest_edge": 384}, crop_size={"height": 336, "width": 280}),
    "siglip": lambda: hf.SiglipImageProcessorPil(size={"height": 384, "width": 384}),
    "llava": lambda: hf.LlavaImageProcessorPil(**SQUARE),
    "llava, padded": lambda: hf.LlavaImageProcessorPil(**SQUARE, do_pad=True),
}


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("size", [(640, 480), (427, 640), (336, 336), (640, 213), (97, 61)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_a_gradient_lies_where_the_frame_says(name, size):
    processor = PROCESSORS[name]()
    found = frame(processor, (size[1], size[0]))
    pixels = np.asarray(processor(gradient(*size), return_tensors="np")["pixel_values"][0])
    assert pixels.shape[1:] == found.size
    mean, std = np.array(processor.image_mean)[:, None, None], np.array(processor.image_std)[:, None, None]
    colours = pixels * std + mean
    left, top, right, bottom = found.box
    x = left + (right - left) * (np.arange(found.size[1]) + 0.5) / found.size[1]
    y = top + (bottom - top) * (np.arange(found.size[0]) + 0.5) / found.size[0]
    wide, high = (x > 0.02) & (x < 0.98), (y > 0.02) & (y < 0.98)
    step = max(1 / size[0], 1 / size[1])  # of the image: resampling clamps at its edge
    assert np.abs(colours[0][np.ix_(high, wide)] - x[wide][None]).max() < 0.004 + step / 2
    assert np.abs(colours[1][np.ix_(high, wide)] - y[high][:, None]).max() < 0.004 + step / 2
    outside = ~(((y > -0.02) & (y < 1.02))[:, None] & ((x > -0.02) & (x < 1.02))[None])
    assert (colours[2][outside] < 0.6).all(), "what lies outside the image is padding"
    assert outside.any() == (name == "llava, padded" and size[0] != size[1])


def test_the_frame_of_padding_is_wider_than_the_image():
    padded = frame(PROCESSORS["llava, padded"](), (480, 640))
    assert padded.box == (0.0, pytest.approx(-1 / 6), 1.0, pytest.approx(7 / 6))
    assert frame(PROCESSORS["siglip"](), (480, 640)).part(378, 378) == (0.0, 0.0, 378 / 384, 378 / 384)


def reach(frame_of, records):
    """How many of COCO's boxes have half of their area inside what the tower sees: no answer inside it has a larger IoU."""
    sizes = {image["id"]: (image["height"], image["width"]) for image in records["images"]}
    found = {"larger": [0, 0], "all": [0, 0]}
    for one in records["annotations"]:
        if one["iscrowd"]:
            continue
        rows, cols = sizes[one["image_id"]]
        left, top, right, bottom = frame_of((rows, cols)).box
        x, y, w, h = one["bbox"]
        wide = min(x + w, right * cols) - max(x, left * cols)
        high = min(y + h, bottom * rows) - max(y, top * rows)
        inside = max(0.0, wide) * max(0.0, high) >= 0.5 * w * h
        for kind in ("all", "larger")[: 1 + (one["area"] >= 32**2)]:
            found[kind][0] += inside
            found[kind][1] += 1
    return found


def test_the_crop_loses_the_boxes_that_the_faq_says(coco_sample):
    records = json.loads((coco_sample / "annotations" / "instances_val2017.json").read_text(encoding="utf-8"))
    found = {name: reach(lambda size, name=name: frame(PROCESSORS[name](), size), records) for name in ("clip", "llava, padded")}
    assert found["llava, padded"] == {"larger": [487, 487], "all": [945, 945]}
    faq = " ".join((Path(__file__).parents[2] / "docs/faq.md").read_text(encoding="utf-8").split())
    (larger, of), (every, number) = found["clip"]["larger"], found["clip"]["all"]
    assert f"{larger} of {of} ({larger / of:.0%})".replace("%", " %") in faq
    assert f"{every} of {number} ({every / number:.0%})".replace("%", " %") in faq
