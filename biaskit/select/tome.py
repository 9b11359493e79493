"""ToMe: bipartite soft matching of tokens, which merges the most similar pairs block by block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from biaskit.errors import BiaskitError
from biaskit.select.checks import matrix, vector
from biaskit.select.cosine import cosines, unit_rows


@dataclass(frozen=True, eq=False)
class Matching:
    """Which tokens are merged.

    Attributes:
        home: [T] int64, the row after merging that contains each token.
        stands_for: [T − r] int64, the token of each row after merging: an unmerged one, or the one that others were merged into.
    """

    home: Tensor
    stands_for: Tensor

    def merge(self, features: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Average the tokens of each row, weighted by how many original tokens each represents.

        Args:
            features: [T, d]. sizes: [T], from 1.

        Returns:
            ([T − r, d] float32, [T − r] float32 sizes).

        Raises:
            BiaskitError: shapes, or values that are not finite.
        """
        features = matrix("features", features, len(self.home)).float()
        sizes = vector("sizes", sizes, len(self.home)).to(features.device)
        home = self.home.to(features.device)
        total = sizes.new_zeros(len(self.stands_for)).index_add(0, home, sizes)
        mass = features.new_zeros(len(self.stands_for), features.shape[1]).index_add(0, home, features * sizes[:, None])
        return mass / total[:, None], total


def bipartite_matching(keys: Tensor, r: int, *, protected: int = 1) -> Matching:
    """Merge the r most similar pairs of an even and an odd token (ToMe, arXiv 2210.09461).

    Each even token is paired with the odd one of highest cosine; the r even tokens with the highest such cosines are merged into theirs,
    and several may be merged into one. The rows after merging are the other even tokens, by index, and then all odd ones.

    Attention after a merge is proportional: log(size) is added to the logits of each key.

    Args:
        keys: [T, d] keys of the block, averaged over heads.
        r: pairs to merge, at most (T − protected) // 2.
        protected: 1 if the first token is a class token, which is never merged; 0 if not.

    Returns:
        A matching of T tokens to T − r rows. A tie goes to the lower index, of the even and of the odd token.

    Raises:
        BiaskitError: shapes, values that are not finite, negative r, or `protected` neither 0 nor 1.

    Example:
        >>> import torch
        >>> matching = bipartite_matching(torch.tensor([[1.0, 0], [1, 0], [0, 1], [0.1, 1]]), 1, protected=0)
        >>> matching.stands_for.tolist(), matching.home.tolist()
        ([2, 1, 3], [1, 1, 0, 2])
    """
    keys = matrix("keys", keys)
    if r < 0 or protected not in (0, 1):
        raise BiaskitError(
            f"cannot merge {r} pairs with {protected} protected tokens", "merge 0 or more; protect the class token, or nothing"
        )
    total = len(keys)
    r = max(min(r, (total - protected) // 2), 0)
    even, odd = torch.arange(0, total, 2, device=keys.device), torch.arange(1, total, 2, device=keys.device)
    home = torch.empty(total, dtype=torch.int64, device=keys.device)
    if not r:
        stands_for = torch.cat([even, odd])
        home[stands_for] = torch.arange(total, device=keys.device)
        return Matching(home, stands_for)
    unit = unit_rows(keys)
    similar, partner = cosines(unit[even], unit[odd]).max(1)
    similar[:protected] = -torch.inf
    merged = similar.sort(descending=True, stable=True).indices[:r]
    left = torch.ones(len(even), dtype=torch.bool, device=keys.device)
    left[merged] = False
    home[even[left]] = torch.arange(len(even) - r, device=keys.device)
    home[odd] = torch.arange(len(odd), device=keys.device) + len(even) - r
    home[even[merged]] = home[odd[partner[merged]]]
    return Matching(home, torch.cat([even[left], odd]))


def merging_schedule(patches: int, n: int, blocks: int, *, protected: int = 1) -> list[int]:
    """Return how many pairs each block merges so that n of a tile's patches remain: the same number, fewer in the last blocks.

    Args:
        patches: M. n: 1 … M. blocks: number of blocks before the features are read. protected: class tokens, which are never merged.

    Raises:
        BiaskitError: n outside 1 … M, or too few blocks: each merges at most half of the tokens.

    Example:
        >>> schedule = merging_schedule(576, 192, 23)
        >>> schedule[:2], schedule[-2:], tokens_after(577, schedule)[-1]
        ([17, 17], [17, 10], 193)
    """
    if not 1 <= n <= patches:
        raise BiaskitError(f"cannot merge {patches} patches into {n}", f"keep 1 to {patches}")
    found: list[int] = []
    for each in range(patches - n + 1):
        found, total = [], patches + protected
        for _ in range(blocks):
            found.append(max(min(each, (total - protected) // 2, total - protected - n), 0))
            total -= found[-1]
        if total == n + protected:
            return found
    least = tokens_after(patches + protected, [patches] * blocks, protected=protected)[-1] - protected if blocks else patches
    raise BiaskitError(
        f"{blocks} blocks cannot merge {patches} patches into {n}: each merges at most half", f"keep {least} of {patches} or more"
    )


def tokens_after(n_tokens: int, schedule: Sequence[int], *, protected: int = 1) -> list[int]:
    """Return how many of `n_tokens` remain after each block, when block i merges schedule[i] pairs.

    Raises:
        BiaskitError: a negative number.

    Example:
        CLIP-L at 336 pixels, 16 pairs per block; LLaVA reads the tower after 23 of its 24 blocks.

        >>> tokens_after(577, [16] * 24)[22:]
        [209, 193]
    """
    if n_tokens < 0 or min(schedule, default=0) < 0:
        raise BiaskitError(f"cannot merge by {list(schedule)} from {n_tokens} tokens", "give numbers from 0")
    counts = []
    for r in schedule:
        n_tokens -= max(min(r, (n_tokens - protected) // 2), 0)
        counts.append(n_tokens)
    return counts
