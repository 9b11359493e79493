"""Made-up samples for the contract of pruners: layouts of every kind, and random signals on them."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import Tensor

from biaskit.grid import Layout, PatchIndex, Plane, Tokens, join, raster
from biaskit.pruners.readings import NAMES, Reading
from biaskit.pruners.signals import Signals


def sample_layouts() -> dict[str, Layout]:
    """Layouts of made-up samples: one grid, a wide one, two images with text between them, a base view with canvas and newlines."""
    row, col = np.divmod(np.arange(20), 5)
    newline = col == 4
    body = Tokens((Plane("canvas", 4, 4), Plane("newline", 4, 1, None)), newline.astype(np.int64), row, np.where(newline, 0, col))
    parts = {
        "square": [raster(Plane("image", 6, 6))],
        "wide": [raster(Plane("image", 2, 12))],
        "two images": [raster(Plane("image", 4, 4)), raster(Plane("image", 3, 4, image=1))],
        "any-res": [raster(Plane("base", 3, 3)), body],
    }
    return {name: _placed(tokens) for name, tokens in parts.items()}


def _placed(parts: list[Tokens]) -> Layout:
    joined = join(parts)
    gaps = np.repeat(np.arange(len(parts)), [len(part) for part in parts]) * 4
    return Layout(7 + np.arange(len(joined)) + gaps, joined.planes, joined.plane, joined.row, joined.col)


def sample_signals(
    layout: Layout,
    needs: frozenset[Reading] = frozenset(NAMES),
    *,
    layer: int = 2,
    seed: int = 0,
    a_bias: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Signals:
    """Random signals of one sample, only what is in `needs`; the same seed gives the same. `dtype` is that of the model.

    Example:
        >>> from biaskit.signals import ATTENTION, EMBEDS
        >>> seen = sample_signals(sample_layouts()["square"], frozenset({ATTENTION}))
        >>> seen[ATTENTION].shape, EMBEDS in seen
        (torch.Size([36]), False)
    """
    random, n = torch.Generator().manual_seed(seed), len(layout)
    end = int(layout.positions[-1])
    text = torch.tensor([i for i in range(end + 9) if i not in set(layout.positions.tolist())])
    bias = torch.rand(n, generator=random) + 0.2 if a_bias else None
    return Signals(
        layout,
        layer,
        {reading: _made_up(reading, n if reading.tokens == "visual" else len(text), seed, dtype) for reading in needs},
        PatchIndex(np.arange(n)[:, None], (n,)) if any(reading.at == "tower" for reading in needs) else None,
        a_bias=bias,
        generator=torch.Generator().manual_seed(seed),
        prompt_ids=torch.arange(end + 9),
        text_positions=text if any(reading.tokens == "text" for reading in needs) else None,
        final_norm=lambda x: 2 * x.float(),
        project=lambda x: x.to(dtype).reshape(len(x), -1)[:, :WIDTH] * 2,
    )


WIDTH = 12
"""Width d of the rows of a made-up model."""


def _made_up(reading: Reading, n: int, seed: int, dtype: torch.dtype) -> Tensor:
    """A random reading of n tokens; it does not depend on which other readings are made."""
    random = torch.Generator().manual_seed(seed * 1000 + zlib.crc32(str(reading).encode()) % 1000)
    if reading.what == "groups":
        return torch.randint(0, max(1, n // 2), (n,), generator=random)
    shape = [2, n] if reading.heads == "each" else [n]
    if reading.rows:
        return torch.rand(shape, generator=random) / n if reading.what == "attention" else torch.randn(shape, generator=random)
    if reading.what == "rotations":
        return 2 * torch.rand(n, 2, generator=random) - 1
    if reading.what == "keys":
        return torch.randn(*shape, 4, generator=random)
    return (torch.randn(n, WIDTH, generator=random) + torch.randn(1, WIDTH, generator=random)).to(dtype)
