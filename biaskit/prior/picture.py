"""A small picture of a map for notebooks: multiples of its mean, blue to red, one square per visual token. See also `figures.heatmap`."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from biaskit.text import for_html

SHOWN = 4
"""Most layers that are shown."""
_SIDE = 168  # pixels of the longer side, at least one a token
_LESS, _EVEN, _MORE = (np.array(colour, dtype=np.float64) for colour in ((63, 111, 163), (245, 245, 245), (194, 84, 90)))
_LIMIT = 2.0  # |log2| of the strongest colours: a quarter of the mean, and four times it


def png(values: NDArray[np.float64]) -> bytes:
    r"""Draw a map [rows, cols] as PNG; the same map gives the same bytes.

    >>> png(np.ones((2, 3)))[:4]
    b'\x89PNG'
    """
    from PIL import Image

    with np.errstate(divide="ignore"):
        level = np.clip(np.log2(values / values.mean()), -_LIMIT, _LIMIT) / _LIMIT if values.any() else np.zeros(values.shape)
    ends = np.where(level[..., None] < 0, _LESS, _MORE)
    colours = np.rint(_EVEN + np.abs(level)[..., None] * (ends - _EVEN)).astype(np.uint8)
    step = max(1, _SIDE // max(values.shape))
    buffer = io.BytesIO()
    Image.fromarray(colours.repeat(step, axis=0).repeat(step, axis=1)).save(buffer, format="PNG")
    return buffer.getvalue()


def html(line: str, maps: Mapping[int, NDArray[np.float64]], n_layers: int) -> str:
    """Return a line of text above pictures of maps by layer, as HTML; the text is escaped."""
    pictures = [
        f'<figure style="margin:0"><img alt="layer {layer}" src="data:image/png;base64,{base64.b64encode(png(values)).decode()}">'
        f"<figcaption>layer {layer} (K = {layer + 1})</figcaption></figure>"
        for layer, values in maps.items()
    ]
    more = f"<p>and {n_layers - len(maps)} more layers</p>" if n_layers > len(maps) else ""
    scale = "<p>attention over its mean: blue a quarter or less, white 1, red four times or more</p>"
    return f'<div><p>{for_html(line)}</p><div style="display:flex;gap:8px">{"".join(pictures)}</div>{more}{scale}</div>'
