"""DivPrune's first token, the one farthest from its nearest neighbour, found without the cosines of all pairs."""

from __future__ import annotations

import numpy as np

from biaskit.select.cpu.cosines import Exact, Product

_ROWS = 32  # tokens whose cosines with all are computed together
_WINDOW = 64  # consecutive tokens among which near neighbours are searched first
_PATIENCE = 8  # average number of exact cosines per token after which all are computed in blocks


def farthest_token(product: Product) -> int:
    """Return argmin over i of i's largest cosine with another token, the lowest index of equals.

    Most tokens have a similar token close by in the sequence, which excludes them. For the others, lowest lower bound first, the bound of
    the largest cosine is improved from approximate cosines with all tokens and made exact, until the lowest value is exact.

    Example:
        >>> import torch
        >>> farthest_token(Product(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])))
        2
    """
    total = len(product)
    if total == 1:
        return 0
    bound: Exact = np.full(total, -np.inf)
    for start, block in product.windows(_WINDOW):
        block.diagonal(dim1=1, dim2=2).fill_(-2)
        largest = block.amax(2).flatten().numpy()
        bound[start : start + len(largest)] = largest - product.errors(largest)
    exact = np.zeros(total, bool)
    asked = 0
    while not exact[bound.argmin()]:
        if asked > _PATIENCE * total:  # as when all tokens are alike
            return int(_nearest(product).argmin())
        tokens = np.argsort(np.where(exact, np.inf, bound), kind="stable")[: min(_ROWS, total - int(exact.sum()))]
        below, above = product.bounds(tokens)
        below[np.arange(len(tokens)), tokens] = above[np.arange(len(tokens)), tokens] = -2
        bound[~exact] = np.maximum(bound, below.max(0))[~exact]
        bound[tokens] = np.maximum(bound[tokens], below.max(1))
        for token, row in zip(tokens, above, strict=True):
            if token == bound.argmin():
                candidates = np.flatnonzero(row >= bound[token])
                bound[token] = product.exact_table(np.array([token]), candidates).max(initial=-1)
                exact[token] = True
                asked += len(candidates)
    return int(bound.argmin())


def _nearest(product: Product) -> Exact:
    """Return every token's largest exact cosine with another one: [N]."""
    largest: Exact = np.full(len(product), -1.0)
    for start, block in product.exact_panels():
        np.fill_diagonal(block, -2)
        rows, columns = largest[start : start + len(block)], largest[start:]
        np.maximum(columns, block.max(0), out=columns)
        np.maximum(rows, block.max(1), out=rows)
    return largest
