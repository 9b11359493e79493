"""Draw the training scenes once, to memory-mapped arrays on disk. An interrupted call is resumed by the next."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from biaskit.demo.training.arrays import memory_map
from biaskit.files import write_file
from biaskit.images.scenes.draw import EDGE, MOST_THINGS, PATCHES, VERSION, Thing, draw_scene, things_of

Say = Callable[[str], None]
PHOTO_SHARE = 3
"""One in this many training scenes is uniform; the others are placed as in photographs."""
_CHUNK = 500


def placement_of(index: int) -> str:
    """Return how a training scene is placed."""
    return "uniform" if index % PHOTO_SHARE == 0 else "photo"


@dataclass(frozen=True, eq=False)
class Pictures:
    """The training scenes.

    Attributes:
        pixels: [n, 168, 168, 3] uint8. owner: [n, 144] int8, see `Scene`.
        facts: [n, 10, 7] float32, of each thing size, colour, shape, x1, y1, x2, y2; −1 beyond the last thing.
        seed: of the scenes.
    """

    pixels: NDArray[np.uint8]
    owner: NDArray[np.int8]
    facts: NDArray[np.float32]
    seed: int

    def __len__(self) -> int:
        """Return n."""
        return len(self.owner)

    def things(self, index: int) -> tuple[Thing, ...]:
        """Return the things of one scene."""
        return things_of(self.seed, index, placement_of(index))


def draw_pictures(work: Path, n: int, seed: int, say: Say) -> Pictures:
    """Draw `n` scenes into `work`, or open the existing ones."""
    shapes = {"pixels": ((n, EDGE, EDGE, 3), np.uint8), "owner": ((n, PATCHES**2), np.int8), "facts": ((n, MOST_THINGS, 7), np.float32)}
    marker = work / "pictures.json"
    state = {"n": n, "seed": seed, "version": VERSION, "done": 0}
    if marker.exists() and {**json.loads(marker.read_text()), "done": 0} == state:
        state = json.loads(marker.read_text())
    maps = [memory_map(work / f"{name}.npy", dtype, shape, fresh=not state["done"]) for name, (shape, dtype) in shapes.items()]
    pixels, owner, facts = maps
    began, first = time.monotonic(), state["done"]
    for start in range(first, n, _CHUNK):
        for i in range(start, min(n, start + _CHUNK)):
            scene = draw_scene(seed, i, placement_of(i))
            pixels[i], owner[i], facts[i] = scene.pixels, scene.owner.ravel(), -1
            for row, thing in enumerate(scene.things):
                facts[i, row] = (*thing.key, *thing.box)
        for array in maps:
            array.flush()
        state["done"] = done = min(n, start + _CHUNK)
        write_file(marker, json.dumps(state))
        rate = (done - first) / (time.monotonic() - began)
        say(f"scenes {done}/{n}  {rate:.0f}/s  {(n - done) / rate:.0f} s left")
    return Pictures(pixels, owner, facts, seed)
