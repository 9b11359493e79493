"""Heads, layers × rows, and raw / prior / debiased: what each panel shows, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from biaskit.errors import BiaskitError, PriorError
from biaskit.figures.more_maps import head_maps, layer_profiles, triple
from biaskit.grid import Layout, Plane, join, raster
from biaskit.prior.value import PlaneStats, Prior


def prior(heads=5, layers=(0, 2, 4), size=(6, 8)):
    draw = np.random.default_rng(0)
    split = None if not heads else draw.gamma(3, 0.3, (len(layers), heads, *size)).astype(np.float32)
    mean = draw.gamma(3, 0.3, (len(layers), *size)).astype(np.float32)
    newline = draw.gamma(3, 0.3, (len(layers), size[0], 1)).astype(np.float32)
    planes = {"canvas": PlaneStats(mean, head_mean=split), "newline": PlaneStats(newline)}
    return Prior(planes, layers, np.full(len(layers), 0.5, np.float32), {"model": "org/name"})


def shown(figure):
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


def bars(figure):
    return [axes for axes in figure.axes if hasattr(axes, "_colorbar")]


def test_row_profiles_of_all_layers():
    mine = prior()
    figure = layer_profiles(mine)
    (values,) = shown(figure)
    for column, layer in enumerate(mine.layers):
        rows = mine.map("canvas", layer)
        assert np.exp2(values[:, column]) == pytest.approx(rows.mean(axis=1) / rows.mean())
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["0", "2", "4"]
    assert bars(figure)[0].get_ylabel() == "row over the layer's mean"
    own = Figure()
    axes = own.subplots(1, 2)
    assert layer_profiles(mine, plane="newline", ax=axes[1], cmap="viridis") is own
    assert axes[1].images[0].get_cmap().name == "viridis" and not axes[0].images
    with pytest.raises(PriorError, match="no plane 'image'"):
        layer_profiles(mine, plane="image")


@pytest.mark.parametrize("scale", ["shared", "panel"])
def test_every_head_has_its_map(scale):
    mine = prior()
    figure = head_maps(mine, 2, scale=scale)
    found = shown(figure)
    assert len(found) == 5
    for values, head in zip(found, mine.planes["canvas"].head_mean[1], strict=True):
        assert np.exp2(values) == pytest.approx(head / head.mean(), rel=1e-5)
    limits = {axes.images[0].norm.vmax for axes in figure.axes if axes.images}
    assert (len(limits) == 1 and len(bars(figure)) == 1) if scale == "shared" else not bars(figure)
    with pytest.raises(PriorError, match="has no maps of heads"):
        head_maps(prior(heads=0), 2)
    with pytest.raises(PriorError, match="no layer 1"):
        head_maps(mine, 1)


def test_raw_prior_and_debiased_on_one_picture(tmp_path):
    tokens = join([raster(Plane("canvas", 6, 8, (0.1, 0.0, 0.9, 1.0))), raster(Plane("newline", 6, 1, None))])
    layout = Layout(np.arange(54), tokens.planes, tokens.plane, tokens.row, tokens.col)
    draw = np.random.default_rng(1)
    attention, bias = draw.gamma(2, 0.01, 54), draw.gamma(9, 0.1, 54)
    picture = Image.new("RGB", (200, 120), (90, 140, 60))
    figure = triple(picture, layout, attention, bias, strength=0.5, out=tmp_path / "a.png")
    meshes = [np.asarray(axes.collections[0].get_array()) for axes in figure.axes if axes.collections and axes.images]
    ratio = attention / bias**0.5
    for values, wanted in zip(meshes, (attention, bias, ratio), strict=True):
        assert np.exp2(values).ravel() == pytest.approx((wanted / wanted.mean())[:48], rel=1e-4)
    assert len(bars(figure)) == 3
    triple(picture, layout, attention, bias, strength=0.5, out=tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with pytest.raises(BiaskitError, match="53 values of attention"):
        triple(picture, layout, attention[1:], bias)
    with pytest.raises(BiaskitError, match="exists"):
        triple(picture, layout, attention, bias, out=tmp_path / "a.png")
