"""A pruner of somebody else's: a real package, built by hatchling and installed by pip, found by its entry point and used by name."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import textwrap

import pytest
from command import biaskit

from biaskit.families.checkpoints.tiny import save_tiny
from biaskit.images.generated import GeneratedSource

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "their-pruners"
version = "1.2.3"

[project.entry-points."biaskit.pruners"]
edges = "their_pruners.edges"
"""

MODULE = '''
from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from biaskit.pruners import Pruner, param, pruners
from biaskit.signals import ATTENTION, Keep, Reading, Signals


@pruners.register("edges")
@dataclass(frozen=True)
class Edges(Pruner):
    """The first and the last tokens of the prompt."""

    name: ClassVar[str] = "edges"
    title: ClassVar[str] = "Their Edges"
    paper: ClassVar[str] = "none"
    needs: ClassVar[frozenset[Reading]] = frozenset({ATTENTION})

    head: int = param(5, "how many of the kept tokens are the first ones")

    def choose(self, signals: Signals, budget: int) -> Keep:
        head = min(self.head, budget)
        tail = torch.arange(len(signals) - (budget - head), len(signals))
        return Keep(torch.cat([tail, torch.arange(head)]), {"recorded": len(signals[ATTENTION])})
'''


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that the package is installed into, to be put on PYTHONPATH."""
    missing = [name for name in ("pip", "hatchling") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} cannot be imported: a package cannot be built and installed here without the network")
    root = tmp_path_factory.mktemp("plugin")
    package = root / "project" / "their_pruners"
    package.mkdir(parents=True)
    (root / "project" / "pyproject.toml").write_text(PYPROJECT)
    (package / "__init__.py").write_text("")
    (package / "edges.py").write_text(textwrap.dedent(MODULE))
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *offline, "--target", str(root / "target"), str(root / "project")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    # the wheel's metadata, not the source next to it, is what the registry reads
    (points,) = (root / "target").glob("their_pruners-1.2.3.dist-info/entry_points.txt")
    assert "[biaskit.pruners]" in points.read_text()
    return root / "target"


@pytest.fixture
def with_plugin(installed, monkeypatch):
    """`biaskit` as it runs where the package is installed."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(installed), os.environ.get("PYTHONPATH")])))
    return biaskit


def test_it_is_listed(with_plugin, tmp_path):
    done = with_plugin("pruners", "list", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = {item["name"]: item for item in json.loads(done.stdout)}
    assert found["edges"]["title"] == "Their Edges"
    assert found["edges"]["module"] == "their_pruners.edges"
    assert {"d2pruner", "fastv"} <= set(found), "built-in ones stay"
    assert "Their Edges" in with_plugin("pruners", "list", cwd=tmp_path).stdout


def test_its_parameter_is_shown(with_plugin, tmp_path):
    done = with_plugin("pruners", "show", "edges", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.split()[:1] == ["head"]]
    assert "= 5: how many of the kept tokens are the first ones" in line and "[int]" in line
    assert "plug-in: their_pruners.edges" in done.stdout
    shown = json.loads(with_plugin("pruners", "show", "edges", "--json", cwd=tmp_path).stdout)
    assert shown["parameters"][-1]["name"] == "head" and shown["needs"] == ["attention"]


def test_without_the_package_it_is_unknown(tmp_path):
    """Else the tests above would say nothing about the entry point."""
    done = biaskit("pruners", "show", "edges", cwd=tmp_path)
    assert done.returncode == 1 and "unknown pruner 'edges'" in done.stderr


def test_it_prunes(with_plugin, tmp_path):
    save_tiny("llava-1.5", tmp_path / "tiny")
    GeneratedSource(1, 0).load(0).save(tmp_path / "picture.png")
    words = ["prune", "--model", "./tiny", "--image", "picture.png", "--max-new-tokens", "2", "--budget", "9", "--pruner", "edges"]
    done = with_plugin(*words, "--set", "head=4", "--compare", "edges", "--overlay", "kept.png", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    none, set_by_hand, default = json.loads(done.stdout)["runs"]
    assert none["method"] == "none" and none["n"] == 576
    assert set_by_hand["method"] == default["method"] == "Their Edges"
    assert set_by_hand["kept"] == [0, 1, 2, 3, 571, 572, 573, 574, 575]
    assert default["kept"] == [0, 1, 2, 3, 4, 572, 573, 574, 575]
    assert set_by_hand["info"] == {"recorded": 576}
    assert set_by_hand["mean_tokens"] == pytest.approx((2 * 576 + 4 * 9) / 6)
    assert (tmp_path / "kept.png").stat().st_size > 1000


def test_wrong_values_for_it_name_what_is_wrong(with_plugin, tmp_path):
    save_tiny("llava-1.5", tmp_path / "tiny")
    GeneratedSource(1, 0).load(0).save(tmp_path / "picture.png")
    words = ["prune", "--model", "./tiny", "--image", "picture.png", "--pruner"]
    typo = with_plugin(*words, "edges", "--set", "haed=4", cwd=tmp_path)
    assert typo.returncode == 1 and "edges has no parameter 'haed'" in typo.stderr and "head" in typo.stderr.replace("'haed'", "")
    name = with_plugin(*words, "egdes", cwd=tmp_path)
    assert name.returncode == 1 and "did you mean edges" in name.stderr
