"""`biaskit validate report` and `published` as users see them."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from runs import KEPT, make_run
from typer.testing import CliRunner

from biaskit.cli.app import app
from biaskit.errors import BiaskitError

FEW = {method: KEPT[method] for method in ("random", "fastv", "fastv+prior", "d2pruner+prior")}


def invoke(*words):
    return CliRunner().invoke(app, ["validate", *map(str, words)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "run"
    make_run(folder, n=90, kept=FEW, tasks=("refcoco:val", "scenes-presence"), model="llava-1.5", unpruned=0.6, retentions=(0.25, 0.1))
    found = invoke("report", folder, "--resamples", 300)
    assert found.exit_code == 0, found.output
    return folder, found


class Tags(HTMLParser):
    """Counts tags, checks that they close, and collects what the page would load."""

    def __init__(self):
        super().__init__()
        self.open, self.count, self.loads = [], {}, []

    def handle_starttag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1
        self.loads += [value for name, value in attrs if name in ("src", "href", "srcset", "data-src")]
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_what_is_written(folder):
    files = {path.relative_to(folder[0] / "report").as_posix() for path in (folder[0] / "report").rglob("*") if path.is_file()}
    assert {
        "index.html",
        "report.md",
        "report.json",
        "csv/scores.csv",
        "csv/comparisons.csv",
        "csv/breakdown.csv",
        "csv/papers.csv",
    } <= files
    assert {
        "figures/score-by-retention.png",
        "figures/score-by-retention.svg",
        "figures/ablation.png",
        "figures/refcoco-val-by-row.png",
    } <= files
    assert {"tex/average.tex", "tex/refcoco-val-scores.tex", "tex/refcoco-val-10pct-pairs.tex", "tex/does-it-help.tex"} <= files
    assert not [name for name in files if name.endswith(".tmp")]


def test_the_page_needs_nothing_and_is_whole(folder):
    text = (folder[0] / "report" / "index.html").read_text()
    page = Tags()
    page.feed(text)
    assert not page.open
    assert all(load.startswith(("#", "data:image/svg+xml;base64,")) for load in page.loads)
    assert not re.search(r"https?://|@import|url\(", re.sub(r"base64,[\w+/=]+", "", text))
    assert page.count["img"] >= 4 and page.count["table"] >= 10 and page.count["script"] == 1
    assert "prefers-color-scheme: dark" in text and "data-value=" in text
    ids = re.findall(r' id="([^"]+)"', text)
    assert {load[1:] for load in page.loads if load.startswith("#")} <= set(ids) and len(ids) == len(set(ids))


def test_the_gate_comes_first(folder):
    """Unpruned 60 % where the paper prints 69.29: in the terminal, on the page before anything else, and in markdown."""
    directory, found = folder
    assert "warning: Unpruned, this model scores" in found.stderr and "prints 69.29" in found.stderr
    page = (directory / "report" / "index.html").read_text()
    assert page.index('class="warning"') < page.index('class="answer"') < page.index("<table>")
    assert (directory / "report" / "report.md").read_text().index("**Warning.**") < 600


def test_the_terminal_says_the_answer(folder):
    text = folder[1].stdout
    assert "Average over tasks" in text and "In this run the prior helps FastV" in text
    assert "The gate against published scores is on for refcoco:val: llava-1.5 is one of the papers' checkpoints by its name." in text
    assert text.rstrip().endswith(str(folder[0] / "report" / "index.html"))


def test_csv_has_the_numbers_of_the_json(folder):
    report = json.loads((folder[0] / "report" / "report.json").read_text())
    for name in ("scores", "comparisons", "breakdown", "average", "conclusion", "papers"):
        with (folder[0] / "report" / "csv" / f"{name}.csv").open() as lines:
            rows = list(csv.DictReader(lines))
        assert len(rows) == len(report[name]) > 0
        for row, other in zip(rows, report[name], strict=True):
            assert row == {key: "" if value is None else str(value) for key, value in other.items()}
    assert report["verdicts"]["FastV with the prior against FastV without it"] == "helps"


def test_latex_is_escaped_and_as_wide_as_its_head(folder):
    for path in (folder[0] / "report" / "tex").iterdir():
        text = path.read_text()
        columns = len(re.search(r"\\begin\{tabular\}\{(l+r*)\}", text).group(1))
        body = text.split("\\toprule\n")[1].split("\\bottomrule")[0].replace("\\midrule\n", "")
        rows = [line for line in body.splitlines() if line]
        assert all(line.endswith(r"\\") and len(re.findall(r"(?<!\\)&", line)) == columns - 1 for line in rows), path
        assert not re.search(r"(?<!\\)[%_#]", body) and text.isascii(), path
    assert r"\textbf" in (folder[0] / "report" / "tex" / "refcoco-val-scores.tex").read_text()


def test_markdown_tables_are_rectangular_and_pictures_exist(folder):
    text = (folder[0] / "report" / "report.md").read_text()
    widths = []
    for line in text.splitlines():
        if line.startswith("|"):
            widths.append(line.count("|") - line.count("\\|"))
        elif widths:
            assert len(set(widths)) == 1
            widths = []
    for name in re.findall(r"\]\((figures/[^)]+)\)", text):
        assert (folder[0] / "report" / name).is_file()


def test_the_same_run_gives_the_same_bytes(folder, tmp_path):
    again = invoke("report", folder[0], "--resamples", 300, "--out", tmp_path / "again", "--format", "html,csv,tex,svg")
    assert again.exit_code == 0
    for path in (tmp_path / "again").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (folder[0] / "report" / path.relative_to(tmp_path / "again")).read_bytes(), path


def test_json_on_stdout_and_chosen_formats(folder, tmp_path):
    found = invoke(
        "report", folder[0], "--resamples", 100, "--out", tmp_path / "r", "--format", "csv", "--interval", "percentile", "--json"
    )
    report = json.loads(found.stdout)
    assert report["settings"]["kind"] == "percentile" and report["tasks"]["refcoco:val"] == {"n": 90, "metric": "iou50"}
    assert {Path(name).suffix for name in report["files"]} == {".csv"}


def test_mistakes_are_named(folder, tmp_path):
    for words, message in (
        ((folder[0],), "is not empty"),
        ((folder[0], "--out", tmp_path, "--format", "docx"), "no format 'docx'"),
        ((folder[0], "--out", tmp_path, "--interval", "wild"), "no interval 'wild'"),
        ((folder[0], "--out", tmp_path, "--published-as", "x/y"), "no published table has the model 'x/y'"),
        ((tmp_path, "--out", tmp_path / "x"), r"has no results\.jsonl"),
    ):
        error = invoke("report", *words).exception
        assert isinstance(error, BiaskitError)
        assert re.search(message, error.message)
    assert invoke("report", folder[0], "--resamples", 100, "--format", "md", "--force").exit_code == 0


def test_published_tables():
    found = invoke("published", "--model", "llava-1.5", "--task", "refcoco:testA", "--json")
    rows = json.loads(found.stdout)["rows"]
    assert len(rows) == 13 and rows[0]["values"]["RefCOCO testA"] == 77.07 and rows[0]["source"] == "D2Pruner, Table 3"
    text = invoke("published", "--model", "qwen2.5-vl").stdout
    assert "D2Pruner, Table 2, left" in text and "IDPruner, Table 1" in text
    error = invoke("published", "--model", "gpt-7").exception
    assert isinstance(error, BiaskitError) and "no published table has model gpt-7" in error.message and "llava-1.5-7b" in error.hint
