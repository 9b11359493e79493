"""Cells far below a random choice, or whose answers nobody can read, are named: after a run, and at the top of its report."""

from __future__ import annotations

import dataclasses

import pytest

from biaskit.validation.ask.runner import validate
from biaskit.validation.report.analyse import Settings
from biaskit.validation.report.contents import Report
from biaskit.validation.results.doubtful import Scored, doubts
from biaskit.validation.results.read import read_run

CHANCE = Scored("random/r0.5", "random", "50 %", 0.9, 100, 1.0)


@pytest.mark.parametrize(
    ("score", "n", "parsed", "named"),
    [(0.81, 100, 1.0, 0), (0.5, 100, 1.0, 1), (0.5, 4, 1.0, 0),
     (0.1, 100, 0.2, 2), (0.9, 100, 0.49, 1), (0.9, 100, 0.5, 0), (0.1, 100, None, 1)],
    ids=["a little", "far", "luck", "both", "unreadable", "half", "not counted"],
)  # fmt: skip
def test_what_is_doubtful(score, n, parsed, named):
    cell = Scored("fastv/r0.5", "fastv", "50 %", score, n, parsed)
    assert len(doubts("where", [CHANCE, cell])) == named
    assert doubts("where", [dataclasses.replace(cell, parsed=1.0)]) == [], "nothing to hold it against"
    assert doubts("where", [CHANCE, dataclasses.replace(cell, budget="10 %", parsed=1.0)]) == []


def test_the_worst_are_named_and_the_others_counted():
    cells = [Scored(f"m{place}/r0.5", "fastv", "50 %", 0.01 * place, 100, 0.01 * place) for place in range(40)]
    low, mute = doubts("where", [CHANCE, *reversed(cells)])
    assert low.startswith("where: m0/r0.5 (0.0 %, random 90.0 %), m1/r0.5") and "m5/r0.5 (5.0 %, random 90.0 %) and 34 more: far" in low
    assert mute.startswith("where: m0/r0.5 (100.0 %), m1/r0.5 (99.0 %)") and "m5/r0.5 (95.0 %) and 34 more: so many" in mute


def test_a_run_and_its_report_name_them(tmp_path):
    """The embedded model under DivPrune's renumbered positions answers hardly anything; with its own positions it does."""
    said = []
    found = validate(
        "demo", "scenes-where", "random,divprune,divprune@positions=original", 0.5, out=tmp_path, limit=24, say=said.append, progress=False
    )  # fmt: skip
    (line,) = (line for line in said if "far below" in line)
    assert "divprune/r0.5" in line and "run divprune@positions=original too" in line and "divprune@positions=original/r0.5 (" not in line
    assert line in found.doubts
    warnings = Report.of(read_run(tmp_path), Settings(resamples=200, flips=200)).warnings
    assert [one for one in warnings if "far below" in one] == [line]
