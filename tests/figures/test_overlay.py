"""The overlay on every family's own layout: rendered, a kept token is bright exactly where its patch lies."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from PIL import Image

from biaskit.families.checkpoints.tiny import tiny_model
from biaskit.figures.overlay import Kept, overlay
from biaskit.images import open_source

SIZES = {"portrait": (360, 480), "landscape": (520, 300)}
FURTHER = {"llava_next": ["base"], "llava_onevision": ["base"], "internvl": ["thumbnail"]}  # drawn beneath the largest plane
FURTHER |= {"llava_next_video": ["base"], "aya_vision": ["thumbnail"], "idefics3": ["thumbnail"], "smolvlm": ["thumbnail"]}
DROPPED, KEPT = 110, 235  # of 255, on a light grey picture: darkened cells are below, cells left as they are above
LEVEL = 245


def picture(size):
    return Image.new("RGB", size, (LEVEL, LEVEL, LEVEL))


def laid_out(tiny, *sizes):
    """The layout of one prompt with these pictures."""
    model, processor, family = tiny
    return family.prepare(processor, model.config, [[picture(size) for size in sizes]], ["what?"]).layouts[0]


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
    rows = [axes for axes in figure.axes if not axes.get_title(loc="left")]  # further views have a title, the large ones none
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
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["", *expected]
    pixels = drawn(figure)
    if views:
        big, small = figure.axes
        check_only(layout, token, size, pixels, small)
        assert small.get_position().y1 < big.get_position().y0 and small.get_position().width < big.get_position().width / 2
        places = [middle(layout.planes[main], layout.row[i], layout.col[i], size) for i in np.flatnonzero(layout.plane == main)]
        assert all(brightness(pixels, big, *at) < DROPPED for at in places if at is not None)
    else:
        check_only(layout, token, size, pixels, figure.axes[0])


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
    assert ticks(first.axes[0]) == []
    if not len(newline):
        return
    canvas = layout.planes[largest(layout)]
    chosen = newline[[0, len(newline) // 2, -1]]
    figure = overlay(picture(size), layout, [Kept("three", chosen), Kept("all", newline)])
    large = [axes for axes in figure.axes if not axes.get_title(loc="left")]
    _, top, _, bottom = canvas.box
    centres = [(top + (row + 0.5) / canvas.rows * (bottom - top)) * size[1] for row in range(canvas.rows)]
    assert ticks(large[0]) == pytest.approx([centres[layout.row[token]] for token in chosen])
    assert ticks(large[1]) == pytest.approx(centres)
    # and they are really there: yellow at the first tick, in the first panel, white between the first two
    pixels = colours(figure)
    for y, marked in ((centres[0], True), ((centres[0] + centres[canvas.rows // 2]) / 2, False)):
        right, up = large[0].transData.transform((size[0] * 1.012, y))
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
    large = [axes for axes in figure.axes if not axes.get_title(loc="left")]
    check_only(layout, token, sizes[1], pixels, large[0])
    for index in np.flatnonzero(layout.plane == main):
        at = middle(layout.planes[main], layout.row[index], layout.col[index], sizes[1])
        assert at is None or brightness(pixels, large[1], *at) < DROPPED
    other = overlay(picture(sizes[0]), layout, [Kept("first", np.array([elsewhere]))], number=0)
    check_only(layout, elsewhere, sizes[0], drawn(other), other.axes[0])


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
    assert len(ticks(second.axes[0])) == len(kept) and ticks(first.axes[0]) == []


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
