"""What a forward pass costs by formula: multiply-adds of prefill and decode, bytes of the key-value cache. Plain numbers, no model.

Papers write FLOPs and count multiply-adds; so does every function here (hardware FLOPs are twice that). Embeddings, norms and the pruning
decision are left out, as in the papers; `lm_head=True` adds the head for the one position that prefill needs. The papers leave the vision
tower out, too: what it costs, and what methods add that read its attention, are functions of their own.

`visual` says how many visual tokens each layer sees: pairs (first layer, tokens), ascending, each in force until the next one's layer;
`[(0, 2880), (2, 322)]` is K = 2. Tokens may be fractional, for papers that multiply a retention by N.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from biaskit.errors import BiaskitError

FORMULAS = {
    "fastv": "4nd² + 2n²d + 2ndm a layer (FastV; the published tables): full heads, a feed-forward of two matrices",
    "gated": "4nd² + 2n²d + 3ndm a layer: full heads, the three matrices of a gated feed-forward",
    "exact": "every matrix product: 2nd(Hq + Hkv)dh + 2n²·Hq·dh + 3ndm a layer: grouped queries, gated feed-forward",
}
"""n tokens of a layer (visual and text), d hidden size, m feed-forward size, Hq and Hkv query and key heads, dh head size."""

TOWER = "pw + 2p²d a block and tile: p patches (and class token), w weights of a block, d channels; a row that is read adds pd, all add p²d"
"""The tower's formula. Keys and features that are read were computed anyway; attention within windows is counted as of the whole tile."""

Visual = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Dims:
    """Sizes of a language model."""

    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int


@dataclass(frozen=True)
class TowerDims:
    """Sizes of a vision tower: blocks, weights of one (its matrices), channels, class tokens of a tile."""

    blocks: int
    weights: int
    width: int
    class_tokens: int = 0


def tower_cost(dims: TowerDims, tiles: Sequence[int]) -> int:
    """Return the multiply-adds of a vision tower over tiles with these numbers of patches, by the formula `TOWER`, without the projector.

    Example:
        >>> clip = TowerDims(24, 4 * 1024**2 + 2 * 1024 * 4096, 1024, class_tokens=1)
        >>> f"{tower_cost(clip, [576]) / 1e9:.0f} G"
        '191 G'
    """
    sizes = [patches + dims.class_tokens for patches in tiles]
    return dims.blocks * sum(p * dims.weights + 2 * p * p * dims.width for p in sizes)


def tower_rows_cost(dims: TowerDims, tiles: Sequence[int], rows: Sequence[int | None]) -> int:
    """Return the multiply-adds of reading attention of the tower beside it, by the formula `TOWER`.

    Args:
        dims, tiles: as `tower_cost`. rows: of each block that is read, how many rows of a tile: 1 is the class token's, None is all.

    Example:
        >>> clip = TowerDims(24, 4 * 1024**2 + 2 * 1024 * 4096, 1024, class_tokens=1)
        >>> tower_rows_cost(clip, [576], [1]), tower_rows_cost(clip, [576], [None])
        (590848, 340919296)
    """
    sizes = [patches + dims.class_tokens for patches in tiles]
    return sum((p if count is None else count) * p * dims.width for count in rows for p in sizes)


def tokens_per_layer(dims: Dims, n_text: float, visual: Visual) -> list[float]:
    """Return how many tokens, text and visual, each layer sees.

    Raises:
        BiaskitError: `visual` does not begin at layer 0, is not ascending, goes past the last layer, or grows.

    Example:
        >>> tokens_per_layer(Dims(4, 8, 16, 2, 2, 4, 100), 10, [(0, 100), (2, 25)])
        [110, 110, 35, 35]
    """
    starts = [first for first, _ in visual]
    ascending = all(one < two for one, two in pairwise(starts)) and all(one >= two for (_, one), (_, two) in pairwise(visual))
    if not starts or starts[0] != 0 or starts[-1] >= dims.layers or not ascending:
        raise BiaskitError(
            f"visual tokens per layer {list(visual)} of a model with {dims.layers} layers",
            "give (first layer, tokens) from layer 0 on, layers ascending, tokens not growing",
        )
    counts: list[float] = []
    for (first, count), end in zip(visual, [*starts[1:], dims.layers], strict=True):
        counts += [n_text + count] * (end - first)
    return counts


