from __future__ import annotations

import json
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from biaskit.errors import BiaskitError, PriorError
from biaskit.figures.colours import colour_limit, colour_ticks, multiple
from biaskit.figures.heatmap import heatmap
from biaskit.figures.layout import COMPACT, FULL, LEFT, page, slot
from biaskit.figures.panels import TALLEST, caption, panels, profile_reach, profile_ticks, shown_planes
from biaskit.figures.style import house_style, plain_ticks
from biaskit.prior.bias.report import report
from biaskit.prior.value import PlaneStats, Prior


def ramp(rows, cols, low=0.4, high=1.6):
    return np.repeat(np.linspace(low, high, rows)[:, None], cols, axis=1)


def make_prior(planes, layers=(1,), model="org/llava-test", **meta):
    """planes: name → [rows, cols], used for every layer, or [L, rows, cols]."""
    stats = {}
    for name, values in planes.items():
        values = np.asarray(values, np.float32)
        stats[name] = PlaneStats(values if values.ndim == 3 else np.repeat(values[None], len(layers), axis=0))
    meta = {"model": model, "n_images": "1000", "prompt": json.dumps(["Describe the image."])} | meta
    return Prior(stats, tuple(layers), np.full(len(layers), 0.3, np.float32), meta)


def sink(rows=24, cols=24, times=200.0):
    values = ramp(rows, cols)
    values[rows // 2, cols // 3] = times
    return values


@pytest.fixture(scope="module")
def one():
    return make_prior({"image": sink()})


@pytest.fixture(scope="module")
def three():
    maps = {"base": 2 * ramp(24, 24), "canvas": ramp(48, 48), "newline": ramp(48, 1, 3, 5)}
    return make_prior(maps, layers=(1, 4))


def texts(figure):
    return [text.get_text() for text in figure.texts]


def maps(figure):
    return [axes.images[0] for axes in figure.axes if axes.images]


def boxes(figure):
    """Every word and every axes with its decorations: (what, left, bottom, right, top) in pixels."""
    renderer = figure.canvas.get_renderer()
    drawn = [(text.get_text(), text.get_window_extent(renderer)) for text in figure.texts]
    drawn += [("axes", axes.get_tightbbox(renderer)) for axes in figure.axes]
    return [(what, box.x0, box.y0, box.x1, box.y1) for what, box in drawn]


CASES = {
    "one": lambda: [make_prior({"image": sink()})],
    "three planes": lambda: [
        make_prior({"base": ramp(24, 24), "canvas": ramp(48, 48), "newline": ramp(48, 1, 3, 5), "thumbnail": ramp(9, 9)}, (1, 4))
    ],
    "landscape": lambda: [make_prior({"canvas": ramp(16, 48), "thumbnail": ramp(16, 16)})],
    "portrait": lambda: [make_prior({"image": ramp(40, 8)}, prompt=json.dumps(["word " * 100]))],
    "column": lambda: [make_prior({"newline": ramp(48, 1)}, (1, 2), model="a-very-long-model-name-" * 5)],
    "two priors": lambda: [make_prior({"image": ramp(24, 24)}), make_prior({"image": ramp(20, 30)}, model="org/other")],
    "two by two": lambda: [make_prior({"image": ramp(24, 24)}, (1, 2)), make_prior({"image": ramp(8, 8)}, (1, 2))],
    "32 layers": lambda: [make_prior({"image": ramp(24, 24)}, range(32))],
    "12 layers, planes": lambda: [make_prior({"canvas": ramp(32, 32), "thumbnail": ramp(16, 16)}, range(12))],
    "many of two": lambda: [make_prior({"image": ramp(8, 8)}, range(5)), make_prior({"image": ramp(8, 4)}, range(5), model="org/other")],
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("title", "scale"), [(None, "panel"), ("A heading " * 30, "shared")])
def test_nothing_overlaps_and_nothing_leaves_the_page(case, title, scale):
    figure = heatmap(CASES[case](), title=title, scale=scale)
    width, height = figure.get_size_inches() * figure.dpi
    found = boxes(figure)
    for what, left, bottom, right, top in found:
        assert left >= 0, what
        assert bottom >= 0, what
        assert right <= width, what
        assert top <= height, what
    for index, (a, ax0, ay0, ax1, ay1) in enumerate(found):
        for b, bx0, by0, bx1, by1 in found[index + 1 :]:
            assert min(ax1, bx1) - max(ax0, bx0) <= 1 or min(ay1, by1) - max(ay0, by0) <= 1, (a, b)


@pytest.mark.parametrize("case", CASES)
def test_cells_are_square(case):
    figure = heatmap(CASES[case]())
    for axes in figure.axes:
        if not axes.images:
            continue
        rows, cols = axes.images[0].get_array().shape
        box = axes.get_window_extent()
        if cols > 1:
            assert box.width / cols == pytest.approx(box.height / rows, rel=1e-6)


def test_words_of_a_panel(one):
    found = texts(heatmap(one))
    assert "llava-test" in found
    assert "layer 1 (K = 2) · bottom-focused" in found
    assert "mean over 1,000 images · prompt “Describe the image.”" in found
    found = texts(heatmap([one, one], labels=["prompt A", "$x^2$"], title="Heading"))
    assert {"prompt A", "$x^2$", "Heading"} <= set(found)
    assert "llava-test" not in found


def test_verdicts_come_from_given_reports(one):
    silent = report(make_prior({"image": np.ones((24, 24))}))
    assert "layer 1 (K = 2) · flat" in texts(heatmap(one, reports=[silent]))


def test_long_words_are_shortened():
    prior = make_prior({"image": ramp(8, 8)}, prompt=json.dumps(["word " * 100]), model="x" * 200)
    found = texts(heatmap(prior))
    assert sum(text.endswith("…") for text in found) == 2


def test_panels_share_one_scale_where_asked(three, one):
    images = maps(heatmap([three, one], layers=[1], scale="shared"))
    assert len(images) == 4
    assert {image.norm.vmin for image in images} == {-images[0].norm.vmax}
    assert len({image.norm.vmax for image in images}) == 1


def test_a_quiet_map_is_not_washed_out_by_a_loud_one():
    """Each map reaches the ends of its own colours and profiles, and has its own bar; a shared scale is for comparing strengths."""
    quiet, loud = make_prior({"image": ramp(24, 24, 0.8, 1.2)}), make_prior({"image": np.exp(2 * ramp(24, 24))})
    alone, beside = heatmap(quiet), heatmap([loud, quiet])
    assert maps(beside)[1].norm.vmax == maps(alone)[0].norm.vmax < maps(beside)[0].norm.vmax / 2
    assert len([axes for axes in beside.axes if axes.get_xlabel() == "attention relative to uniform"]) == 2
    assert beside.axes[5].get_xlim() == alone.axes[1].get_xlim(), "the row profile of the quiet one"
    shared = heatmap([loud, quiet], scale="shared")
    assert {image.norm.vmax for image in maps(shared)} == {maps(heatmap(loud))[0].norm.vmax}
    many = heatmap(make_prior({"image": ramp(24, 24)}, range(8)), scale="panel")
    assert len(many.axes) == 16 and any("each map on its own scale" in text for text in texts(many))
    with pytest.raises(BiaskitError, match="unknown scale 'row'"):
        heatmap(quiet, scale="row")


def row_profile(figure):
    """The axes of the first panel's row profile, and the texts in it."""
    axes = next(axes for axes in figure.axes if not axes.images and axes.get_ylim()[0] > axes.get_ylim()[1])
    return axes, [text.get_text() for text in axes.texts]


def test_profile_bars_end_where_their_values_do_or_say_so():
    """A row at 5.6 times uniform is drawn to 5.6; one at 21 is cut off with an arrow, and the number written."""
    values = np.ones((24, 24))
    values[10] = 7.0  # over uniform: 5.6
    prior = make_prior({"image": values})
    assert panels([prior])[0].profiles()[0].max() == pytest.approx(5.6)
    axes, words = row_profile(heatmap(prior))
    assert axes.get_xlim()[1] > 5.6 and words == []
    values[10] = 161.0
    axes, words = row_profile(heatmap(make_prior({"image": values})))
    assert axes.get_xlim()[1] < 21 and words == ["21"]
    (mark,) = [line for line in axes.lines if line.get_marker() == ">"]
    assert list(mark.get_ydata()) == [10.5]


def test_one_map_on_axes_of_one_s_own(one):
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert heatmap(one, ax=right, cmap="viridis") is figure
    assert not left.images and right.images[0].get_cmap().name == "viridis"
    assert right.child_axes[0].get_ylabel() == "attention relative to uniform"
    with pytest.raises(BiaskitError, match="2 panels on one ax"):
        heatmap([one, one], ax=right)
    with pytest.raises(BiaskitError, match="unknown colour map 'rainbows'"):
        heatmap(one, cmap="rainbows")


def test_values_are_multiples_of_the_mean_over_all_visual_tokens(three):
    shown = {image.get_array().shape: np.exp2(image.get_array()) for image in maps(heatmap(three, layers=[4]))}
    raw = {stats.mean.shape[1:]: stats.mean[1].astype(float) for stats in three.planes.values()}
    level = sum(m.sum() for m in raw.values()) / sum(m.size for m in raw.values())
    for size, values in raw.items():
        assert np.allclose(shown[size], values / level)
    # leaving planes out does not move the scale's centre
    (alone,) = maps(heatmap(three, layers=[4], planes=["canvas"]))
    assert np.allclose(np.exp2(alone.get_array()), raw[(48, 48)] / level)


def test_the_newline_column_is_attached_and_companions_stand_left(three):
    figure = heatmap(three, layers=[1])
    places = {axes.images[0].get_array().shape: axes.get_position() for axes in figure.axes if axes.images}
    canvas, newline, base = places[(48, 48)], places[(48, 1)], places[(24, 24)]
    width = figure.get_size_inches()[0]
    assert 0 < (newline.x0 - canvas.x1) * width < 0.1
    assert (newline.y0, newline.y1) == pytest.approx((canvas.y0, canvas.y1))
    assert base.x1 < canvas.x0
    assert base.width < canvas.width / 2
    assert base.y1 == pytest.approx(canvas.y1)
    assert {"base 24×24", "canvas 48×48", "newline"} <= set(texts(figure))


def test_many_panels_shrink_to_titled_maps():
    figure = heatmap(make_prior({"image": ramp(24, 24)}, range(32)))
    assert len(figure.axes) == 33  # 32 maps and the colour bar: no profiles
    assert texts(figure).count("bottom-focused") == 32
    assert "layer 31 (K = 32)" in texts(figure)
    assert "llava-test · mean over 1,000 images · prompt “Describe the image.”" in texts(figure)
    assert len(heatmap(make_prior({"image": ramp(24, 24)}, range(6))).axes) == 6 * 4
    assert len(heatmap(make_prior({"image": ramp(24, 24)}, range(6)), scale="shared").axes) == 6 * 3 + 1


def test_the_colour_bar_says_what_it_means_and_where_it_is_clipped(one):
    def bar(prior):
        return next(axes for axes in heatmap(prior, scale="shared").axes if axes.get_ylabel())

    assert bar(one).get_ylabel() == "attention relative to uniform"
    assert "1 ×" in [label.get_text() for label in bar(one).get_yticklabels()]
    empty = np.ones((24, 24))
    empty[0, 0] = 0
    extends = [
        next(axes for axes in heatmap(prior).axes if axes.get_xlabel())._colorbar.extend
        for prior in (one, make_prior({"image": empty}), make_prior({"image": ramp(9, 9)}))
    ]
    assert extends == ["max", "min", "neither"]


@pytest.mark.parametrize("case", CASES)
def test_the_colour_bar_is_as_long_as_its_label(case):
    figure = heatmap(CASES[case](), scale="shared")
    bar = next(axes for axes in figure.axes if axes.get_ylabel())
    assert bar.yaxis.label.get_window_extent(figure.canvas.get_renderer()).height <= 1.02 * bar.get_window_extent().height


def limit_of(prior):
    return colour_limit([values for panel in panels([prior]) for values in panel.maps.values()])


def test_sinks_do_not_set_the_scale():
    plain = limit_of(make_prior({"image": ramp(24, 24)}))
    assert limit_of(make_prior({"image": sink(times=3.0)})) == plain
    assert profile_reach(panels([make_prior({"image": sink(times=1e4)})]))[1] < 1.15 * TALLEST
    assert limit_of(make_prior({"image": np.ones((5, 5))})) == pytest.approx(np.log2(1.25))
    spike = np.full((5, 5), 1e-3)
    spike[:2] = 1
    assert limit_of(make_prior({"image": spike})) == 3


def test_ticks():
    assert colour_ticks(np.log2(1.25), True) == pytest.approx([0.8, 1 / 1.1, 1, 1.1, 1.25])
    assert colour_ticks(1.0, True) == pytest.approx([0.5, 2 / 3, 0.8, 1, 1.25, 1.5, 2])
    assert colour_ticks(1.5, False) == [0.5, 1, 2]
    assert colour_ticks(3.0, True) == [0.125, 0.25, 0.5, 1, 2, 4, 8]
    assert [multiple(t) for t in (0.125, 0.25, 2 / 3, 1.0, 1.25, 12.0)] == ["0.125", "0.25", "0.67", "1", "1.25", "12"]
    assert profile_ticks((0.0, 3.4)) == [0.0, 1.0, 3.0]
    assert profile_ticks((0.77, 1.23)) == [0.8, 1.0, 1.2]
    assert profile_ticks((0.77, 9.0)) == [1.0, 8.0]


def test_captions():
    def of(**meta):
        return caption(make_prior({"image": ramp(4, 4)}, **meta))

    assert of(prompt=json.dumps(["a\n b", "c", "d"])) == "mean over 1,000 images · prompt “a b” and 2 more"
    assert of(prompt="not json") == "mean over 1,000 images · prompt “not json”"
    assert of(prompt="[]", n_images="0") == "number of images unknown"


def test_main_plane():
    prior = make_prior({"base": ramp(4, 4), "tiles": ramp(9, 9), "newline": ramp(9, 1)})
    assert shown_planes(prior)[0] == "base"
    assert sorted(shown_planes(prior)) == ["base", "newline", "tiles"]
    assert shown_planes(prior, ["newline", "tiles"]) == ["tiles", "newline"]


def test_layout_of_a_page():
    place = slot({"canvas": (10, 20), "base": (10, 10)}, "canvas", FULL)
    assert place.maps["canvas"][2:] == pytest.approx((FULL.side, FULL.side / 2))
    assert place.maps["base"][3] <= FULL.side / 2
    sheet = page([place] * 5, 2, FULL, 0.0, 0.0)
    assert len(sheet.corners) == 5
    assert sheet.corners[2][0] == sheet.corners[0][0] == LEFT
    assert sheet.corners[2][1] >= sheet.corners[0][1] + place.height
    assert sheet.colour_bar[0] > sheet.corners[1][0] + place.width
    assert slot({"canvas": (10, 20)}, "canvas", COMPACT).row_profile is None


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg", ".PNG"])
def test_files_are_deterministic_and_whole(tmp_path, three, suffix):
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    heatmap(three, out=first, title="T")
    heatmap([three], out=second, title="T")
    assert first.read_bytes() == second.read_bytes()
    start = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[suffix.lower()]
    assert first.read_bytes().startswith(start)
    assert {path.name for path in tmp_path.iterdir()} == {first.name, second.name}
    assert first.stat().st_mode & 0o777 == 0o644


def test_a_png_has_colours_where_they_belong(tmp_path):
    heatmap(make_prior({"image": np.exp(ramp(24, 24))}), out=tmp_path / "a.png")
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    height = len(pixels)
    column = pixels[:, int(0.7 * 200) + 100]
    blue = np.flatnonzero(column[:, 2] - column[:, 0] > 60)
    red = np.flatnonzero(column[:, 0] - column[:, 2] > 60)
    assert len(blue) > 20
    assert len(red) > 20
    assert blue.min() < red.min() < height


def test_nothing_is_overwritten_without_force(tmp_path, one):
    out = tmp_path / "a.png"
    out.write_text("mine")
    with pytest.raises(BiaskitError, match=r"a\.png exists") as caught:
        heatmap(one, out=out)
    assert "--force" in caught.value.hint
    assert out.read_text() == "mine"
    heatmap(one, out=out, force=True)
    assert out.read_bytes().startswith(b"\x89PNG")


def test_a_failed_write_leaves_nothing_behind(tmp_path, one, monkeypatch):
    import os

    def fail(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(BiaskitError, match="No space left on device"):
        heatmap(one, out=tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": "a.gif"}, r"cannot write a \.gif figure"),
        ({"out": "a"}, "cannot write a figure without a suffix"),
        ({"out": "nowhere/a.png"}, "no folder nowhere"),
        ({"labels": ["a", "b"]}, "2 labels for 1 priors"),
        ({"layers": []}, "no layer to draw"),
        ({"planes": []}, "no plane to draw"),
    ],
)
def test_mistakes_are_explained(one, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BiaskitError, match=message):
        heatmap(one, **options)
    assert list(tmp_path.iterdir()) == []


def test_missing_layers_and_planes(one):
    with pytest.raises(PriorError, match="no layer 9"):
        heatmap(one, layers=[9])
    with pytest.raises(PriorError, match="no plane 'canvas'"):
        heatmap(one, planes=["canvas"])
    with pytest.raises(BiaskitError, match="no prior to draw"):
        heatmap([])


def test_global_state_is_left_alone(tmp_path, one):
    # which backend is merely looked up is not ours to say
    before = {key: value for key, value in mpl.rcParams.items() if key != "backend"}
    heatmap(one, out=tmp_path / "a.svg")
    assert {key: value for key, value in mpl.rcParams.items() if key != "backend"} == before
    code = (
        "import biaskit as b, matplotlib.pyplot as p; assert b.heatmap.__module__ == 'biaskit.figures.heatmap'; assert not p.get_fignums()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@house_style()
def test_logarithmic_axes_have_plain_numbers():
    """House style reads no mathematics, and a matplotlib tick of 1,000 is `$10^3$`."""
    figure = Figure()
    axes = figure.subplots()
    axes.loglog([576, 600, 1152, 20160], [1, 30, 400, 1000])
    plain_ticks(axes, [576, 600, 1152, 20160])
    figure.draw_without_rendering()
    assert [text.get_text() for text in axes.get_xticklabels()] == ["576", "1152", "20.16k"]
    shown = [text.get_text() for text in axes.get_yticklabels()]
    assert "1000" in shown and not any("$" in text for text in shown)
