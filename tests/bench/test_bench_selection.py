"""`biaskit bench select`: every selector against its authors' algorithm, the report, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from biaskit.bench import selection
from biaskit.bench.features import grid_of, made_up
from biaskit.bench.report import keeper, kept_rows, write
from biaskit.bench.selection import METHODS, Line, bench_selectors, exponents
from biaskit.bench.selection_report import markdown
from biaskit.cli.bench_select import select
from biaskit.errors import BiaskitError

app = typer.Typer()
app.command()(select)
SMALL = ["--dim", "32", "--repeats", "1"]


def test_features_are_reproducible_and_smooth() -> None:
    sample, again = made_up(96, 64), made_up(96, 64)
    assert all(torch.equal(a, b) for a, b in zip(vars(sample).values(), vars(again).values(), strict=True))
    assert torch.equal(sample.features, sample.features.bfloat16().float())
    assert not torch.equal(sample.features, made_up(96, 64, 1).features)
    image = torch.nn.functional.normalize(sample.features, dim=1).reshape(*grid_of(96), 64)
    beside, apart = (image[:, 1:] * image[:, :-1]).sum(-1).mean(), (image[:4] * image[4:8]).sum(-1).mean()
    assert float(beside) > float(apart) + 0.1


def test_every_selector_keeps_what_its_loop_keeps() -> None:
    told: list[str] = []
    report = bench_selectors([48, 96], dim=32, repeats=2, retention=0.25, authors_up_to=48, progress=told.append)
    lines = report["lines"]
    assert [(line["method"], line["tokens"]) for line in lines] == [(method, size) for size in (48, 96) for method in METHODS]
    assert all(line["same"] is True and line["kept"] == 12 and line["speedup"] > 0 for line in lines[: len(METHODS)])
    assert all(line["same"] is None and line["authors_ms"] is None for line in lines[len(METHODS) :])
    assert set(report["exponents"]["d2pruner"]) == {"ours"}
    assert len(told) == len(lines)
    assert markdown(report).count("\n| ") == 2 * len(METHODS)


def test_a_batch_is_timed_by_the_sample() -> None:
    report = bench_selectors([48], dim=32, repeats=1, retention=0.25, batch=3)
    assert [line["same"] for line in report["lines"]] == [True] * len(METHODS)
    assert report["batch"] == 3
    assert "a sample, in batches of 3" in markdown(report)
    assert "batches" not in markdown({**report, "batch": 1})


def test_another_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "fastv", (lambda sample, n: torch.arange(n), *METHODS["fastv"][1:]))
    with pytest.raises(BiaskitError, match="fastv kept other tokens of 48 than its authors' algorithm does"):
        bench_selectors([48], dim=8, methods=["fastv"], repeats=1)


def test_rows_are_kept_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = keeper(tmp_path / "out", "selection")

    def stopped(line: str) -> None:
        if line.startswith("uniform"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench_selectors([48], dim=8, methods=["fastv", "uniform"], repeats=1, keep=keep, progress=stopped)
    assert [row["method"] for row in kept_rows(tmp_path / "out")] == ["fastv", "uniform"]
    write(tmp_path / "out", "selection", {}, "")
    assert kept_rows(tmp_path / "out") == []


def test_exponents() -> None:
    lines = [Line("m", n, 1, (n**1.5, 0, 0), (n**2.0, 0, 0) if n < 400 else None, None, None, None) for n in (100, 200, 400)]
    assert exponents(lines) == {"m": {"ours": pytest.approx(1.5), "authors": pytest.approx(2.0)}}
    assert exponents(lines[:1]) == {"m": {}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"methods": ["fastw"]}, "unknown selector 'fastw'"), ({"sizes": [1]}, r"sizes \[1\]"), ({"device": "cuda"}, "no device cuda")],
)
def test_refused(arguments: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection.torch.cuda, "is_available", lambda: False)
    with pytest.raises(BiaskitError, match=message):
        bench_selectors(**{"sizes": [48], "dim": 8, **arguments})


def test_the_command(tmp_path: Path) -> None:
    out = tmp_path / "results"
    arguments = ["--tokens", "48,96", "--pruner", "fastv,d2pruner", *SMALL, "--out", str(out)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in out.iterdir()) == ["selection.json", "selection.md", "selection.png"]
    assert (out / "selection.md").read_text(encoding="utf-8").endswith(f"`\n\n{done.stdout}")
    report = json.loads((out / "selection.json").read_text(encoding="utf-8"))
    assert report["dim"] == 32
    assert [line["method"] for line in report["lines"]] == ["fastv", "d2pruner"] * 2
    again = CliRunner().invoke(app, arguments)
    assert isinstance(again.exception, BiaskitError)
    assert "selection.json exists" in str(again.exception)
    assert CliRunner().invoke(app, ["--tokens", "a,b"]).exit_code == 2
