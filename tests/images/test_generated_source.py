"""Generated pictures: seeded, independent of each other, and without a preferred place."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from biaskit.errors import SourceError
from biaskit.images import generated
from biaskit.images.decode import decode
from biaskit.images.generated import SIZES, GeneratedSource


def test_same_seed_same_bytes() -> None:
    assert GeneratedSource(3, 7)[2].tobytes() == GeneratedSource(3, 7)[2].tobytes()
    assert GeneratedSource(3, 7)[2].tobytes() != GeneratedSource(3, 8)[2].tobytes()
    assert GeneratedSource(3, 7)[2].tobytes() != GeneratedSource(3, 7)[1].tobytes()


def test_a_picture_does_not_depend_on_the_others() -> None:
    assert GeneratedSource(3, 7)[2].tobytes() == GeneratedSource(500, 7)[2].tobytes()


def test_open_gives_the_file_of_what_load_gives() -> None:
    source = GeneratedSource(2, 0)
    assert Image.open(io.BytesIO(source.open(1))).format == "PNG"
    assert decode(source.open(1), "x").tobytes() == source.load(1).tobytes()


def test_sizes_and_modes_vary_as_photographs_do() -> None:
    images = [GeneratedSource(60, 0).load(index) for index in range(60)]
    assert {image.mode for image in images} == {"RGB"}
    assert len({image.size for image in images}) > 7
    assert sum(cols > rows for cols, rows in SIZES) == sum(cols < rows for cols, rows in SIZES)
    assert min(np.asarray(image).std() for image in images) > 5  # none is blank


@pytest.mark.parametrize(("part", "n"), [("_background", 400), ("_shape", 100)])
def test_no_place_is_preferred(part: str, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without backgrounds, then without shapes: on the mean over many pictures no quarter stands out."""
    monkeypatch.setattr(generated, part, lambda *args: np.zeros((*args[-2:], 3), np.uint8))
    images = (GeneratedSource(n, 1).load(index).convert("L").resize((32, 32), Image.Resampling.BOX) for index in range(n))
    grey = np.stack([np.asarray(image, float) for image in images])
    quarters = np.stack([half.mean(axis=(1, 2)) for rows in np.array_split(grey, 2, 1) for half in np.array_split(rows, 2, 2)])
    difference = quarters - quarters.mean(axis=0)  # [4, images]
    z = difference.mean(axis=1) / (difference.std(axis=1, ddof=1) / np.sqrt(n))
    assert np.abs(z).max() < 3


def test_identity() -> None:
    source = GeneratedSource(12, 3)
    assert len(source) == 12
    assert source.identify(11) == "generated-3-000011"
    assert source.fingerprint() == GeneratedSource(12, 3).fingerprint() == pickle.loads(pickle.dumps(source)).fingerprint()
    assert len({GeneratedSource(n, seed).fingerprint() for n, seed in ((12, 3), (11, 3), (12, 4))}) == 3
    with pytest.raises(IndexError):
        source[12]
    with pytest.raises(IndexError):
        source.load(12)


@pytest.mark.parametrize(
    ("n", "seed", "reason"), [(0, 0, "cannot draw 0 pictures of generated"), (-2, 0, "-2 pictures"), (1, -1, "seed -1 is negative")]
)
def test_impossible_requests(n: int, seed: int, reason: str) -> None:
    with pytest.raises(SourceError, match=reason):
        GeneratedSource(n, seed)
