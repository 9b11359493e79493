"""Verify a checkpoint's layout: a white spot is drawn on a grey picture, and the visual token that changes most must cover it.

The vision tower's attention outputs zeros during a probe, so that the result is exact for any weights: a visual token then depends on its
own patches only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from biaskit.device import cast_inputs
from biaskit.engine.calls import watch_attention
from biaskit.engine.reference import entering
from biaskit.families.base import Prepared
from biaskit.families.checkpoints.decoder import decoder
from biaskit.families.checkpoints.device import input_device
from biaskit.families.checkpoints.load import Loaded
from biaskit.grid import Layout, Plane
from biaskit.tasks.conventions import PROMPT

SIZES = ((640, 480), (480, 640), (1000, 300), (336, 336))
"""(width, height) in pixels of the pictures that are probed."""
SPOTS = ((0.5, 0.5), (0.12, 0.2), (0.85, 0.3), (0.3, 0.9), (0.93, 0.93))
"""(x, y) of the lit spots, in fractions of the picture."""
NEAR = 0.5
"""Cells allowed between the white square and the cell that changes most; resampling spreads a spot by up to half a cell."""


@dataclass(frozen=True)
class Spots:
    """The result of the probes.

    Attributes:
        tried: number of spots inside some plane. missed: descriptions of those found in a wrong cell. cells: largest distance, in cells.
    """

    tried: int
    missed: tuple[str, ...]
    cells: float


def lit_spots(loaded: Loaded) -> Spots:
    """Probe every spot of every picture size on every plane that contains it."""
    tried, missed, worst = 0, [], 0.0
    with implementation(loaded.model, "sdpa"), _local_tower(loaded.model), torch.inference_mode():
        for size in SIZES:
            layout, dark = _visual(loaded, size, None)
            for spot in SPOTS:
                change = layout.fold((_visual(loaded, size, spot)[1] - dark).norm(dim=-1).numpy())
                for plane, cells in zip(layout.planes, change, strict=True):
                    off = _cells_off(plane, cells, size, spot)
                    if off is not None:
                        tried, worst = tried + 1, max(worst, off)
                        missed += [f"{plane.name} of {size[0]}x{size[1]} at {spot}"] if off > NEAR else []
    return Spots(tried, tuple(missed), worst)


def spotted(size: tuple[int, int], spot: tuple[float, float] | None = None) -> Image.Image:
    """A grey picture of (width, height) pixels, with a white square centred at the fraction `spot` of it."""
    width, height = size
    pixels = np.full((height, width, 3), 90, dtype=np.uint8)
    if spot is not None:
        radius, x, y = _radius(size), round(spot[0] * width), round(spot[1] * height)
        pixels[max(0, y - radius) : y + radius, max(0, x - radius) : x + radius] = 255
    return Image.fromarray(pixels)


def _radius(size: tuple[int, int]) -> int:
    return max(3, min(size) // 48)


def prepared(loaded: Loaded, picture: Image.Image, prompt: str = PROMPT) -> Prepared:
    """One sample, on the model's device and in its dtype."""
    model = loaded.model
    ready = loaded.family.prepare(loaded.processor, model.config, [[picture]], [prompt])
    return Prepared(cast_inputs(ready.inputs, model.dtype, input_device(model)), ready.layouts)


@contextmanager
def _local_tower(model: PreTrainedModel) -> Iterator[None]:
    """Make the vision tower's attention output zeros inside the block."""
    language = set(decoder(model).modules())
    tower = {module for module in model.base_model.modules() if module not in language}
    names = {str(getattr(getattr(module, "config", None), "_attn_implementation", None)) for module in tower}

    def silenced(module: Any, query: Tensor, _key: Tensor, _mask: Any, _kwargs: Any) -> tuple[Tensor, None] | None:
        return (torch.zeros_like(query.transpose(1, 2)), None) if module in tower else None

    with ExitStack() as handles:
        for name in names:
            if name in ALL_ATTENTION_FUNCTIONS:
                handles.enter_context(watch_attention(name, silenced))
        yield


def _visual(loaded: Loaded, size: tuple[int, int], spot: tuple[float, float] | None) -> tuple[Layout, Tensor]:
    """Return the layout, and the visual tokens' embeddings [N, d] as the language model receives them."""
    ready = prepared(loaded, spotted(size, spot))
    received = entering(loaded.model, ready.inputs)["inputs_embeds"][0]
    return ready.layouts[0], received[torch.from_numpy(ready.layouts[0].positions).to(received.device)].float().cpu()


def _cells_off(plane: Plane, change: NDArray[Any], size: tuple[int, int], spot: tuple[float, float]) -> float | None:
    """Distance in cells between the one that changed most and the white square; None if the spot is outside the plane."""
    if plane.box is None:
        return None
    left, top, right, bottom = plane.box
    col, row = (spot[0] - left) / (right - left) * plane.cols, (spot[1] - top) / (bottom - top) * plane.rows
    if not (0 <= row < plane.rows and 0 <= col < plane.cols):
        return None
    seen_row, seen_col = np.unravel_index(np.nanargmax(change), change.shape)
    reach = [_radius(size) / pixels * cells / span for pixels, cells, span in _scales(plane, size)]
    off = [abs(int(at) + 0.5 - want) - 0.5 - r for at, want, r in zip((seen_row, seen_col), (row, col), reach, strict=True)]
    return max(0.0, *off)


def _scales(plane: Plane, size: tuple[int, int]) -> tuple[tuple[int, int, float], tuple[int, int, float]]:
    """For rows and cols each: pixels of the picture, cells of the plane, and the fraction of the picture that the cells span."""
    assert plane.box is not None
    left, top, right, bottom = plane.box
    return (size[1], plane.rows, bottom - top), (size[0], plane.cols, right - left)


@contextmanager
def implementation(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Switch the model to another attention implementation inside the block."""
    before = {part: part.config._attn_implementation for part in model.modules() if isinstance(part, PreTrainedModel)}
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        for part, own in before.items():
            part.config._attn_implementation = own
