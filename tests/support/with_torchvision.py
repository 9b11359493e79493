"""What checkpoints' processors make of pictures, as JSON: a program of its own, for a process that has torchvision.

    python with_torchvision.py DIRECTORY …
    python with_torchvision.py --tiny NAME      a tiny checkpoint passes the contract of families, and what `biaskit models check` probes

A wheel of torchvision that was built for another torch has a compiled part that does not load. The processors do not need it: its operators
are then declared without a body, so that the Python part can be imported.
"""

from __future__ import annotations

import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path

SIZES = [(640, 480), (300, 1000), (120, 90)]


def importable():
    """Declare torchvision's operators if its own library cannot; return what holds the declarations."""
    import torch

    folder = Path(find_spec("torchvision").submodule_search_locations[0])
    try:
        for library in folder.glob("_C*.so"):
            torch.ops.load_library(str(library))
        return None
    except OSError:
        text = (folder / "_meta_registrations.py").read_text(encoding="utf-8")
        declared = torch.library.Library("torchvision", "DEF")
        for name in set(re.findall(r'register_(?:meta|fake)\("(?:torchvision::)?(\w+)"\)', text)):
            declared.define(f"{name}(Tensor x) -> Tensor")
        return declared


def made(directory):
    """Class of the image processor, prompt and layout of every size, and how far, in cells, tokens look from where the layout says."""
    from geometry import distances, features, gradient, transparent

    from biaskit.families.checkpoints.load import load_model

    loaded = load_model(str(directory), device="cpu", dtype="float32")
    transparent(loaded.model)
    found = {"class": type(loaded.processor.image_processor).__name__, "sizes": {}}
    for size in SIZES:
        ready = loaded.family.prepare(loaded.processor, loaded.model.config, [[gradient(*size)]], ["Where?"])
        (layout,) = ready.layouts
        found["sizes"][f"{size[0]}x{size[1]}"] = {
            "ids": ready.inputs["input_ids"][0].tolist(),
            "positions": layout.positions.tolist(),
            "planes": [
                [plane.name, plane.rows, plane.cols, plane.box and [round(edge, 9) for edge in plane.box]] for plane in layout.planes
            ],
            "cells": [layout.plane.tolist(), layout.row.tolist(), layout.col.tolist()],
            "off": distances(features(loaded.model, ready.inputs), layout, loaded.processor.image_processor),
        }
    return found


if __name__ == "__main__":
    held = importable()
    if sys.argv[1] == "--tiny":
        from biaskit.engine.check import check_checkpoint
        from biaskit.families.checkpoints.load import Loaded
        from biaskit.testing import check_family, tiny_model

        tiny = tiny_model(sys.argv[2])
        check_family(*tiny)
        print(json.dumps({one.probe: one.passed for one in check_checkpoint(Loaded(*tiny, sys.argv[2], "tiny"))}))
        sys.exit()
    print(json.dumps({directory: made(directory) for directory in sys.argv[1:]}))
