"""IVC-Prune's coordinate tokens: the visual tokens that rotary embedding rotates least, or by a right angle."""

from __future__ import annotations

import torch
from torch import Tensor

from biaskit.errors import BiaskitError


def coordinate_tokens(rotations: Tensor, count: int) -> Tensor:
    """Return the tokens with the `count` largest mean cosines and those with the `count` largest mean sines, ascending, without repeats.

    Signs count: only angles near 0 and near +90° are coordinates. The picture is not used. Ties go to the lower index.
    IVC-Prune (arXiv 2602.03060), as released.

    Args:
        rotations: [N, 2] mean cosine and sine of the angles of each token. count: round(ρN), from 0 to N.

    Raises:
        BiaskitError: another shape, or a count outside 0 … N.

    Example:
        >>> coordinate_tokens(torch.tensor([[0.9, 0.1], [0.5, 0.7], [0.8, 0.2]]), 1).tolist()
        [0, 1]
    """
    if rotations.ndim != 2 or rotations.shape[1] != 2:
        raise BiaskitError(f"rotations have shape {list(rotations.shape)}, not [N, 2]", "pass the mean cosine and sine of each token")
    if not 0 <= count <= len(rotations):
        raise BiaskitError(f"{count} of {len(rotations)} tokens", f"choose 0 … {len(rotations)}")
    best = rotations.sort(dim=0, descending=True, stable=True).indices[:count]
    found: Tensor = torch.unique(best)
    return found
