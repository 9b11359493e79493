"""The interactive page: what it holds, that it asks nobody for anything, and what a person sees and hears in a real browser."""

from __future__ import annotations

import base64
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, axe, chromium
from PIL import Image

from biaskit.figures.colours import colour_limit
from biaskit.figures.viewer.contents import Choices, Contents, Sample
from biaskit.figures.viewer.page import html
from biaskit.grid import Layout, Plane, join, raster
from biaskit.prior.resample import resample
from biaskit.prior.value import PlaneStats, Prior

HOSTILE = '</script><script>window.harmed = 1</script><img src=x onerror="window.harmed = 1">'
RNG = np.random.default_rng(0)


def prior(seed, size=(6, 8), layers=(0, 1, 4), heads=3, **meta):
    draw = np.random.default_rng(seed)
    shape = (len(layers), *size)
    mean = draw.gamma(4, 0.25, shape).astype(np.float32) * np.linspace(0.3, 2, size[0], dtype=np.float32)[:, None]
    split = draw.gamma(4, 0.25, (len(layers), heads, *size)).astype(np.float32)
    newline = draw.gamma(4, 0.25, (len(layers), size[0], 1)).astype(np.float32)
    planes = {"canvas": PlaneStats(mean, head_mean=split), "newline": PlaneStats(newline)}
    return Prior(planes, tuple(layers), np.full(len(layers), 0.5, np.float32), {"model": "org/name", "n_images": "7", **meta})


def layout():
    """A canvas over the middle of a wide picture, and its newline tokens."""
    tokens = join([raster(Plane("canvas", 6, 8, (0.1, 0.0, 0.9, 1.0))), raster(Plane("newline", 6, 1, None))])
    return Layout(np.arange(54), tokens.planes, tokens.plane, tokens.row, tokens.col)


def choices(label, settings, size=5):
    return Choices(label, label, "#0173b2", {setting: np.sort(RNG.choice(54, size, replace=False)) for setting in settings})


def contents(name="neutral"):
    shares, strengths = (0.5, 1 / 3, 0.1), (0.0, 0.5, 1.0)
    debiased = [(k, share, tau) for k in (1, 2, 5) for share in shares for tau in strengths]
    attention = {k: RNG.gamma(1, 0.01, 54).astype(np.float32) for k in (1, 2, 5)}
    methods = [choices("fastv+prior", debiased), choices("divprune", [(None, share, None) for share in shares], 7)]
    sample = Sample("org/name", "where is it?", layout(), attention, methods, shares, strengths)
    picture = Image.fromarray(RNG.integers(0, 255, (120, 200, 3), dtype=np.uint8))
    return Contents({name: prior(1), "tasks": prior(2)}, None, picture, "a.png", sample, "Positional bias of name")


class References(HTMLParser):
    """Everything by which an element may load or lead somewhere, and the scripts."""

    def __init__(self, text):
        super().__init__()
        self.found, self.scripts, self.handlers = [], 0, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script"
        self.found += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action", "poster", "xlink:href")]
        self.handlers += [value for name, value in attrs if name.startswith("on")]


def test_the_file_leads_nowhere():
    text = html(contents())
    page = References(text)
    assert all(value.startswith(("#", "data:")) for value in page.found)
    assert page.scripts == 2 and set(page.handlers) == {"return false"}
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r'"(?:src|maps|heads)":"[^"]*"', "", text))
    assert "default-src 'none'; img-src data:" in text


def test_foreign_text_is_text():
    made = contents(HOSTILE)
    sample = made.sample
    page = References(
        html(Contents(made.priors, None, made.picture, HOSTILE, Sample(HOSTILE, HOSTILE, *list(vars(sample).values())[2:]), HOSTILE))
    )
    assert page.scripts == 2 and set(page.handlers) == {"return false"}


def packed(text):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL).group(1))


def floats(text):
    return np.frombuffer(base64.b64decode(text), "<f4")


