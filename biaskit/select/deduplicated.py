"""VisPruner: half of the tokens by importance, half by removing duplicates from the rest in rounds. FasterVLM is its first half."""

from __future__ import annotations

import torch
from torch import Tensor

from biaskit.errors import BiaskitError
from biaskit.select.checks import Order, answer, count, fraction, matrix, vector
from biaskit.select.cosine import cosines, unit_rows


def vispruner_select(
    scores: Tensor, features: Tensor, n: int, *, important: float = 0.5, step: int = 8, order: Order = "sequence"
) -> Tensor:
    """Keep the int(n · important) highest scores, and of the rest the least duplicated tokens (VisPruner, arXiv 2412.01818).

    The rest is a list by falling score. While it is too long, every even entry is compared with all odd ones; the (at most `step`) even
    ones with the highest largest cosine are dropped; the new list is the other even ones by falling cosine, then the odd ones.
    The step is part of the method: another step keeps other tokens. `important=1` is FasterVLM.

    Args:
        scores: [N] attention of the class token to the patches at the tower's layer −2. features: [N, d] the tower's output there.
        n: how many to keep. important: share of n kept by score. step: most tokens dropped in a round.
        order: `choice` gives the important ones by falling score, then the list of the last round.

    Returns:
        [min(n, N)] int64. A tie goes to the earlier entry of the list. If step exceeds the number of even entries, the released loop drops
        too many and keeps fewer tokens than n; here a round drops at most the number needed.

    Raises:
        BiaskitError: shapes, values that are not finite, n or `step` below 1, or `important` outside 0 … 1.

    Example:
        >>> import torch
        >>> rows = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.1], [0.0, 1.0]])
        >>> vispruner_select(torch.tensor([4.0, 3.0, 2.0, 1.0]), rows, 3).tolist()
        [0, 2, 3]
    """
    scores = vector("scores", scores)
    features = matrix("features", features, len(scores)).to(scores.device)
    fraction("important", important)
    if step < 1:
        raise BiaskitError(f"step is {step}", "drop at least 1 token a round; the paper drops 8")
    n = count(n, len(scores))
    ranked = scores.sort(descending=True, stable=True).indices
    first = int(round(n * important, 9))
    rest = ranked[first:]
    wanted = n - first
    if wanted and len(rest) > wanted:
        similar = cosines(unit := unit_rows(features[rest]), unit)
        places = torch.arange(len(rest), device=rest.device)
        while len(places) > wanted:
            even, odd = places[::2], places[1::2]
            closest = similar[even][:, odd].amax(1)
            leaving = min(step, len(places) - wanted, len(even))
            places = torch.cat([even[closest.sort(descending=True, stable=True).indices[leaving:]], odd])
        rest = rest[places]
    return answer(torch.cat([ranked[:first], rest[:wanted]]), order)
