"""Figures agree, and readers with any kind of colour blindness can read them: checked by simulating it."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from biaskit.figures.colours import RATIO, RELATIVE, colours
from biaskit.figures.methods import _KNOWN as KNOWN
from biaskit.figures.methods import MARKERS, PALETTE, look_of, looks
from biaskit.figures.patches import BOX, EDGE, TRUTH
from biaskit.pruners import pruners

# Machado, Oliveira & Fernandes 2009 (doi 10.1109/TVCG.2009.113), severity 1.0, for linear RGB
BLIND = {
    "none": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    "tritanopia": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(colour, blindness="none"):
    """CIELAB of a colour as somebody sees it."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = XYZ @ np.clip(BLIND[blindness] @ linear, 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def apart(a, b, blindness):
    """ΔE 1976; below 2 two colours look the same."""
    return float(np.linalg.norm(lab(a, blindness) - lab(b, blindness)))


def test_black_and_white_are_a_hundred_apart():
    assert apart("black", "white", "none") == pytest.approx(100, abs=0.1)
    assert apart("#ff0000", "#00a000", "deuteranopia") < apart("#ff0000", "#00a000", "none") / 2, "the simulation does something"


@pytest.mark.parametrize("blindness", BLIND)
def test_methods_are_told_apart(blindness):
    shown = {name: look_of(name) for name in KNOWN}
    for (a, one), (b, other) in combinations(shown.items(), 2):
        assert (one.colour, one.marker) != (other.colour, other.marker), (a, b)
        if one.marker == other.marker:
            assert apart(one.colour, other.colour, blindness) > 12, (a, b)
    for name, one in shown.items():
        assert apart(one.colour, "white", blindness) > 25, name


@pytest.mark.parametrize("blindness", BLIND)
@pytest.mark.parametrize("name", [RELATIVE, RATIO])
def test_maps_are_read_by_lightness_and_both_ends_differ(name, blindness):
    shades = colours(default=name)
    seen = np.array([lab(shades(at)[:3], blindness) for at in np.linspace(0, 1, 65)])
    middle = 32
    assert seen[middle, 0] > 90, "uniform is near white"
    assert np.all(np.diff(seen[: middle + 1, 0]) > -0.6) and np.all(np.diff(seen[middle:, 0]) < 0.6)
    for step in (8, 16, 32):
        assert np.linalg.norm(seen[middle - step] - seen[middle + step]) > 8, (step, "less and more are told apart")
    for beyond, end in ((shades(-0.1), shades(0.0)), (shades(1.1), shades(1.0))):
        assert apart(beyond[:3], end[:3], blindness) > 12


@pytest.mark.parametrize("blindness", BLIND)
def test_lines_on_pictures_are_told_apart(blindness):
    for a, b in combinations((EDGE, BOX[0], TRUTH[0]), 2):
        assert apart(a, b, blindness) > 12
    assert BOX[1] != TRUTH[1]


def test_every_method_has_a_look():
    """Those without a line in the table get one by their letters; the table names no method that is gone."""
    assert set(KNOWN) <= set(pruners.names())
    assert all(look_of(name).colour in PALETTE and look_of(name).marker in MARKERS for name in [*pruners.names(), "somebody's"])


def test_priors_and_their_absence_are_told_apart():
    found = looks(["fastv", "fastv+tasks", "fastv+neutral", "d2pruner+tasks", "divprune", "fastv@k=3+tasks"])
    assert len({found[label].colour for label in found if label.startswith("fastv")}) == 1
    lines = [str(found[label].line) for label in ("fastv", "fastv+tasks", "fastv+neutral")]
    assert len(set(lines)) == 3
    assert found["d2pruner+tasks"].line == found["fastv+tasks"].line, "a prior has one dash pattern, whatever the method"
    assert not found["fastv"].filled and found["divprune"].filled and found["divprune"].line == "-"
    assert found["fastv@k=3+tasks"].marker != found["fastv+tasks"].marker
    assert looks(["fastv+tasks"], debiased=())["fastv+tasks"].line == "-"
    assert len(set(PALETTE)) == 10


def test_a_method_looks_alike_in_all_figures():
    from biaskit.validation.report.figure_style import looks as in_reports
    from biaskit.validation.results.cells import Cell

    assert in_reports.__module__ == "biaskit.validation.report.figure_style"
    fields = {"cell": "fastv/r0.1", "pruner": "fastv", "method": "FastV", "retention": 0.1, "parameters": {}, "prior": None}
    cell = Cell.of(fields)
    assert in_reports([cell])["fastv"] == looks(["fastv"])["fastv"]
