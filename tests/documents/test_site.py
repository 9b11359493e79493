"""The documentation site: everything public is in it, and it builds without a warning where mkdocs is installed."""

from __future__ import annotations

import html
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import biaskit
from biaskit.prior.bias.measures import MEASURES

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "docs/site/build.py"


@pytest.fixture(scope="module")
def builder():
    spec = importlib.util.spec_from_file_location("site_build", BUILD)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_public_name_is_in_the_reference(builder):
    text = builder.api()
    for name in (*biaskit._PUBLIC, *biaskit._MODULES):
        assert f"## `biaskit.{name}`\n" in text
    assert "### `biaskit.select.relative_attention`\n" in text


def test_every_measure_is_explained():
    page = (ROOT / "docs/concepts.md").read_text(encoding="utf-8")
    assert all(f"\n| `{name}` | " in page for name in MEASURES)


def test_every_page_of_the_site_is_there_and_found_from_its_menu(builder, tmp_path):
    builder.stage(tmp_path)
    named = re.findall(r": (\S+\.md)$", (ROOT / "docs/site/mkdocs.yml").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert all((tmp_path / name).is_file() for name in named)
    guides = {f"docs/guides/{path.name}" for path in (ROOT / "docs/guides").glob("*.md")}
    assert guides | {"README.md", "docs/faq.md", "docs/concepts.md", "docs/commands.md", "docs/api.md", "docs/log.md"} <= {*named}


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason='mkdocs is not installed: pip install "biaskit[docs]"')
def test_the_site_builds_strictly_and_holds_every_command_option_and_name(tmp_path):
    done = subprocess.run([sys.executable, str(BUILD), str(tmp_path)], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    commands = html.unescape((tmp_path / "docs/commands/index.html").read_text(encoding="utf-8"))
    for word in re.findall(r"^\* `([^`]+)`", (ROOT / "docs/commands.md").read_text(encoding="utf-8"), flags=re.MULTILINE):
        assert word.split(", ")[-1].split()[0] in commands
    reference = html.unescape((tmp_path / "docs/api/index.html").read_text(encoding="utf-8"))
    assert all(f"biaskit.{name}" in reference for name in (*biaskit._PUBLIC, *biaskit._MODULES))
