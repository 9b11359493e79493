"""The overlay on every family's own layout: rendered, a kept token is bright exactly where its patch lies."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from biaskit.errors import BiaskitError
from biaskit.families.checkpoints.tiny import tiny_model
from biaskit.figures.overlay import Kept, overlay
from biaskit.grid import Layout, Plane, raster
from biaskit.images import open_source

SIZES = {"portrait": (360, 480), "landscape": (520, 300)}
FURTHER = {"llava_next": ["base"], "llava_onevision": ["base"], "internvl": ["thumbnail"]}  # drawn beneath the largest plane
FURTHER |= {"llava_next_video": ["base"], "aya_vision": ["thumbnail"], "idefics3": ["thumbnail"], "smolvlm": ["thumbnail"]}
DROPPED, KEPT = 175, 235  # of 255, on a light grey picture: dropped cells are below, cells left as they are above
LEVEL = 245


def picture(size):
    return Image.new("RGB", size, (LEVEL, LEVEL, LEVEL))


def laid_out(tiny, *sizes):
    """The layout of one prompt with these pictures."""
    model, processor, family = tiny
    return family.prepare(processor, model.config, [[picture(size) for size in sizes]], ["what?"]).layouts[0]


def large(figure):
    """The large views, one a method; the first axes show the original, further views have a title."""
    return [axes for axes in figure.axes[1:] if not axes.get_title(loc="left")]


def largest(layout, number=0):
    """Index of the plane with the most tokens among those with a place in image `number`."""
    placed = [index for index, plane in enumerate(layout.planes) if plane.image == number and plane.box is not None]
    return max(placed, key=lambda index: layout.planes[index].rows * layout.planes[index].cols)


def drawn(figure):
    """The figure as pixels, [rows, cols], fine enough for the borders of small cells to leave their middles alone."""
    return colours(figure).mean(-1, dtype=np.float32)


def colours(figure):
    """The figure as pixels, [rows, cols, 3]."""
    figure.set_dpi(300)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def brightness(pixels, axes, x, y):
    """Of the rendered point at (x, y) of the picture."""
    right, up = axes.transData.transform((x, y))
    return pixels[pixels.shape[0] - 1 - int(up), int(right)]


def middle(plane, row, col, size):
    """Where in the picture the cell's centre lies, by the plane's box; None outside of the picture."""
    left, top, right, bottom = plane.box
    x = (left + (col + 0.5) / plane.cols * (right - left)) * size[0]
    y = (top + (row + 0.5) / plane.rows * (bottom - top)) * size[1]
    return (x, y) if 1 < x < size[0] - 1 and 1 < y < size[1] - 1 else None


def box_of(plane, row, col, size):
    """(left, top, right, bottom) of the cell in pixels of the picture."""
    left, top, right, bottom = plane.box
    wide, high = (right - left) / plane.cols, (bottom - top) / plane.rows
    x, y = left + col * wide, top + row * high
    return x * size[0], y * size[1], (x + wide) * size[0], (y + high) * size[1]


def check_only(layout, token, size, pixels, axes):
    """The token's cell is bright all over and up to its borders; other cells of its plane are dark, those next to it too."""
    plane, row, col = layout.planes[layout.plane[token]], int(layout.row[token]), int(layout.col[token])
    left, top, right, bottom = box_of(plane, row, col, size)
    seen = 0
    for across in (0.3, 0.5, 0.7):
        for down in (0.3, 0.5, 0.7):
            x, y = left + across * (right - left), top + down * (bottom - top)
            if 1 < x < size[0] - 1 and 1 < y < size[1] - 1:  # planes of padded pictures may reach beyond them
                assert brightness(pixels, axes, x, y) > KEPT, (plane, row, col, across, down)
                seen += 1
    assert seen >= 3
    near = [(row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1)]
    spread = [divmod(int(cell), plane.cols) for cell in np.linspace(0, plane.rows * plane.cols - 1, 24).astype(int)]
    others = {(r, c) for r, c in [*near, *spread] if 0 <= r < plane.rows and 0 <= c < plane.cols} - {(row, col)}
    dark = 0
    for cell in others:
        at = middle(plane, *cell, size)
        if at is not None:
            assert brightness(pixels, axes, *at) < DROPPED, (plane, (row, col), cell)
            dark += 1
    assert dark >= 10


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_one_kept_token(tiny, size):
    layout = laid_out(tiny, size)
    main = largest(layout)
    mine = np.flatnonzero(layout.plane == main)
    tokens = [mine[0], mine[len(mine) // 2 + layout.planes[main].cols // 3], mine[-1]]
    assert len(set(tokens)) == 3
    figure = overlay(picture(size), layout, [Kept(f"token {token}", np.array([token])) for token in tokens])
    pixels = drawn(figure)
    rows = large(figure)
    assert len(rows) == 3
    for axes, token in zip(rows, tokens, strict=True):
        check_only(layout, token, size, pixels, axes)


def test_further_views_are_drawn_beneath(tiny):
    """A token kept in the base view or thumbnail shows there, and nowhere on the large panel."""
    size = SIZES["landscape"]
    layout, main = laid_out(tiny, size), largest(laid_out(tiny, size))
    expected = FURTHER.get(tiny[0].config.model_type, [])
    views = [i for i, plane in enumerate(layout.planes) if plane.box is not None and i != main]
    assert [layout.planes[i].name for i in views] == expected
    token = int(np.flatnonzero(layout.plane == (views[0] if views else main))[7])
    figure = overlay(picture(size), layout, [Kept("x", np.array([token]))])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["", "", *expected]
    pixels = drawn(figure)
    if views:
        _, big, small = figure.axes
        check_only(layout, token, size, pixels, small)
        assert small.get_position().y1 < big.get_position().y0 and small.get_position().width < big.get_position().width / 2
        places = [middle(layout.planes[main], layout.row[i], layout.col[i], size) for i in np.flatnonzero(layout.plane == main)]
        assert all(brightness(pixels, big, *at) < DROPPED for at in places if at is not None)
    else:
        check_only(layout, token, size, pixels, figure.axes[1])


def ticks(axes):
    """Heights of the marks at the right edge, in pixels of the picture."""
    found = [line for line in axes.lines if line.get_marker() == ">"]
    for line in found:
        assert np.all(np.asarray(line.get_xdata()) > axes.get_xlim()[1]), "beyond the picture's right edge"
    return [float(y) for line in found for y in line.get_ydata()]


def test_kept_newline_tokens_are_ticks(tiny):
    size = SIZES["portrait"]
    layout = laid_out(tiny, size)
    newline = np.flatnonzero(np.isin(layout.plane, _newlines(layout)))
    assert (len(newline) > 0) == (tiny[0].config.model_type in ("llava_next", "llava_next_video", "llava_onevision"))
    first = overlay(picture(size), layout, [Kept("none of them", np.array([0]))])
    assert ticks(first.axes[1]) == []
    if not len(newline):
        return
    canvas = layout.planes[largest(layout)]
    chosen = newline[[0, len(newline) // 2, -1]]
    figure = overlay(picture(size), layout, [Kept("three", chosen), Kept("all", newline)])
    panels = large(figure)
    _, top, _, bottom = canvas.box
    centres = [(top + (row + 0.5) / canvas.rows * (bottom - top)) * size[1] for row in range(canvas.rows)]
    assert ticks(panels[0]) == pytest.approx([centres[layout.row[token]] for token in chosen])
    assert ticks(panels[1]) == pytest.approx(centres)
    # and they are really there: yellow at the first tick, in the first panel, white between the first two
    pixels = colours(figure)
    for y, marked in ((centres[0], True), ((centres[0] + centres[canvas.rows // 2]) / 2, False)):
        right, up = panels[0].transData.transform((size[0] * 1.012, y))
        near = pixels[pixels.shape[0] - 1 - int(up) - 2 : pixels.shape[0] + 2 - int(up), int(right) - 2 : int(right) + 3] / 255
        yellow = np.abs(near - to_rgb("#ffd23f")).max(-1).min() < 0.05
        assert yellow == marked


def _newlines(layout):
    return [index for index, plane in enumerate(layout.planes) if plane.name == "newline"]


def test_the_second_image_of_a_prompt(tiny):
    """With number=1 its own planes count, and tokens of the first image show nowhere."""
    sizes = [SIZES["landscape"], SIZES["portrait"]]
    layout = laid_out(tiny, *sizes)
    main = largest(layout, 1)
    token = int(np.flatnonzero(layout.plane == main)[len(np.flatnonzero(layout.plane == main)) // 2])
    first = np.flatnonzero(layout.plane == largest(layout, 0))
    elsewhere = int(first[len(first) // 2])  # not at the edge, which is padding where OneVision pads several images to squares
    figure = overlay(
        picture(sizes[1]), layout, [Kept("second", np.array([elsewhere, token])), Kept("first", np.array([elsewhere]))], number=1
    )
    pixels = drawn(figure)
    panels = large(figure)
    check_only(layout, token, sizes[1], pixels, panels[0])
    for index in np.flatnonzero(layout.plane == main):
        at = middle(layout.planes[main], layout.row[index], layout.col[index], sizes[1])
        assert at is None or brightness(pixels, panels[1], *at) < DROPPED
    other = overlay(picture(sizes[0]), layout, [Kept("first", np.array([elsewhere]))], number=0)
    check_only(layout, elsewhere, sizes[0], drawn(other), other.axes[1])


@pytest.mark.parametrize("name", ["llava-next", "llava-onevision"])
def test_newline_ticks_of_the_second_image(name):
    """The ticks are those of the drawn image's own newline plane."""
    layout = laid_out(tiny_model(name, layers=1), SIZES["landscape"], SIZES["portrait"])
    planes = _newlines(layout)
    assert [layout.planes[index].image for index in planes] == [0, 1]
    kept = np.flatnonzero(layout.plane == planes[1])
    second, first = (
        overlay(picture(size), layout, [Kept("x", kept)], number=n) for n, size in ((1, SIZES["portrait"]), (0, SIZES["landscape"]))
    )
    assert len(ticks(second.axes[1])) == len(kept) and ticks(first.axes[1]) == []


@pytest.mark.parametrize("name", ["llava-1.5", "llava-next", "qwen2.5-vl", "internvl-qwen2"])
def test_on_a_real_image(name, coco_sample, tmp_path):
    """The three formats are written, open, and are the same bytes the second time."""
    model, processor, family = tiny_model(name, layers=1)
    image = open_source("coco", coco_root=coco_sample).load(3)
    layout = family.prepare(processor, model.config, [[image]], ["what?"]).layouts[0]
    kept = [Kept(f"every {step}th", np.arange(0, len(layout), step), "a cat, $5 and a mat") for step in (3, 11)]
    for suffix in (".png", ".pdf", ".svg"):
        written = []
        for run in ("one", "two"):
            overlay(image, layout, kept, out=tmp_path / f"{run}{suffix}", title="a real image")
            written.append((tmp_path / f"{run}{suffix}").read_bytes())
        assert written[0] == written[1]
        assert written[0][:4] == {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xm"}[suffix]
    drawing = Image.open(io.BytesIO((tmp_path / "one.png").read_bytes()))
    assert np.asarray(drawing.convert("L")).std() > 20, "not an empty figure"


SQUARE = (0.2, 0.0, 0.8, 1.0)


def cropped(size=(400, 240), level=0, kept=(0,), **more):
    """A figure of a 4×4 plane over the middle of a picture of one grey."""
    return overlay(Image.new("RGB", size, (level,) * 3), cropped_layout(), [Kept("one", np.array(kept), **more)])


@pytest.mark.parametrize("level", [0, 40, 80, 120, 150, 180, 255])
def test_a_dropped_cell_is_never_taken_for_a_kept_one(level):
    """Whatever the picture's grey: a kept cell has it all over, a dropped one has a dark dot on grey, or is lighter."""
    figure = cropped(level=level)
    pixels, axes = drawn(figure), figure.axes[1]
    cells = {}
    for name, (row, col) in {"kept": (0, 0), "dropped": (2, 2)}.items():
        x, y = (0.2 + 0.6 * (col + 0.5) / 4) * 400, (row + 0.5) / 4 * 240
        cells[name] = [brightness(pixels, axes, x + dx, y + dy) for dx in (-15, 0, 15) for dy in (-15, 0, 15)]
    assert max(cells["kept"]) - min(cells["kept"]) < 2 and abs(cells["kept"][4] - level) < 2
    assert max(abs(value - level) for value in cells["dropped"]) > 50
    assert cells["dropped"][4] < 40 < cells["dropped"][0], "a dot in the middle of grey"


@pytest.mark.parametrize("level", [0, 255])
def test_what_the_model_never_sees_is_hatched(level):
    """Neither bright like a kept cell nor grey like a dropped one: two tones in stripes, left and right of the crop, and nowhere else."""
    figure = cropped(level=level, kept=tuple(range(16)))
    pixels, axes = drawn(figure), figure.axes[1]

    def tones(left):
        found = [brightness(pixels, axes, left + dx, 100 + dy) for dx in range(40) for dy in range(0, 40, 2)]
        return np.mean(np.array(found) > 225), np.mean(np.array(found) < 180)

    for margin in (20, 340):
        pale, stripe = tones(margin)
        assert pale > 0.3 and stripe > 0.08
    assert tones(200) in ((1.0, 0.0), (0.0, 1.0)), "the picture itself"
    plain = figure.axes[0]
    assert abs(brightness(pixels, plain, 40, 120) - level) < 2, "the original stands beside, untouched"


def test_padding_that_tokens_cover_is_drawn():
    """A kept token above a wide picture that was padded to a square: it lies outside of the picture and is still seen."""
    tokens = raster(Plane("image", 4, 4, (0.0, -0.5, 1.0, 1.5)))
    layout = Layout(np.arange(16), tokens.planes, tokens.plane, tokens.row, tokens.col)
    figure = overlay(Image.new("RGB", (200, 100), (10, 10, 10)), layout, [Kept("one", np.array([1]))])
    pixels, axes = drawn(figure), figure.axes[1]
    assert brightness(pixels, axes, 75, -25) > 215 and brightness(pixels, axes, 25, -15) < DROPPED
    assert "padding" in legend(figure) and "never seen by the model" not in legend(figure)


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_picture_says_what_it_shows():
    figure = overlay(
        picture((400, 240)), cropped_layout(),
        [Kept("FastV", np.array([0, 5]), "a cat", k="2", prior="neutral", box=(0.25, 0.5, 0.5, 0.75))],
        title="where?", model="llava-1.5-7b-hf", truth=(0.3, 0.5, 0.5, 0.75),
    )  # fmt: skip
    words = [text.get_text() for text in figure.texts]
    assert {"where?", "llava-1.5-7b-hf", "original", "FastV", "“a cat”"} <= set(words)
    assert "2 of 16 visual tokens · K = 2 · prior neutral" in words
    assert "400 × 240 pixels; the model sees 240 × 240 of them" in words
    assert legend(figure) == ["kept, in its own colours", "dropped", "never seen by the model", "box the model answers", "right box"]
    pixels, axes = colours(figure), figure.axes[1]
    right, up = axes.transData.transform((100, 150))  # the left border of the model's box
    near = pixels[pixels.shape[0] - 3 - int(up) : pixels.shape[0] + 2 - int(up), int(right) - 3 : int(right) + 4] / 255
    assert np.abs(near - to_rgb("#e6007e")).max(-1).min() < 0.05


def test_words_above_a_panel_do_not_reach_the_next_one():
    long, answer = "sparsevlm@k=2@second_layer=4@third_layer=6", "m" * 60
    panel = Kept(long, np.array([0]), answer, k="2, 4, 6", prior="W" * 50)
    figure = overlay(picture((400, 240)), cropped_layout(), [panel] * 2)
    renderer = FigureCanvasAgg(figure).get_renderer()
    words = [text.get_window_extent(renderer) for text in figure.texts]
    for axes in figure.axes:
        box = axes.get_window_extent(renderer)
        assert all(word.x1 <= box.x1 + 1 for word in words if abs(word.x0 - box.x0) < 2)
    assert [text.get_text() for text in figure.texts].count(long) == 2, "smaller letters, not fewer"


def cropped_layout():
    tokens = raster(Plane("image", 4, 4, SQUARE))
    return Layout(np.arange(16), tokens.planes, tokens.plane, tokens.row, tokens.col)


def test_one_method_on_axes_of_the_caller():
    size = (120, 120)
    plane = Plane("image", 6, 6, (0.0, 0.0, 1.0, 1.0))
    tokens = raster(plane)
    layout = Layout(np.arange(36), tokens.planes, tokens.plane, tokens.row, tokens.col)
    own = Figure()
    axes = own.subplots(1, 2)
    kept = Kept("fastv", np.array([0, 7]))
    assert overlay(picture(size), layout, [kept], ax=axes[1]) is own
    assert not axes[0].images and axes[1].get_title(loc="left") == "fastv"
    pixels = drawn(own)
    for index, bright in ((7, True), (8, False)):
        assert (brightness(pixels, axes[1], *middle(plane, *divmod(index, 6), size)) > KEPT) is np.bool_(bright)
    with pytest.raises(BiaskitError, match="2 methods on one ax"):
        overlay(picture(size), layout, [kept, kept], ax=axes[0])
