"""`biaskit tasks`: what the registry knows, for people and as JSON."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from biaskit.cli.tasks import app
from biaskit.tasks import tasks

BUILT_IN = ["pope", "refcoco", "refcoco+", "refcocog", "scenes-attribute", "scenes-presence", "scenes-where", "vqa"]


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_list() -> None:
    text, found = run("list"), {item["name"]: item for item in json.loads(run("list", "--json"))}
    assert set(BUILT_IN) <= set(found) == set(tasks.names())
    for name, item in found.items():
        assert f"\n{name}: " in f"\n{text}"
        assert all(item[key] and item[key].splitlines()[0] in text for key in ("summary", "metric", "arguments", "needs", "dataset"))
        assert item["title"]
    assert found["refcoco"]["metric"] == "iou50"
    assert "http" not in text and "/home" not in text
