"""COCO annotation files: mutated values and bytes."""

from __future__ import annotations

import json

import pytest
from mutations import as_json, mutated, mutated_json
from PIL import Image
from sandbox import times

from biaskit.images import open_source

WHOLE = {
    "images": [{"id": k, "file_name": f"{k}.png", "width": 40, "height": 30, "coco_url": f"http://127.0.0.1:9/{k}.png"} for k in range(3)],
    "annotations": [{"id": k, "image_id": k, "bbox": [1, 2, 3, 4], "category_id": 1} for k in range(3)],
    "categories": [{"id": 1, "name": "thing"}],
}


@pytest.fixture
def read(tmp_path):
    (tmp_path / "images").mkdir()
    for k in range(3):
        Image.new("RGB", (40, 30)).save(tmp_path / "images" / f"{k}.png")

    def read(data):
        (tmp_path / "instances_x.json").write_bytes(data)
        source = open_source(tmp_path / "instances_x.json")
        json.dumps([source.identify(k).encode().decode() for k in range(len(source))])
        source.fingerprint()
        source.load(0)

    return read


@pytest.mark.parametrize("kind", ["values", "bytes"])
def test_mutated(kind, survives, random, read):
    make = (lambda: as_json(mutated_json(WHOLE, random))) if kind == "values" else (lambda: mutated(as_json(WHOLE), random))
    survives("annotation files mutated", read, [("whole", as_json(WHOLE)), *((f"{kind} {k}", make()) for k in range(times(150, 900)))])
