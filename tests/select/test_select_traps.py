"""What goes wrong in selections: thresholds, wrapping, tiles, copies, half precision."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from biaskit.errors import BiaskitError
from biaskit.grid import Layout, Plane
from biaskit.select import (
    Graph,
    cells,
    d2_graph,
    d2_select,
    dart_select,
    graph_select,
    max_min_select,
    mmr_select,
    neighbours,
    relative_attention,
    top_k,
    uniform_select,
)
from biaskit.select.cosine import cosines, unit_rows

Select = Callable[[Tensor, Tensor, Tensor, int], Tensor]
ALL: dict[str, Select] = {
    "top_k": lambda scores, features, where, n: top_k(scores, n),
    "d2 by meaning": lambda scores, features, where, n: d2_select(scores, features, where, n).indices,
    "d2 by place": lambda scores, features, where, n: d2_select(scores, features, where, n, alpha=0.5).indices,
    "mmr": lambda scores, features, where, n: mmr_select(scores, features, n),
    "max_min": lambda scores, features, where, n: max_min_select(features, n),
    "dart": lambda scores, features, where, n: dart_select(scores, features, scores[:3], features[:3], n),
    "uniform": lambda scores, features, where, n: uniform_select(len(scores), n),
    "uniform on the grid": lambda scores, features, where, n: uniform_select(len(scores), n, where=where),
}
GRAPHS = ["d2 by meaning", "d2 by place"]


def sample(rows: int, cols: int, seed: int = 0, d: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    smooth = torch.randn(rows * cols, d, generator=random) + 2 * torch.randn(1, d, generator=random)
    return torch.randperm(rows * cols, generator=random).float() + 1, smooth, cells((rows, cols))


def test_importing_select_loads_no_transformers() -> None:
    code = "import sys, biaskit.select; print([m for m in ('transformers', 'matplotlib', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("select", ALL.values(), ids=ALL)
def test_small_samples(select: Select) -> None:
    one = (torch.ones(1), torch.ones(1, 4), cells((1, 1)))
    assert select(*one, 1).tolist() == [0]
    assert select(*one, 5).tolist() == [0]
    scores, features, where = sample(3, 4)
    assert len(select(scores, features, where, 1)) == 1
    assert select(scores, features, where, 12).tolist() == list(range(12))
    assert select(scores, features, where, 99).tolist() == list(range(12))
    with pytest.raises(BiaskitError, match="cannot keep 0 visual tokens"):
        select(scores, features, where, 0)


@pytest.mark.parametrize("select", ALL.values(), ids=ALL)
def test_all_tokens_alike(select: Select) -> None:
    features = torch.randn(1, 300, generator=torch.Generator().manual_seed(0)).expand(24, -1)
    kept = select(torch.ones(24), features, cells((4, 6)), 7)
    assert len(kept) == 7
    if select not in (ALL["uniform"], ALL["uniform on the grid"], ALL["d2 by place"]):
        assert kept.tolist() == list(range(7))  # every decision is a tie


@pytest.mark.parametrize("select", ALL.values(), ids=ALL)
def test_same_answer_twice_and_nothing_changed(select: Select) -> None:
    scores, features, where = sample(6, 6)
    before = [part.clone() for part in (scores, features, where)]
    assert torch.equal(select(scores, features, where, 9), select(scores, features, where, 9))
    assert all(torch.equal(a, b) for a, b in zip(before, (scores, features, where), strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("select", ALL.values(), ids=ALL)
def test_dtypes_agree_where_scores_are_apart(select: Select, dtype: torch.dtype) -> None:
    steps = torch.arange(24.0)
    angles = (steps * 0.618).frac() * 1.5
    features = torch.stack([angles.cos(), angles.sin(), 0.2 + 0.01 * steps], 1)
    scores, where = (steps * 7) % 24, cells((4, 6))
    assert torch.equal(select(scores.to(dtype), features.to(dtype), where, 5), select(scores, features, where, 5))


@pytest.mark.parametrize("select", ALL.values(), ids=ALL)
def test_inside_autocast(select: Select) -> None:
    arguments = sample(6, 6, d=64)
    expected = select(*arguments, 13)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(select(*arguments, 13), expected)


@pytest.mark.parametrize("name", [name for name in ALL if not name.startswith(("uniform", "dart"))])
def test_transposed_image_transposed_choice(name: str) -> None:
    scores, features, where = sample(8, 8)
    turned = torch.arange(64).reshape(8, 8).T.flatten()
    for n in (5, 16, 40):
        straight = ALL[name](scores, features, where, n)
        assert sorted(turned[ALL[name](scores[turned], features[turned], where, n)].tolist()) == straight.tolist()


@pytest.mark.parametrize("name", [name for name in ALL if not name.startswith("uniform")])
def test_any_order_of_tokens(name: str) -> None:
    """Tiles come tile by tile: what counts is the cell a token is in, not its index."""
    scores, features, where = sample(6, 8)
    shuffle = torch.randperm(48, generator=torch.Generator().manual_seed(1))
    if name == "dart":
        select: Select = lambda s, f, w, n: dart_select(s, f, s[:0], f[:0], n)  # noqa: E731
    else:
        select = ALL[name]
    straight = select(scores, features, where, 11)
    assert sorted(shuffle[select(scores[shuffle], features[shuffle], where[shuffle], 11)].tolist()) == straight.tolist()


@pytest.mark.parametrize(
    ("alpha", "theta", "linked"),
    [  # Ŝ is 1/2 beside, 1/2 apart, 1 apart; θ is met exactly by one kind of pair, which is not linked
        (1.0, 0.5, [False, False, True]),
        (0.5, 0.75, [False, False, False]),
        (0.5, 0.5, [True, False, False]),
        (0.8, 0.8, [False, False, False]),
        (0.75, 0.625, [False, False, True]),
        (0.75, 0.75, [False, False, False]),
        (0.0, 1.0, [False, False, False]),
    ],
)
def test_a_fused_value_of_exactly_theta_is_no_edge(alpha: float, theta: float, linked: list[bool]) -> None:
    features = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0.5, 0.5], [0, 1.0, 0, 0], [1.0, 0, 0, 0]])
    where = torch.tensor([[0, 0, 0], [0, 0, 1], [1, 0, 0], [2, 0, 0]])
    pairs = [(0, 1), (1, 2), (0, 3)]
    fused = [alpha / 2 + 1 - alpha, alpha / 2, alpha]
    assert min(abs(value - theta) for value in fused) < 1e-12
    for threshold, expected in ((theta, linked), (theta - 1e-4, [value > theta - 1e-4 for value in fused])):
        graph = d2_graph(features, where, alpha=alpha, theta=threshold).adjacency()
        assert [bool(graph[pair]) for pair in pairs] == expected
        assert torch.equal(graph, graph.T)
        assert not graph.diagonal().any()


@pytest.mark.parametrize(("rows", "cols", "kept"), [(2, 8, [7, 8]), (8, 2, [1, 4]), (1, 16, None), (16, 1, [0, 2])])
def test_no_wrapping_at_row_ends(rows: int, cols: int, kept: list[int] | None) -> None:
    found = neighbours(cells((rows, cols)))
    assert int((found >= 0).sum()) == 2 * (rows * (cols - 1) + (rows - 1) * cols + 2 * (rows - 1) * (cols - 1))
    if kept is not None:
        scores = torch.zeros(16)
        scores[cols - 1], scores[cols] = 2, 1  # the last of the first row, and its successor in flat order, which starts the second row
        keep = d2_select(scores, torch.ones(16, 4), cells((rows, cols)), 2, alpha=0.5, pivot_ratio=0.5, fill="none")
        assert keep.indices.tolist() == kept


def test_tiles_meet_across_their_seam() -> None:
    """2 × 2 tiles of 2 × 2 tokens, tile by tile: tokens 3, 6, 9 and 12 meet in the middle of the canvas; 3 and 4 are not neighbours."""
    tile, inside = torch.arange(16) // 4, torch.arange(16) % 4
    where = torch.stack([torch.zeros(16, dtype=torch.int64), tile // 2 * 2 + inside // 2, tile % 2 * 2 + inside % 2], 1)
    around = set(neighbours(where)[3].tolist())
    assert around == {0, 1, 2, 4, 6, 8, 9, 12}
    assert 4 in around
    assert 5 not in around
    scores = torch.zeros(16)
    scores[3], scores[6] = 2, 1
    assert 6 not in d2_select(scores, torch.ones(16, 4), where, 4, alpha=0.5, pivot_ratio=0.25, fill="none").indices.tolist()


def layout(*planes: Plane, body: list[tuple[int, int, int]]) -> Layout:
    plane, row, col = np.array(body, dtype=np.int64).T
    return Layout(np.arange(len(body), dtype=np.int64) + 5, planes, plane, row, col)


def test_newlines_are_the_canvas_s_last_column() -> None:
    planes = (Plane("base", 2, 2), Plane("canvas", 2, 2), Plane("newline", 2, 1, None))
    body = [(0, r, c) for r in range(2) for c in range(2)]
    for r in range(2):
        body += [(1, r, 0), (1, r, 1), (2, r, 0)]
    two = layout(*planes, body=body)
    assert cells(two)[4:].tolist() == [[1, 0, 0], [1, 0, 1], [1, 0, 2], [1, 1, 0], [1, 1, 1], [1, 1, 2]]
    assert cells(two, newline_column=False)[6].tolist() == [2, 0, 0]
    assert set(neighbours(cells(two))[6].tolist()) == {-1, 5, 8, 9}
    assert set(neighbours(cells(two))[0].tolist()) == {-1, 1, 2, 3}  # planes do not touch


def test_a_lone_newline_stays_a_plane() -> None:
    lone = layout(Plane("base", 2, 1), Plane("newline", 1, 1, None), body=[(0, 0, 0), (0, 1, 0), (1, 0, 0)])
    assert cells(lone).tolist() == [[0, 0, 0], [0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize("name", GRAPHS)
def test_no_edges_means_top_k(name: str) -> None:
    scores, features, where = sample(5, 5)
    alpha = 1.0 if name == "d2 by meaning" else 0.5
    assert d2_select(scores, features, where, 9, alpha=alpha, theta=1.0).indices.tolist() == top_k(scores, 9).tolist()


def test_equal_scores_follow_index_and_graph() -> None:
    """A_bias = A_ori: every score is the same, so only ties and edges decide."""
    attention = torch.rand(16, generator=torch.Generator().manual_seed(0)) + 0.1
    scores = relative_attention(attention, attention, eps=0.0)
    assert scores.tolist() == [1.0] * 16
    keep = d2_select(scores, torch.ones(16, 4), cells((4, 4)), 4, alpha=0.5, pivot_ratio=0.0)
    assert keep.indices.tolist() == [0, 2, 8, 10]


def test_the_spread_of_similarities_moves_the_threshold() -> None:
    """Min–max makes θ depend on the image: the same pair is linked or not by what else there is."""
    pair = torch.tensor([[1.0, 0.0], [0.9, float(np.sqrt(1 - 0.81))]])
    without = d2_graph(torch.cat([pair, torch.tensor([[0.0, 1.0]])]), None)
    assert bool(without.adjacency()[0, 1])
    opposite = d2_graph(torch.cat([pair, torch.tensor([[0.8, 0.6]])]), None)
    assert opposite.s_min == pytest.approx(0.8, abs=1e-5)
    assert not bool(opposite.adjacency()[0, 1])


def test_fill_none_reports_what_is_missing() -> None:
    keep = d2_select(torch.arange(9.0), torch.ones(9, 4), cells((3, 3)), 5, pivot_ratio=0.0, fill="none")
    assert keep.indices.tolist() == [8]  # all alike: the best kills every other
    assert keep.info["missing"] == 4


def test_pivots_are_rounded_down_in_decimal() -> None:
    """0.29 of 100 is 29 pivots, although 0.29 * 100 is 28.999999999999996."""
    keep = d2_select(torch.arange(120.0), torch.eye(120), None, 100, pivot_ratio=0.29)
    assert keep.info["pivots"] == 29
    assert d2_select(torch.arange(120.0), torch.eye(120), None, 9, pivot_ratio=0.7).info["pivots"] == 6


def test_copies_of_a_token_have_cosine_one() -> None:
    """Scaled copies, computed in blocks of every size; once every kind is chosen all the rest tie, and the lower index wins."""
    tokens = torch.randn(40, 1001, generator=torch.Generator().manual_seed(0))
    features = torch.cat([tokens, tokens * 3.7, tokens * 0.013])
    unit = unit_rows(features)
    for size in (1, 7, 40, 120):
        similar = cosines(unit[:size], unit)
        for copy in (0, 40, 80):
            assert torch.equal(similar[:40, copy : copy + 40].diagonal(), torch.ones(min(size, 40)))
    picked = max_min_select(features, 60, order="choice").tolist()
    assert {pick % 40 for pick in picked[:40]} == set(range(40))
    assert picked[40:] == sorted(set(range(120)) - set(picked[:40]))[:20]
    graph = d2_graph(features[::40].repeat(5, 1), None)
    assert (graph.s_min, graph.s_max, graph.density) == (1, 1, 1)


def test_independent_sets_on_a_long_chain() -> None:
    """The worst case for rounds: every token waits for the one before it."""
    n = 101
    fused = torch.zeros(n, n)
    fused[torch.arange(n - 1), torch.arange(1, n)] = 1
    chain = Graph(torch.maximum(fused, fused.T), None, 0.5, 0.0, 1.0)
    keep = graph_select(torch.arange(n, 0, -1).float(), chain, 40, pivot_ratio=0.0)
    assert keep.indices.tolist() == list(range(0, 80, 2))


def test_dart_keeps_copies_and_max_min_does_not() -> None:
    features = torch.tensor([[1.0, 0, 0], [1, 0.1, 0], [-1, 0, 0.5], [-1, 0, 0.5], [1, 0.2, 0]])
    scores = torch.tensor([9.0, 1, 1, 1, 1])
    assert dart_select(scores, features, scores[:0], features[:0], 3, pivots=1).tolist() == [0, 2, 3]
    assert not {2, 3} <= set(max_min_select(features, 3).tolist())


def test_tiny_attentions_in_half_precision() -> None:
    """As densities a float16 prior is exact enough; ε would swamp raw attentions of 1e-8."""
    attention, prior = torch.tensor([4e-4, 2e-4, 6e-4]), torch.tensor([4.0, 1.0, 2.0])
    assert top_k(relative_attention(attention.half(), prior.half()), 3, order="choice").tolist() == [2, 1, 0]
