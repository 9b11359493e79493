"""One line a person wants to read; tables in which no text becomes markup; bars that appear where somebody looks on."""

from __future__ import annotations

import io
import sys
import types

import numpy as np
import pytest

import biaskit
from biaskit.display import Bars, html_table, in_notebook, wants_progress
from biaskit.grid import Layout, Plane, raster
from biaskit.images.generated import GeneratedSource
from biaskit.prior.store import list_priors
from biaskit.prior.value import PlaneStats, Prior

BAD = "<script>alert('x')</script>&"


def prior(model="org/model", rows=4, layers=(1, 4), **meta):
    values = np.arange(1, 1 + len(layers) * rows * 5, dtype=np.float32).reshape(len(layers), rows, 5)
    return Prior(
        {"image": PlaneStats(values, count=20)},
        layers,
        np.full(len(layers), 0.5, dtype=np.float32),
        {"model": model, "model_type": "llava", "n_images": "20", "source": "coco", **meta},
    )


def test_a_prior_is_one_line():
    assert repr(prior()) == "Prior(org/model, 20 images of coco, layers 1, 4; image 4×5)"
    assert repr(prior(layers=(1,), n_images="0", model="")) == "Prior(llava, imported, layer 1; image 4×5)"
    assert repr(prior().planes["image"]) == "PlaneStats(4×5 at 2 layers, 20 images)"


def test_a_prior_is_a_small_picture_in_a_notebook():
    from PIL import Image

    shown = prior(BAD)
    html = shown._repr_html_()
    assert "<script>" not in html and "&lt;script&gt;" in html
    assert html.count("<img ") == 2 and "layer 4 (K = 5)" in html
    assert prior(layers=tuple(range(9)))._repr_html_().count("<img ") == 4
    picture = Image.open(io.BytesIO(shown._repr_png_()))
    assert picture.size == (165, 132) and picture.getpixel((0, 0))[2] > picture.getpixel((0, 0))[0], "less than the mean is blue"
    last = picture.getpixel((164, 131))
    assert last[0] > last[2], "more is red"
    assert shown._repr_png_() == shown._repr_png_()
    empty = Prior({"image": PlaneStats(np.eye(3, dtype=np.float32)[None])}, (0,), np.ones(1, dtype=np.float32), {})
    assert Image.open(io.BytesIO(empty._repr_png_())).size == (168, 168)  # cells of 0 as well


def test_a_report_is_one_line_and_a_table():
    report = biaskit.bias_report(prior(BAD))
    assert repr(report).startswith(f"BiasReport({BAD}, 20 images; layer 1 image: ") and "\n" not in repr(report)
    assert repr(report.layers[0]).startswith("LayerBias(layer 1, image 4×5: ")
    html = report._repr_html_()
    assert "<script>" not in html and html.count("<tr>") == 3
    assert biaskit.bias_report(prior(), layers="4").layers == biaskit.bias_report(prior(), layers=4, planes="image").layers


def test_other_results_are_one_line(tmp_path, monkeypatch):
    tokens = raster(Plane("image", 2, 3))
    layout = Layout(np.arange(6), tokens.planes, tokens.plane, tokens.row, tokens.col)
    assert repr(layout) == "Layout(6 visual tokens: image 2×3)"
    assert repr(layout.part(np.array([1, 3]))) == "Layout(2 of 6 visual tokens: image 2×3)"
    assert repr(GeneratedSource(3)) == "<GeneratedSource generated: 3 images>"
    monkeypatch.chdir(tmp_path)
    prior().save("priors/mine.safetensors")
    assert repr(list_priors()[0]) == f"PriorFile('mine': {prior()!r})"


def test_a_validation_is_one_line_and_a_table(tmp_path):
    from biaskit.validation.ask.runner import Validation

    scores = {
        ("pope", "none"): {"accuracy": 0.5, "n": 4.0},
        ("pope", BAD): {"accuracy": 0.25, "n": 4.0},
        ("vqa", "none"): {"score": 1.0, "n": 2.0},
    }
    tasks = [{"name": "pope", "metric": "accuracy"}, {"name": "vqa", "metric": "score"}]
    found = Validation(tmp_path / "out", {"tasks": tasks}, 6, scores)
    assert repr(found) == f"Validation({str(tmp_path / 'out')!r}: 2 cells of pope, vqa; 6 new answers)"
    html = found._repr_html_()
    assert "<script>" not in html and "<td>25.0 (n = 4)</td><td>–</td>" in html


def test_tables_escape_everything():
    html = html_table([BAD], [[BAD, 3]], BAD)
    assert "<script>" not in html and html.count("&lt;script&gt;") == 3


def test_progress_is_shown_where_somebody_looks_on(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not wants_progress(None) and wants_progress(True) and not wants_progress(False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert wants_progress(None)
    monkeypatch.setattr(sys, "stderr", None)
    assert not wants_progress(None)
    kernel = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: kernel))
    assert in_notebook() and wants_progress(None)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace()))
    assert not in_notebook()


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr("rich.console.Console.is_terminal", True)


def test_bars_show_the_rate_and_what_is_left(capsys, terminal):
    with Bars("images") as bars:
        bars.show("[one]", 5, 10)
        bars.show("[one]", 10, 10)
        bars.show("asking a", 1, 3, key="asking")
        bars.show("asking b", 3, 3, key="asking", detail="90 % [of] 3")
        bars.say("a \x1b[31mline")
    shown = capsys.readouterr()
    assert shown.out == ""
    text = " ".join(shown.err.split())
    assert r"a \x1b[31mline" in text and "\x1b[31m" not in shown.err
    assert "[one]" in text and "10/10" in text and "images/s" in text and "left" in text
    assert text.rindex("asking b") > text.rindex("asking a") and "90 % [of] 3" in text


def test_where_there_is_no_terminal_a_line_every_half_minute_tells_how_far_it_is(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("biaskit.display.time.monotonic", lambda: now[0])
    with Bars("images") as bars:
        for done in range(0, 100, 10):
            bars.show("calibrating", done, 100, detail="of [many]")
            now[0] += 10
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "calibrating: 30 of 100, 1.0 images/s, 0:01:10 left · of [many]",
        "calibrating: 60 of 100, 1.0 images/s, 0:00:40 left · of [many]",
        "calibrating: 90 of 100, 1.0 images/s, 0:00:10 left · of [many]",
    ]
    monkeypatch.setattr("biaskit.display.is_quiet", lambda: True)
    with Bars("images") as bars:
        for done in range(0, 100, 10):
            bars.show("calibrating", done, 100)
            now[0] += 10
    assert capsys.readouterr().err == ""


def test_hidden_bars_only_say(capsys):
    with Bars("images", shown=False) as bars:
        bars.show("one", 5, 10)
        bars.say("told")
    assert capsys.readouterr().err == "told\n"


@pytest.mark.parametrize(("progress", "expected"), [(True, True), (None, False), (False, False)])
def test_calibrate_shows_a_bar_and_what_it_skips(capsys, terminal, progress, expected):
    from poisoned import Poisonous, poisoned

    from biaskit.images.base import order

    bad = int(order(Poisonous(6, []), 0)[1])
    seen = []
    source = Poisonous(6, [bad])
    biaskit.calibrate(poisoned(), source, samples=4, workers=0, layers=1, progress=progress, report=seen.append)
    text = " ".join(capsys.readouterr().err.split())
    assert (f"skipped {source.identify(bad)}: its attention is not finite" in text) is expected
    assert ("4/4" in text and "images/s" in text) is expected
    assert seen[-1].done == 4, "a report is told as well"
