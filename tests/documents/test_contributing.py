"""CONTRIBUTING.md names what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import biaskit

ROOT = Path(__file__).parents[2]
PACKAGE = Path(biaskit.__file__).parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
WORDS = re.findall(r"`([^`\n]+)`", TEXT)
TABLES = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("|")]


@pytest.mark.parametrize("path", sorted({word for word in WORDS if re.fullmatch(r"[a-z_0-9]+(/[a-z_0-9]+)*(/|\.py)", word)}))
def test_paths_exist(path):
    inside = [
        folder
        for folder in ("", "families", "prior", "select", "demo", "validation", "images", "figures")
        if (PACKAGE / folder / path).exists()
    ]
    assert inside or (ROOT / path).exists()


@pytest.mark.parametrize("row", [row for row in TABLES if len(row) == 2 and ".py`, `" in row[1]], ids=lambda row: row[0][:40])
def test_a_name_stands_in_its_file(row):
    path, name = re.search(r"`([\w/]+\.py)`, `(\w+)`", row[1]).groups()
    assert re.search(rf"^(def|class) {name}\b", (PACKAGE / path).read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_every_folder_is_on_the_map():
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert folders <= {row[1].strip("`/") for row in TABLES if len(row) == 3}


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)]+)\)", TEXT))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()
