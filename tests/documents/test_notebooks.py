"""Every notebook runs from top to bottom."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path, tmp_path, monkeypatch):
    from biaskit.pruners import pruners

    monkeypatch.chdir(tmp_path)
    known = pruners.names()
    space = {"__name__": "__main__"}
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert all(not cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"), "outputs stay out of the repository"
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), space)
    for name in set(pruners.names()) - set(known):  # what a notebook registers must not reach other tests
        del pruners._items[name], pruners._classes[name]
