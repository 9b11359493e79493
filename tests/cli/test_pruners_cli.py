"""`biaskit pruners`: what the registry knows, for people and as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from biaskit.cli.pruners import app
from biaskit.errors import BiaskitError
from biaskit.pruners import pruners

BUILT_IN = ["d2pruner", "dart", "divprune", "fastv", "idpruner", "random", "uniform"]


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_list() -> None:
    text = run("list")
    found = json.loads(run("list", "--json"))
    assert set(BUILT_IN) <= {item["name"] for item in found}
    for item in found:
        assert item["name"] in text
        assert item["arxiv"] in text
        assert item["title"]
        assert item["paper"]
        assert item["summary"]
        assert item["acts"]
        assert all(parameter["text"] for parameter in item["parameters"])


@pytest.mark.parametrize("name", BUILT_IN)
def test_show(name: str) -> None:
    text, item = run("show", name), json.loads(run("show", name, "--json"))
    cls = pruners.get(name)
    assert item["needs"] == sorted(map(str, cls.needs))
    for parameter in cls.parameters():
        shown = "k" if parameter.name == "layer" else parameter.name  # as it is written in a method: fastv@k=3
        assert f"  {shown} " in text
        assert parameter.text in text
    for line in (*cls.deviations, *cls.presets):
        assert line in text
    assert cls.paper in text


def test_show_d2pruner() -> None:
    text = run("show", "d2pruner")
    assert "(2026), arXiv 2512.19443" in text
    assert "preset localization: alpha=0.5, k=2" in text
    assert "prior required" in text
    assert "[score | layers | raise_theta | none]" in text


def test_show_unknown() -> None:
    with pytest.raises(BiaskitError, match="unknown pruner 'fastvv'") as caught:
        CliRunner().invoke(app, ["show", "fastvv"], catch_exceptions=False)
    assert caught.value.hint == "did you mean fastv or fastervlm?"


def test_help_is_light() -> None:
    code = "import sys, biaskit.cli.pruners; print([m for m in ('torch', 'transformers', 'rich.table') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_markdown_table_names_all() -> None:
    table = run("list", "--format", "markdown").strip()
    assert table in (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8"), "make pages"
    assert table.count("\n") == len(pruners.names()) + 1
    assert all(cls.families in table and f"`{name}`" in table for name, cls in pruners)
