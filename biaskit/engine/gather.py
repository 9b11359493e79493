"""Pick one sample's readings from those of a batch, without synchronisation: views if the tokens are contiguous, else gathers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biaskit.device import upload
from biaskit.engine.memory import Recorded
from biaskit.engine.narrowing import Narrowing
from biaskit.engine.recorder import join_heads
from biaskit.grid import Layout, PatchIndex
from biaskit.pruners.readings import Reading

if TYPE_CHECKING:
    from biaskit.families import ModelFamily

Indices = NDArray[np.int64]


def readings_of(
    recorded: Mapping[Reading, Recorded], row: int, layout: Layout, whole: Layout, device: torch.device
) -> tuple[dict[Reading, Tensor], Tensor | None]:
    """Return one sample's readings of decoder and projector, and the positions [t] of its text tokens if a reading is of text.

    Args:
        recorded: of the batch. row: of the sample. layout: of its visual tokens at this stage. whole: of all its visual tokens.
        device: of the result.
    """
    found: dict[Reading, Tensor] = {}
    places: dict[int, tuple[slice | Tensor, slice | Tensor]] = {}
    text: Tensor | None = None
    for reading, taken in recorded.items():
        narrowing = taken.narrowing
        assert narrowing is not None
        of_text = reading.tokens == "text"
        if id(narrowing) not in places:
            visual, others = _rows(narrowing, row, layout, whole)
            places[id(narrowing)] = run(visual, device), run(others, device)
            text = torch.from_numpy(narrowing.positions[row][others])
        found[reading] = _of_tokens(reading, taken.values[row].to(device), places[id(narrowing)][of_text])
    return found, text if any(reading.tokens == "text" for reading in found) else None


def _rows(narrowing: Narrowing, row: int, layout: Layout, whole: Layout) -> tuple[Indices, Indices]:
    """Return the rows of a narrowed sequence that hold a layout's visual tokens, and those of text; `whole` has all visual tokens."""
    positions, valid = narrowing.positions[row], narrowing.valid[row]
    here, visual = np.zeros((2, narrowing.keep_mask.shape[1]), bool)
    here[layout.positions] = True
    visual[whole.positions] = True
    return np.flatnonzero(valid & here[positions]), np.flatnonzero(valid & ~visual[positions])


def _of_tokens(reading: Reading, values: Tensor, rows: slice | Tensor) -> Tensor:
    """Some rows of a sample's recorded values, in the shape that `Reading` documents."""
    if reading.what == "keys":
        return join_heads(values[:, rows].float(), reading.heads, 0)
    if reading.what in ("hidden", "rotations"):
        return values[rows]
    return (values[:, rows] if reading.heads == "each" else values[rows]).float()


def first_kept(pruner: object, family: ModelFamily, config: Any, inputs: Mapping[str, Tensor], layouts: Sequence[Layout]) -> list[Indices]:
    """Return the visual tokens of each sample that may be chosen: all, or those that show a picture (`padding="suppress"`)."""
    if getattr(pruner, "padding", "keep") != "suppress":
        return [np.arange(len(layout)) for layout in layouts]
    return [np.flatnonzero(mask) for mask in family.shown(config, inputs, layouts)]


def patches_of(tower: Mapping[Reading, Tensor], first: int, patches: PatchIndex, device: torch.device) -> dict[Reading, Tensor]:
    """Return a sample's part of the readings of the tower, patches in the order in which they are counted.

    Args:
        tower: of the batch. first: index of the sample's first patch. patches: of all its images. device: of the result.
    """
    found = {}
    for reading, values in tower.items():
        mine = values.narrow(reading.axis, first, len(patches))
        if patches.order is not None:
            mine = mine.index_select(reading.axis, upload(patches.order, mine.device))
        found[reading] = mine.to(device)
    return found


def run(places: Indices, device: torch.device) -> slice | Tensor:
    """Return ascending places as an index into a tensor on `device`: a slice, which copies nothing, if they have no gaps."""
    found = span(places)
    return found if isinstance(found, slice) else upload(found, device)


def span(places: Indices) -> slice | Indices:
    """Ascending places as a slice, if they have no gaps.

    Example:
        >>> span(np.array([3, 4, 5])), span(np.array([3, 5]))
        (slice(3, 6, None), array([3, 5]))
    """
    if len(places) and places[-1] - places[0] + 1 == len(places):
        return slice(int(places[0]), int(places[-1]) + 1)
    return places
