"""Pictures without content, and resized ones."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from biaskit.errors import SourceError
from biaskit.images import open_source
from biaskit.images.blank import KINDS, BlankSource, mean_colour
from biaskit.images.resized import Resized


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_pictures(kind):
    source = open_source(kind, n=12, seed=3)
    again = pickle.loads(pickle.dumps(source))
    assert len(source) == 12
    assert source.fingerprint() == again.fingerprint()
    assert len({source.identify(i) for i in range(12)}) == 12
    assert len({source.load(i).size for i in range(12)}) == 10
    assert source.load(4).tobytes() == again.load(4).tobytes() == Image.open(io.BytesIO(source.open(4))).tobytes()
    assert source.load(-1).tobytes() == source.load(11).tobytes()
    other = BlankSource(kind, 12, seed=4)
    assert (other.load(0).tobytes() == source.load(0).tobytes()) == (kind == "grey")
    assert (other.fingerprint() == source.fingerprint()) == (kind == "grey")


def test_what_the_kinds_show():
    assert set(np.unique(BlankSource("grey", 2).load(1))) == {128}
    plain = [np.asarray(BlankSource("colours", 9).load(i)) for i in range(9)]
    assert all((picture == picture[0, 0]).all() for picture in plain)
    assert len({tuple(picture[0, 0]) for picture in plain}) == 9
    noise = np.asarray(BlankSource("noise", 1).load(0), dtype=float)[:, :, 0]
    assert noise.mean() == pytest.approx(127.5, abs=2)
    assert abs(np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1]) < 0.01


def test_the_mean_colour_weighs_every_image_alike():
    pictures = [Image.new("RGB", (4, 4), (10, 20, 30)), Image.new("RGB", (40, 40), (30, 40, 51))]

    class Two(BlankSource):
        def load(self, index):
            return pictures[index]

    assert mean_colour(Two("grey", 2)) == (20, 30, 40)
    assert mean_colour(Two("grey", 2), most=1) == (10, 20, 30)
    assert (np.asarray(BlankSource("grey", 1, colour=(1, 2, 3)).load(0)) == (1, 2, 3)).all()


@pytest.mark.parametrize(
    ("arguments", "message"), [(("red", 1), "'red'"), (("grey", 0), "0 pictures of grey"), (("grey", 1, -1), "seed -1")]
)
def test_nonsense_is_refused(arguments, message):
    with pytest.raises(SourceError, match=message):
        BlankSource(*arguments)


def test_a_resized_source_is_another_source():
    source = open_source("generated", n=4)
    small = Resized(source, 32, 48)
    assert [small.load(i).size for i in range(4)] == [(48, 32)] * 4
    assert small.load(2).tobytes() == source.load(2).resize((48, 32), Image.Resampling.BICUBIC).tobytes()
    assert len({source.fingerprint(), small.fingerprint(), Resized(source, 48, 32).fingerprint()}) == 3
    assert small.identify(2) == source.identify(2)
    assert (len(small), small.name) == (4, "generated")
    with pytest.raises(SourceError, match="8×48"):
        Resized(source, 8, 48)