def test_numbers_are_those_of_the_prior():
    made = contents()
    found = packed(html(made))
    mine, shown = made.priors["tasks"], found["priors"][1]
    for at, layer in enumerate(mine.layers):
        whole = np.concatenate([mine.map(plane, layer).ravel() for plane in ("canvas", "newline")])
        maps = floats(shown["planes"][0]["maps"]).reshape(3, 6, 8)
        assert maps[at] == pytest.approx(mine.map("canvas", layer) / whole.mean(), rel=1e-5)
        heads = floats(shown["planes"][0]["heads"]).reshape(3, 3, 6, 8)
        assert heads[at] == pytest.approx(mine.planes["canvas"].head_mean[at] / whole.mean(), rel=1e-5)
    assert shown["planes"][1]["heads"] is None
    one = found["sample"]["choices"][0]
    bits = np.unpackbits(np.frombuffer(base64.b64decode(one["kept"]["2|1|2"]), np.uint8), bitorder="little")
    assert np.array_equal(np.flatnonzero(bits), made.sample.choices[0].kept[2, 1 / 3, 1.0])
    some = packed(html(Contents(made.priors, (4,))))
    assert some["priors"][0]["layers"] == [4] and some["sample"] is None and some["picture"] is None


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = chromium()
    if program is None:
        pytest.skip("no Chromium here: apt-get install chromium, or set BIASKIT_CHROMIUM")
    with Browser(program, tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "view.html"
    path.write_text(html(contents()), encoding="utf-8")
    return path


def shots(tmp_path):
    """Where screenshots go: BIASKIT_SCREENSHOTS to look at them."""
    return Path(os.environ.get("BIASKIT_SCREENSHOTS", tmp_path))


LOOKS = {
    "desktop": {},
    "phone": {"width": 390, "height": 844},
    "dark": {"dark": True},
    "dark phone": {"width": 390, "height": 844, "dark": True},
}


@pytest.mark.parametrize("look", LOOKS)
def test_it_opens_everywhere_without_asking_anybody(browser, page, look, tmp_path):
    browser.requests.clear()
    browser.errors.clear()
    browser.open(page, **LOOKS[look])
    assert browser.run("document.documentElement.dataset.ready") == "yes"
    assert browser.errors == []
    assert browser.requests and all(address.startswith(("file:", "data:")) for address in browser.requests)
    assert browser.run("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out at the side"
    name = shots(tmp_path) / f"view-{look.replace(' ', '-')}.png"
    browser.picture(name)
    pixels = np.asarray(Image.open(name).convert("L"))
    assert pixels.std() > 20 and (np.median(pixels[:40]) < 60) == ("dark" in look)


@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing(browser, page, look):
    script = axe()
    if script is None:
        pytest.skip("BIASKIT_AXE does not name axe-core's axe.min.js (npm install axe-core)")
    browser.open(page, **LOOKS[look])
    browser.run("document.getElementById('table').open = true; new Promise((done) => setTimeout(done, 50))")
    assert browser.violations(script) == []


def test_the_keyboard_reaches_and_tells_every_token(browser, page, tmp_path):
    browser.open(page)
    for _ in range(30):
        browser.press("Tab")
        if browser.run("document.activeElement.tagName") == "CANVAS":
            break
    else:
        raise AssertionError("no map can be focused")
    for key in ("Home", "ArrowDown", "ArrowRight", "ArrowRight"):
        browser.press(key)
    assert browser.run("[state.row, state.col]") == [1, 2]
    spoken = browser.run("document.getElementById('spoken').textContent")
    assert "token 10 of 54" in spoken and "row 1, col 2" in spoken and "kept by" in spoken
    browser.press("End")
    assert browser.run("[state.row, state.col]") == [1, 7]
    assert browser.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.picture(shots(tmp_path) / "view-focus.png", whole=False)


def test_sliders_show_what_the_methods_keep(browser, page):
    found = packed(page.read_text(encoding="utf-8"))["sample"]
    browser.open(page)
    for share, tau, layer in ((0, 0, 0), (1, 0, 1), (1, 2, 1), (2, 1, 2), (2, 2, 0)):
        for name, value in {"retention": share, "strength": tau, "layer": layer}.items():
            browser.run(f"$('{name}').value = {value}; $('{name}').dispatchEvent(new Event('input'))")
        shown = browser.run("state.places.filter((one) => one.view.bits).map((one) => Array.from(one.view.bits))")
        wanted = [found["choices"][0]["kept"][f"{(1, 2, 5)[layer]}|{share}|{tau}"], found["choices"][1]["kept"][f"|{share}|"]]
        assert shown == [list(base64.b64decode(text)) for text in wanted]
    assert browser.run("document.querySelector('#methods .faint').textContent") == "5 of 54 visual tokens"
    assert browser.run("[$('retention-text').textContent, $('strength-text').textContent]") == ["10 %", "1"]
    assert browser.run("document.querySelectorAll('#methods canvas').length") == 2


def test_pointing_at_a_token_gives_its_numbers(browser, page):
    made = contents()
    browser.open(page)
    browser.run("document.querySelector('canvas').scrollIntoView({block: 'center'})")
    box = "const box = canvas.getBoundingClientRect(), s = box.width / canvas.width"
    at = "[box.left + (place.left + 3.5 * place.wide) * s, box.top + (place.top + 2.5 * place.high) * s]"
    x, y = browser.run(f"(() => {{ const {{ place, canvas }} = state.places[0]; {box}; return {at}; }})()")
    browser.point(x, y)
    numbers = dict(browser.run("numbers().map(([a, b]) => [a, String(b)])"))
    assert (numbers["row"], numbers["col"], numbers["token"]) == ("2", "3", "19 of 54")
    layer = browser.run("state.layer")
    maps = {}
    for name, one in made.priors.items():
        whole = np.concatenate([one.map(plane, layer).ravel() for plane in ("canvas", "newline")]).mean()
        maps[name] = one.map("canvas", layer)
        assert float(numbers[name].split()[0]) == pytest.approx(maps[name][2, 3] / whole, rel=0.01)
    a, b = (values / values.mean() for values in maps.values())
    assert float(numbers["Ratio"].split()[0]) == pytest.approx(a[2, 3] / b[2, 3], rel=0.01)


def test_the_script_s_rules_are_ours(browser, page):
    """Resampling, and the scale of the colours."""
    browser.open(page)
    values = np.random.default_rng(3).gamma(2, 0.5, (5, 7))
    given = json.dumps(values.ravel().tolist())
    for size in ((3, 11), (9, 4)):
        found = browser.run(f"Array.from(resample({{rows: 5, cols: 7, values: Float32Array.from({given})}}, {size[0]}, {size[1]}).values)")
        assert found == pytest.approx(resample(values, *size).ravel(), abs=1e-5)
    logs = np.log2(values)
    assert browser.run(f"limitOf([logsOf({given})])") == pytest.approx(colour_limit([logs]))


def test_foreign_text_stays_text_in_a_browser(browser, tmp_path):
    made = contents(HOSTILE)
    (tmp_path / "a.html").write_text(html(Contents(made.priors, None, made.picture, HOSTILE, made.sample, HOSTILE)), encoding="utf-8")
    browser.open(tmp_path / "a.html")
    assert browser.run("window.harmed === undefined && document.images.length === 0")
    assert browser.run("document.querySelector('h1').textContent") == HOSTILE
    assert browser.run("document.querySelector('#panels h3').textContent") == HOSTILE
