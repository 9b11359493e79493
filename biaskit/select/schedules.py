"""Numbers of tokens per layer: PyramidDrop's stages, and counts for layer means."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from biaskit.errors import BiaskitError


def pyramid_counts(n_tokens: int, shares: Sequence[float] = (0.5, 0.25, 0.125)) -> list[int]:
    """Tokens after each stage of PyramidDrop (arXiv 2410.17247): int(share · N) of the original N, at least 1.

    Raises:
        BiaskitError: shares that are not in (0, 1] or that grow.

    Example:
        >>> pyramid_counts(576)
        [288, 144, 72]
    """
    if not all(0 < share <= 1 for share in shares) or any(b > a for a, b in pairwise(shares)):
        raise BiaskitError(f"shares are {list(shares)}", "give falling shares of the original tokens, such as 0.5, 0.25, 0.125")
    return [max(int(round(share * n_tokens, 9)), 1) if n_tokens else 0 for share in shares]


def stage_layers(n_layers: int, stages: int = 3) -> list[int]:
    """Return the layers before which `stages` evenly spaced cuts are made.

    Raises:
        BiaskitError: fewer layers than stages need.

    Example:
        >>> stage_layers(32)
        [8, 16, 24]
    """
    layers = [n_layers * (stage + 1) // (stages + 1) for stage in range(stages)]
    if len({0, *layers}) <= stages:
        raise BiaskitError(f"{n_layers} layers have no room for {stages} stages", "use fewer stages")
    return layers


def layer_counts(n_tokens: int, n_layers: int, cuts: Sequence[tuple[int, int]]) -> list[int]:
    """Return how many visual tokens each of `n_layers` layers sees, when (layer, n) cuts leave n tokens before a layer.

    Raises:
        BiaskitError: layers that do not ascend, or are outside the model.

    Example:
        >>> counts = layer_counts(576, 32, [(8, 288), (16, 144), (24, 72)])
        >>> sum(counts) / len(counts)
        270.0
    """
    layers = [layer for layer, _ in cuts]
    if layers != sorted(set(layers)) or (layers and not 0 <= layers[0] <= layers[-1] < n_layers):
        raise BiaskitError(f"cuts before layers {layers} of {n_layers}", "give ascending layers of the model, each once")
    counts, at = [], dict(cuts)
    for layer in range(n_layers):
        n_tokens = min(at.get(layer, n_tokens), n_tokens)
        counts.append(n_tokens)
    return counts
