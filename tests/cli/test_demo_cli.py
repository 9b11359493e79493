"""`biaskit demo` on the embedded model, small."""

from __future__ import annotations

import json

from command import biaskit
from PIL import Image
from typer.testing import CliRunner

from biaskit.cli.app import app
from biaskit.demo.run import FILES, SHOWN
from biaskit.errors import FileError


def test_demo_runs_the_whole_chain(tmp_path):
    done = biaskit("demo", "--out", tmp_path / "out", "--samples", "20", "--questions", "20", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    scores = {(row["method"], row["layer"]): row["accuracy"] for row in found["rows"]}
    assert {layer for _, layer in scores} == {2, 5} and len(scores) == 16
    assert scores["no pruning", 2] == scores["no pruning", 5] > 0.7, "the embedded model must find most things"
    assert scores["FastV", 2] < scores["FastV", 5], "before layer 2 attention knows nothing of the question"
    assert all((tmp_path / "out" / name).is_file() for name in FILES)
    page = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    assert page.count('src="data:image/png;base64,') == 2 and "http" not in page
    assert page.count("<h2>K = ") == 2 and page.count("<li>") == 12 and page.count("<ul>") == 2
    assert all(name in page for name in (*SHOWN, "DivPrune, as published", "K = 2", "K = 5"))
    assert len(Image.open(tmp_path / "out/kept.png").convert("RGB").getcolors(1 << 24)) > 500
    assert "K = 5" in found["verdict"] and -1 <= found["correlation"]["2"] <= 1


def test_a_demo_overwrites_nothing_unasked(tmp_path):
    (tmp_path / "heatmap.png").write_text("precious")
    done = CliRunner().invoke(app, ["demo", "--out", str(tmp_path), "--samples", "20", "--questions", "20"])
    assert done.exit_code == 1 and isinstance(done.exception, FileError)
    assert f"{tmp_path / 'heatmap.png'} exists" in done.exception.message and "--force" in done.exception.hint
    assert [path.name for path in tmp_path.iterdir()] == ["heatmap.png"] and (tmp_path / "heatmap.png").read_text() == "precious"


def test_only_embedded_models_have_a_demo(tmp_path):
    done = biaskit("demo", "--model", "demo-qwne", "--out", tmp_path / "out")
    assert done.returncode == 1 and "demo-qwen" in done.stderr and not (tmp_path / "out").exists()
