"""The token farthest from its nearest neighbour, with which DivPrune begins, on the CPU without all pairs."""

from __future__ import annotations

import numpy as np

from biaskit.select.cpu.cosines import Floats, Indices, Product

_FEW = 32  # rows computed at a time
_WINDOW = 64  # tokens in sequence among which neighbours are looked for first
_SPARE = 2**24  # numbers: so many bounds are kept (64 MiB)
_PATIENCE = 8  # exact cosines a token: after so many one by one all are computed at once

Bounds = dict[int, tuple[Floats, Floats]]
"""Bounds of the cosines with all tokens from below and above, [N] each, by token."""


def most_isolated(product: Product) -> tuple[int, Bounds]:
    """Return argmin over i of i's largest cosine with another token, the lowest index of equals, and bounds computed on the way.

    Most tokens have a near neighbour close by in the sequence, which says that they are not it. Of those that may be, all cosines are
    looked at, the lowest bound first, until the lowest bound is an exact value.
    """
    total = len(product)
    if total == 1:
        return 0, {}
    bound: Floats = np.full(total, -np.inf, np.float32)
    for start, block in product.windows(_WINDOW):
        block.diagonal(dim1=1, dim2=2).fill_(-2)
        largest: Floats = block.amax(2).flatten().numpy()
        bound[start : start + len(largest)] = largest - product.errors(largest)
    exact = np.zeros(total, bool)
    found: Bounds = {}
    asked = 0
    token = int(bound.argmin())
    while not exact[token]:
        if asked > _PATIENCE * total:  # as when all tokens are alike
            bound[:] = _nearest(product)
            exact[:] = True
        elif token not in found:
            while 2 * len(found) * total > _SPARE:
                del found[next(iter(found))]  # the oldest; computed again if it is asked for
            found |= _looked_at(product, bound, np.array([i for i in np.argsort(bound, kind="stable").tolist() if i not in found][:_FEW]))
        else:
            near = np.flatnonzero(found[token][1] >= bound[token])
            near = near[near != token]
            bound[token] = product.exact(token, near).max() if len(near) else -1.0
            exact[token] = True
            asked += len(near)
        token = int(bound.argmin())
    return token, found


def _looked_at(product: Product, bound: Floats, tokens: Indices) -> Bounds:
    """Compute bounds of the cosines of m tokens with all, and raise the `bound` [N] of largest cosines by them."""
    below, above = product.bounds(tokens, about=max(float(bound[tokens].max()), 0.0))
    own = np.arange(len(tokens)), tokens
    below[own] = -2
    np.maximum(bound, below.max(0), out=bound)
    bound[tokens] = np.maximum(bound[tokens], below.max(1))
    return {token: (low.copy(), high.copy()) for token, low, high in zip(tokens.tolist(), below, above, strict=True)}  # not all of a block


def _nearest(product: Product) -> Floats:
    """Return every token's largest exact cosine with another one: [N]."""
    largest: Floats = np.full(len(product), -1.0, np.float32)
    for start, block in product.exact_panels():
        np.fill_diagonal(block, -2)
        rows, columns = largest[start : start + len(block)], largest[start:]
        np.maximum(columns, block.max(0), out=columns)
        np.maximum(rows, block.max(1), out=rows)
    return largest
