"""Every notebook runs from top to bottom, and is stored with what it shows then: pictures where there are pictures."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from notebooks import run, shown

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path, tmp_path, monkeypatch):
    from biaskit.pruners import pruners

    monkeypatch.chdir(tmp_path)
    known = pruners.names()
    stored = json.loads(path.read_text(encoding="utf-8"))
    made = run(stored, path.name)
    assert shown(made) == shown(stored), "python tests/support/notebooks.py notebooks/*.ipynb writes the outputs"
    for name in set(pruners.names()) - set(known):  # what a notebook registers must not reach other tests
        del pruners._items[name], pruners._classes[name]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_with_its_pictures(path):
    stored = json.loads(path.read_text(encoding="utf-8"))
    pictures = [
        base64.b64decode(output["data"]["image/png"])
        for cell in stored["cells"] if cell["cell_type"] == "code"
        for output in cell["outputs"] if "image/png" in output.get("data", {})
    ]  # fmt: skip
    assert pictures, f"{path.name} shows no picture"
    colours = []
    for picture in pictures:
        image = Image.open(io.BytesIO(picture)).convert("RGB")
        colours.append(len(image.getcolors(1 << 24)))
        assert image.width > 100 and colours[-1] > 5, "an empty picture"
    assert max(colours) > 500, "thumbnails of maps, but no figure"
