"""Scenes: seeded, independent of each other, and what is said of them is what is drawn."""

from __future__ import annotations

import io
import pickle
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from biaskit.errors import SourceError
from biaskit.images import open_source
from biaskit.images.decode import decode
from biaskit.images.scenes.draw import COLOUR_NAMES, COLOURS, EDGE, PATCH, PATCHES, PLACEMENTS, draw_scene, things_of
from biaskit.images.scenes.source import SceneSource

scenes = st.tuples(st.integers(0, 50), st.integers(0, 5000), st.sampled_from(PLACEMENTS[:2]))


@given(scenes)
@settings(max_examples=60, deadline=None)
def test_things_are_unique_apart_and_inside(scene: tuple[int, int, str]) -> None:
    things = things_of(*scene)
    assert 4 <= len(things) <= 10
    assert len({thing.key for thing in things}) == len(things)
    for thing in things:
        x1, y1, x2, y2 = thing.box
        assert 0 < x1 < x2 < EDGE
        assert 0 < y1 < y2 < EDGE
    for one, other in combinations(things, 2):
        a, b = one.box, other.box
        assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]


def test_same_seed_same_bytes_in_any_order() -> None:
    forward = [draw_scene(3, i, "photo").pixels.tobytes() for i in range(4)]
    backward = [draw_scene(3, i, "photo").pixels.tobytes() for i in reversed(range(4))][::-1]
    assert forward == backward
    assert len({*forward, draw_scene(4, 0, "photo").pixels.tobytes(), draw_scene(3, 0, "uniform").pixels.tobytes()}) == 6


def test_things_are_drawn_where_and_how_they_are_said_to_be() -> None:
    """Oracle: the pixels under a thing's centre (a ring's band, instead) have its colour, up to tint and grain."""
    for index in range(12):
        scene = draw_scene(1, index, "uniform")
        for thing in scene.things:
            x, y = (thing.x + 0.79 * thing.radius, thing.y) if thing.shape == 5 else (thing.x, thing.y)
            seen = scene.pixels[round(y) - 1 : round(y) + 1, round(x) - 1 : round(x) + 1].reshape(-1, 3).mean(0)
            distance = {name: np.linalg.norm(seen - np.array(value)) for name, value in COLOURS.items()}
            assert min(distance, key=distance.__getitem__) == COLOUR_NAMES[thing.colour]


def test_owner_is_the_thing_that_covers_most_of_a_patch() -> None:
    """Oracle: count a thing's pixels in its box, patch by patch, for squares, whose box is their area."""
    checked = 0
    for index in range(40):
        scene = draw_scene(2, index, "uniform")
        for number, thing in enumerate(scene.things):
            if thing.shape != 1:
                continue
            x1, y1, x2, y2 = thing.box
            for row in range(PATCHES):
                for col in range(PATCHES):
                    wide = min(x2, (col + 1) * PATCH) - max(x1, col * PATCH)
                    high = min(y2, (row + 1) * PATCH) - max(y1, row * PATCH)
                    if wide > 7 and high > 7:  # well more than any neighbour can have
                        assert scene.owner[row, col] == number
                        checked += 1
                    elif wide < -1 or high < -1:
                        assert scene.owner[row, col] != number
    assert checked > 50


def test_placements() -> None:
    def centres(placement: str) -> np.ndarray:
        return np.array([(thing.x, thing.y) for i in range(300) for thing in things_of(0, i, placement)]) / EDGE

    assert np.abs(centres("uniform").mean(0) - 0.5).max() < 0.02
    across, down = centres("photo").mean(0)
    assert abs(across - 0.5) < 0.02
    assert down > 0.55
    assert things_of(0, 0, "empty") == ()
    assert (draw_scene(0, 0, "empty").owner == -1).all()


def test_source() -> None:
    source = SceneSource(12, 3, "photo")
    assert len(source) == 12
    assert source.identify(11) == "scene-photo-3-000011"
    assert source.things(2) == things_of(3, 2, "photo")
    assert Image.open(io.BytesIO(source.open(1))).format == "PNG"
    assert decode(source.open(1), "x").tobytes() == source.load(1).tobytes() == draw_scene(3, 1, "photo").pixels.tobytes()
    assert source.fingerprint() == pickle.loads(pickle.dumps(source)).fingerprint()
    assert len({SceneSource(n, seed, place).fingerprint() for n, seed, place in ((2, 3, "photo"), (2, 4, "photo"), (2, 3, "empty"))}) == 3
    with pytest.raises(IndexError):
        source.load(12)


@pytest.mark.parametrize(("name", "placement"), [("scenes", "uniform"), ("scenes-photo", "photo"), ("scenes-empty", "empty")])
def test_sources_have_names(name: str, placement: str) -> None:
    source = open_source(name, n=3, seed=5)
    assert isinstance(source, SceneSource)
    assert (source.n, source.seed, source.placement) == (3, 5, placement)


@pytest.mark.parametrize(
    ("n", "seed", "placement", "reason"),
    [
        (0, 0, "uniform", "cannot draw 0 pictures of scenes"),
        (1, -1, "uniform", "seed -1 is negative"),
        (1, 0, "round", "unknown placement 'round'"),
    ],
)
def test_impossible_requests(n: int, seed: int, placement: str, reason: str) -> None:
    with pytest.raises(SourceError, match=reason):
        SceneSource(n, seed, placement)