def _linear(dims: Dims, formula: str) -> float:
    """Multiply-adds a token spends on the weights of one layer."""
    if formula not in FORMULAS:
        raise BiaskitError(f"unknown formula {formula!r}", f"choose one of {', '.join(FORMULAS)}")
    d, m = dims.hidden, dims.inner
    if formula == "exact":
        return 2 * d * (dims.heads + dims.kv_heads) * dims.head_dim + 3 * d * m
    return 4 * d * d + (2 if formula == "fastv" else 3) * d * m


def _width(dims: Dims, formula: str) -> int:
    """Channels of the product of queries and keys: heads times head size."""
    return dims.heads * dims.head_dim if formula == "exact" else dims.hidden


def layer_cost(dims: Dims, tokens: float, formula: str = "fastv", *, causal: bool = False) -> float:
    """Return the multiply-adds of one layer over `tokens` tokens.

    Args:
        dims: sizes. tokens: n, text and visual. formula: a key of `FORMULAS`.
        causal: count the lower triangle of attention alone, which is what a flash kernel computes; the papers count the square.

    Raises:
        BiaskitError: unknown formula.

    Example:
        >>> layer_cost(Dims(4, 8, 16, 2, 2, 4, 100), 10.0)
        6720.0
    """
    pairs = tokens * (tokens + 1) / 2 if causal else tokens * tokens
    return tokens * _linear(dims, formula) + 2 * pairs * _width(dims, formula)


def prefill_cost(
    dims: Dims, n_text: float, visual: Visual, formula: str = "fastv", *, causal: bool = False, lm_head: bool = False
) -> float:
    """Return the multiply-adds of one sample's prefill.

    Args:
        dims: sizes. n_text: t, text tokens. visual: see the module's text.
        formula, causal: see `layer_cost`. lm_head: count the head at the last position.

    Raises:
        BiaskitError: unknown formula, or `visual` that does not fit the model.

    Example:
        >>> prefill_cost(Dims(4, 8, 16, 2, 2, 4, 100), 10, [(0, 0)])
        26880
    """
    total = sum(layer_cost(dims, count, formula, causal=causal) for count in tokens_per_layer(dims, n_text, visual))
    return total + (dims.hidden * dims.vocab if lm_head else 0)


def ceiling(dims: Dims, n_text: float, n_visual: float, visual: Visual, formula: str = "fastv", *, causal: bool = False) -> float:
    """Return the speed-up of prefill if time were proportional to multiply-adds: `n_visual` tokens in every layer, divided by `visual`.

    Example:
        >>> round(ceiling(Dims(4, 8, 16, 2, 2, 4, 100), 10, 100, [(0, 100), (2, 25)]), 2)
        1.74
    """
    whole = prefill_cost(dims, n_text, [(0, n_visual)], formula, causal=causal)
    return whole / prefill_cost(dims, n_text, visual, formula, causal=causal)


def cache_bytes(dims: Dims, n_text: float, visual: Visual, *, itemsize: int = 2) -> float:
    """Return the bytes of one sample's keys and values after prefill: Σ over layers of (t + v) · 2 · Hkv · dh · itemsize.

    Args:
        dims: sizes. n_text: t; 0 counts visual tokens only, as the papers do. visual: see the module's text.
        itemsize: bytes of a number, 2 for half precision.

    Raises:
        BiaskitError: `visual` does not fit the model.

    Example:
        >>> cache_bytes(Dims(4, 8, 16, 2, 2, 4, 100), 0, [(0, 100), (2, 25)])
        8000
    """
    return sum(tokens_per_layer(dims, n_text, visual)) * 2 * dims.kv_heads * dims.head_dim * itemsize


def mean_tokens(dims: Dims, visual: Visual) -> float:
    """Return T̄, visual tokens per layer averaged over all layers.

    Example:
        >>> mean_tokens(Dims(4, 8, 16, 2, 2, 4, 100), [(0, 100), (2, 25)])
        62.5
    """
    return sum(tokens_per_layer(dims, 0, visual)) / dims.layers
