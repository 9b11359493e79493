"""Texts in characters that the figures' own font lacks."""

from __future__ import annotations

import warnings

import matplotlib
import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from PIL import Image

from biaskit.figures import glyphs
from biaskit.figures.glyphs import show_all_text
from biaskit.figures.overlay import Kept, overlay
from biaskit.figures.style import STYLE
from biaskit.grid import Layout, Plane, raster

CHINESE = "一只白色的猫"


@pytest.fixture
def bundled(monkeypatch):
    """A machine with no fonts but matplotlib's own, which has not been warned yet."""
    mine = [entry for entry in fontManager.ttflist if entry.fname.startswith(matplotlib.get_data_path())]
    monkeypatch.setattr(fontManager, "ttflist", mine)
    monkeypatch.setattr(glyphs, "_told", set())
    glyphs._fallbacks.cache_clear()
    yield
    glyphs._fallbacks.cache_clear()


def drawn(text):
    with rc_context(STYLE):
        figure = Figure()
        artist = figure.text(0.1, 0.5, text)
        show_all_text(figure)
    return figure, artist


def test_plain_texts_stay(bundled):
    _, artist = drawn("where is the red circle? ρ = 0.5 …")
    assert artist.get_text() == "where is the red circle? ρ = 0.5 …"
    assert artist.get_fontfamily() == ["sans-serif"]


def test_another_font_takes_over(bundled):
    own = glyphs._characters(matplotlib.font_manager.findfont("DejaVu Sans"))
    other = glyphs._characters(matplotlib.font_manager.findfont("STIXGeneral"))
    letter = min(c for c in other - own if c.isprintable() and ord(c) > 0x2000)
    _, artist = drawn(f"a {letter} b")
    assert artist.get_text() == f"a {letter} b"
    assert artist.get_fontfamily()[0] == "sans-serif" and artist.get_fontfamily()[1].startswith("STIX")


def test_what_no_font_has_is_said_once(bundled, tmp_path):
    with pytest.warns(UserWarning, match="no installed font has .*Noto Sans CJK") as told:
        figure, artist = drawn(f"answer: {CHINESE}")
    assert len(told) == 1
    assert artist.get_text() == "answer: " + "?" * len(CHINESE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # neither ours again nor matplotlib's "Glyph … missing"
        drawn(CHINESE)
        figure.savefig(tmp_path / "figure.png")


def test_overlays_with_chinese_answers(bundled, tmp_path):
    grid = raster(Plane("image", 4, 4, (0.0, 0.0, 1.0, 1.0)))
    layout = Layout(np.arange(16), grid.planes, grid.plane, grid.row, grid.col)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        overlay(Image.new("RGB", (64, 64)), layout, [Kept("FastV", np.arange(4), CHINESE)], title=CHINESE, out=tmp_path / "a.png")
    assert len(told) == 1 and "no installed font" in str(told[0].message)
