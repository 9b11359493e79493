"""The signals of one sample, as a method sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from biaskit.device import upload
from biaskit.errors import BiaskitError
from biaskit.grid import Layout, PatchIndex
from biaskit.pruners.readings import Reading


@dataclass(frozen=True, eq=False)
class Signals:
    """One sample with N visual and t text tokens at decoder layer K. Tensors are on the model's device.

    `signals[reading]` has the recorded values of every reading in the pruner's `needs`; see `Reading` for shapes. Hidden states are in the
    model's dtype, because they are large; `biaskit.select` takes half precision without rounding, but call `.float()` before arithmetic of
    your own. Everything else is float32.

    Attributes:
        layout: where each visual token sits.
        layer: K: tokens are dropped before decoder layer K.
        readings: the recorded values. Those of the tower are per patch, see `patches`.
        patch_index: which patches of the tower are behind each visual token; present if a reading of the tower is.
        a_bias: [N] the prior on this sample's grid, attention × N, if the user gave a prior.
        generator: random generator of this decision, seeded by the engine.
        prompt_ids: [S] token ids of the prompt on the host, padding and image placeholders included; `layout.positions` index it.
        text_positions: [t] positions of the text tokens in the prompt, ascending, on the host; present if a reading of text tokens is.
        final_norm: the language model's last norm, [..., d] → [..., d] float32.
        project: the model's projector: tower features → rows for the language model, [m, D] → [m, d]. If g patches are merged into one
            visual token (Qwen-VL, InternVL) it takes [m, g, D]; [m, D] then means g equal patches.

    Example:
        >>> import numpy as np, torch
        >>> from biaskit.grid import Layout, Plane, raster
        >>> from biaskit.pruners.readings import ATTENTION, HIDDEN
        >>> grid = raster(Plane("image", 1, 3))
        >>> layout = Layout(np.arange(3), grid.planes, grid.plane, grid.row, grid.col)
        >>> signals = Signals(layout, 2, {ATTENTION: torch.tensor([0.1, 0.3, 0.2])})
        >>> len(signals), signals[ATTENTION].argmax().item(), HIDDEN in signals
        (3, 1, False)
    """

    layout: Layout
    layer: int
    readings: Mapping[Reading, Tensor] = field(default_factory=dict)
    patch_index: PatchIndex | None = None
    a_bias: Tensor | None = None
    generator: Generator | None = None
    prompt_ids: Tensor | None = None
    text_positions: Tensor | None = None
    final_norm: Callable[[Tensor], Tensor] | None = None
    project: Callable[[Tensor], Tensor] | None = None

    def __len__(self) -> int:
        """Return N, the number of visual tokens."""
        return len(self.layout)

    def __contains__(self, reading: Reading) -> bool:
        """True if a reading was recorded."""
        return reading in self.readings

    def __getitem__(self, reading: Reading) -> Tensor:
        """Return a reading of every visual token (text token, for those of `tokens="text"`).

        One of the tower is averaged over the patches behind each token; tokens without a patch (newlines) get 0.

        Raises:
            BiaskitError: it was not recorded.
        """
        if reading.at != "tower":
            return self._found(reading)
        rows, real = self._behind(reading, slice(None))
        axis = reading.axis + 1
        if real is None:
            return rows.mean(axis) if rows.shape[axis] > 1 or not rows.is_floating_point() else rows.squeeze(axis)
        return (rows * (real / real.sum(axis, keepdim=True).clamp(min=1)).to(rows.dtype)).sum(axis)

    def at(self, reading: Reading, tokens: Tensor) -> Tensor:
        """Return a reading at some tokens: [m] indices, on any device, in any order. The shape is that of `signals[reading]` with m for N.

        Raises:
            BiaskitError: it was not recorded.

        Example:
            >>> from biaskit.grid import Plane, raster
            >>> from biaskit.pruners.readings import KEYS
            >>> grid = raster(Plane("image", 1, 3))
            >>> layout = Layout(np.arange(3), grid.planes, grid.plane, grid.row, grid.col)
            >>> signals = Signals(layout, 2, {KEYS: torch.arange(12.0).view(2, 3, 2)})  # [key heads, N, head_dim]
            >>> signals.at(KEYS, torch.tensor([2])).tolist()
            [[[4.0, 5.0]], [[10.0, 11.0]]]
        """
        values = self[reading]
        return values.index_select(reading.axis, upload(tokens, values.device))

    def patches(self, reading: Reading) -> tuple[Tensor, ...]:
        """Return a reading of the tower, tile by tile: one tensor per tile, with its M patches in row-major order in place of N.

        Raises:
            BiaskitError: it was not recorded, or is not one of the tower.
        """
        found, patches = self._of_tower(reading)
        return torch.split(found, list(patches.tiles), dim=reading.axis)

    def patch_rows(self, reading: Reading, tokens: Tensor) -> Tensor:
        """Return a reading of the tower at the g patches behind each of some tokens [m]: `signals[reading]`'s shape with m × g for N.

        Missing patches of tokens that have fewer than g are 0.

        Raises:
            BiaskitError: it was not recorded, or is not one of the tower.
        """
        found, real = self._behind(reading, tokens.cpu().numpy())
        return found if real is None else found * real.to(found.dtype)

    def _behind(self, reading: Reading, tokens: NDArray[np.int64] | slice) -> tuple[Tensor, Tensor | None]:
        """The patches behind some tokens, and a mask of those that exist, broadcastable to them; None: all exist."""
        found, patches = self._of_tower(reading)
        axis, index = reading.axis, patches.index[tokens]
        rows = found.index_select(axis, upload(index.clip(min=0).ravel(), found.device)).unflatten(axis, index.shape)
        if (index >= 0).all():
            return rows, None
        shape = [1] * axis + list(index.shape) + [1] * (rows.ndim - axis - 2)
        return rows, upload(index >= 0, found.device).view(shape)

    def _of_tower(self, reading: Reading) -> tuple[Tensor, PatchIndex]:
        if reading.at != "tower":
            raise BiaskitError(f"{reading} is not a reading of the vision tower", "only those have patches; use signals[reading]")
        assert self.patch_index is not None
        return self._found(reading), self.patch_index

    def _found(self, reading: Reading) -> Tensor:
        found = self.readings.get(reading)
        if found is None:
            raise BiaskitError(f"{reading} was not recorded", "name it in the pruner's `needs`")
        return found
