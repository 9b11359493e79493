"""`Merge`, the result of selections whose kept tokens become weighted sums of all tokens, and VisionZip's selection."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from biaskit.errors import BiaskitError
from biaskit.select.checks import Order, choice, matrix, vector
from biaskit.select.cosine import cosines, unit_rows


@dataclass(frozen=True, eq=False)
class Merge:
    """The kept tokens, and the weights of all tokens in each of them.

    Attributes:
        indices: [n] int64, the kept of N tokens, without repeats; ascending unless another order was asked for.
        weights: [n, N] float32. Row i has the weight of every token in the new token indices[i]; a token kept unchanged has a single 1.
    """

    indices: Tensor
    weights: Tensor

    def __len__(self) -> int:
        """Return n, the number of kept tokens."""
        return len(self.indices)

    def __call__(self, features: Tensor) -> Tensor:
        """Merge [N, d] of any float dtype: [n, d] float32.

        Raises:
            BiaskitError: features of another number of tokens, or values that are not finite.
        """
        features = matrix("features", features, self.weights.shape[1]).float()
        with torch.autocast(features.device.type, enabled=False):
            return self.weights.to(features.device) @ features

    @property
    def merged(self) -> Tensor:
        """[k] which of the n kept tokens have others merged into them."""
        return torch.nonzero(torch.linalg.vector_norm(self.weights, 0, 1) > 1)[:, 0]  # the norm of order 0 counts what is not 0

    def into(self, features: Tensor) -> Tensor:
        """Merge [N, d]: [n, d] of the same dtype; tokens that nothing is merged into are unchanged bit for bit."""
        rows, changed = features[self.indices.to(features.device)].clone(), self.merged.to(features.device)
        if len(changed):
            rows[changed] = Merge(self.indices[changed], self.weights[changed])(features).to(rows.dtype)
        return rows


def identity_merge(n_tokens: int, kept: Tensor) -> Merge:
    """Return the merge that keeps the tokens `kept` [n] of `n_tokens` unchanged.

    Example:
        >>> identity_merge(3, torch.tensor([0, 2])).weights.tolist()
        [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    weights = torch.zeros(len(kept), n_tokens, dtype=torch.float32, device=kept.device)
    weights[torch.arange(len(kept), device=kept.device), kept] = 1
    return Merge(kept, weights)


def ascending(merge: Merge) -> Merge:
    """Sort a merge by index."""
    order = merge.indices.argsort()
    return Merge(merge.indices[order], merge.weights[order])


def visionzip_merge(scores: Tensor, keys: Tensor, dominant: int, contextual: int, *, order: Order = "sequence") -> Merge:
    """Keep the tokens of highest score, and merge the others into a few evenly spaced ones of them (VisionZip, arXiv 2412.04467).

    Of the tokens that are not dominant every step-th is a target, step = max(1, rest // contextual), the first `contextual` of them. Every
    other token of the rest is assigned to the target of highest cosine between keys. A target becomes itself plus the mean of the tokens
    assigned to it: a sum of the two, not an average, as released. A target without assigned tokens is unchanged.

    Args:
        scores: [N] attention of the class token to the patches at the tower's layer −2, summed or averaged over heads.
        keys: [N, d] keys of that layer, averaged over heads.
        dominant: tokens kept unchanged. The published counts include the class token, which is not a patch: 54 + 10 are 53 patches,
            10 merged ones and the class token.
        contextual: number of merged tokens; 0 merges nothing.
        order: `sequence`, by index, a merged token at its target's; `choice`, as released: dominant ones by index, then the merged ones.

    Returns:
        A merge with min(dominant + contextual, N) tokens. A tie goes to the lower index.

    Raises:
        BiaskitError: shapes, values that are not finite, negative counts, or nothing to keep.

    Example:
        >>> import torch
        >>> merge = visionzip_merge(torch.tensor([0.1, 0.9, 0.2, 0.3]), torch.ones(4, 2), dominant=1, contextual=1)
        >>> merge.indices.tolist()
        [0, 1]
        >>> merge(torch.tensor([[1.0], [5.0], [2.0], [4.0]])).tolist()  # 1 + (2 + 4) / 2, and the dominant one
        [[4.0], [5.0]]
    """
    scores = vector("scores", scores)
    keys = matrix("keys", keys, len(scores)).to(scores.device)
    choice("order", order, ("sequence", "choice"))
    if min(dominant, contextual) < 0 or dominant + contextual < 1:
        raise BiaskitError(
            f"cannot keep {dominant} dominant and {contextual} merged tokens", "keep at least one; the paper has 54 and 10, or 162 and 30"
        )
    ranked = scores.sort(descending=True, stable=True).indices
    chosen, rest = ranked[:dominant].sort().values, ranked[dominant:].sort().values
    contextual = min(contextual, len(rest))
    if not contextual:
        return identity_merge(len(scores), chosen)
    step = max(1, len(rest) // contextual)
    is_target = torch.zeros(len(rest), dtype=torch.bool, device=scores.device)
    is_target[torch.arange(contextual, device=scores.device) * step] = True
    targets, others = rest[is_target], rest[~is_target]
    merge = identity_merge(len(scores), torch.cat([chosen, targets]))
    if len(others):
        unit = unit_rows(keys)
        home = cosines(unit[others], unit[targets]).argmax(1)
        members = torch.bincount(home, minlength=contextual)
        merge.weights[len(chosen) + home, others] = 1 / members[home].float()
    return merge if order == "choice" else ascending(merge)
