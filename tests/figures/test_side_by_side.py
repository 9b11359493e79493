"""The figure of two priors: what each panel shows, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from biaskit.errors import BiaskitError, PriorError
from biaskit.figures.side_by_side import side_by_side
from biaskit.prior.bias.report import compare
from biaskit.prior.value import PlaneStats, Prior


def prior(seed, size=(6, 4), layers=(1, 4), plane="image"):
    mean = np.random.default_rng(seed).gamma(9, 0.1, (len(layers), *size)).astype(np.float32)
    return Prior({plane: PlaneStats(mean)}, layers, np.full(len(layers), 0.5, np.float32), {})


def panels(figure):
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


def test_each_layer_has_both_maps_and_their_ratio():
    a, b = prior(0), prior(1)
    figure = side_by_side(a, b, names=("neutral", "task"))
    shown = panels(figure)
    assert len(shown) == 6
    for number, layer in enumerate((1, 4)):
        first, second, ratio = shown[3 * number : 3 * number + 3]
        for values, mine in ((first, a), (second, b)):
            scaled = mine.map("image", layer) / mine.map("image", layer).mean()
            assert values == pytest.approx(np.log2(scaled), abs=1e-6)
        assert ratio == pytest.approx(first - second, abs=1e-6)
    words = [text.get_text() for text in figure.texts]
    rows = compare(a, b)
    assert [word for word in words if word.startswith("r = ")] == [f"r = {r['pearson']:.2f}, ρ = {r['spearman']:.2f}" for r in rows]
    assert "layer 4 (K = 5)" in words
    assert any("neutral and task: plane image, 6×4" in word for word in words)


def test_different_grids_are_taken_to_the_smaller_one():
    shown = panels(side_by_side(prior(0, (6, 4)), prior(1, (3, 8)), layers=[4]))
    assert [values.shape for values in shown] == [(3, 4)] * 3


def test_the_same_bytes_and_nothing_overwritten(tmp_path):
    paths = [tmp_path / name for name in ("a.png", "b.png")]
    for path in paths:
        side_by_side(prior(0), prior(1), out=path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with pytest.raises(BiaskitError, match="exists"):
        side_by_side(prior(0), prior(1), out=paths[0])


@pytest.mark.parametrize("count", [1, 7, 32])
def test_nothing_leaves_the_page(count):
    many = [prior(seed, (8, 8), tuple(range(count))) for seed in (0, 1)]
    figure = side_by_side(*many, names=("a-very-long-name-" * 4, "b" * 50))
    width, height = figure.get_size_inches() * figure.dpi
    figure.draw_without_rendering()
    for artist in [*figure.axes, *figure.texts]:
        box = artist.get_tightbbox()
        assert box.x0 >= -1
        assert box.y0 >= -1
        assert box.x1 <= width + 1
        assert box.y1 <= height + 1


def test_what_the_priors_do_not_share_is_refused():
    with pytest.raises(BiaskitError, match="share no plane"):
        side_by_side(prior(0), prior(1, plane="canvas"))
    with pytest.raises(PriorError, match="no layer 2"):
        side_by_side(prior(0), prior(1), layers=[2])
    with pytest.raises(PriorError, match="no plane 'thumbnail'"):
        side_by_side(prior(0), prior(1), plane="thumbnail")


def test_colours_scales_and_axes_are_the_caller_s():
    a, b = prior(0), prior(1)
    figure = side_by_side(a, b, scale="panel", cmap="PiYG", ratio_cmap="BrBG")
    images = [axes.images[0] for axes in figure.axes if axes.images]
    assert [image.get_cmap().name for image in images] == ["PiYG", "PiYG", "BrBG"] * 2 and len(figure.axes) == 6
    words = [text.get_text() for text in figure.texts if text.get_text().startswith("to ")]
    for column, word in enumerate(words):
        first, second, ratio = (2.0**image.norm.vmax for image in images[3 * column : 3 * column + 3])
        assert first == second and [float(part.split()[-1]) for part in word.split(" ×")[:2]] == pytest.approx([first, ratio], abs=0.006)
    own = Figure()
    axes = own.subplots(1, 2)
    assert side_by_side(a, b, layers=[4], ax=axes[1]) is own
    assert np.asarray(axes[1].images[0].get_array()) == pytest.approx(images[5].get_array()) and not axes[0].images
    for wrong, message in (
        ({"ax": axes[0]}, "2 layers on one ax"),
        ({"scale": "both"}, "unknown scale"),
        ({"cmap": "none such"}, "colour map"),
    ):
        with pytest.raises(BiaskitError, match=message):
            side_by_side(a, b, **wrong)
