"""Run a notebook as a kernel does, and keep what its cells show: `python tests/support/notebooks.py FILES` writes the outputs."""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import sys
from pathlib import Path


def run(notebook: dict, name: str) -> dict:
    """Return the notebook with the outputs that its cells have when it is run from top to bottom."""
    space, cells, count = {"__name__": "__main__"}, [], 0
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            count += 1
            outputs = _run_cell("".join(cell["source"]), f"{name}, cell {number}", space, count)
            cell = {**cell, "execution_count": count, "outputs": outputs}
        cells.append(cell)
    return {**notebook, "cells": cells}


def shown(notebook: dict) -> list[list[str]]:
    """Return of each code cell what kinds of output it has: `text`, `image/png`, `text/html`, `text/plain`."""
    return [
        [kind for output in cell["outputs"] for kind in (["text"] if output["output_type"] == "stream" else sorted(output["data"]))]
        for cell in notebook["cells"] if cell["cell_type"] == "code"
    ]  # fmt: skip


def _run_cell(source: str, place: str, space: dict, count: int) -> list[dict]:
    """Run a cell; of its last line's value the richest forms are kept, as IPython keeps them."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    value, told = None, io.StringIO()
    with contextlib.redirect_stdout(told):
        exec(compile(tree, place, "exec"), space)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), place, "eval"), space)
    outputs = []
    if told.getvalue():
        outputs.append({"name": "stdout", "output_type": "stream", "text": told.getvalue().splitlines(keepends=True)})
    if value is not None:
        data = {"text/plain": repr(value).splitlines(keepends=True)}
        if hasattr(value, "_repr_html_") and (html := value._repr_html_()):
            data["text/html"] = html.splitlines(keepends=True)
        if hasattr(value, "_repr_png_") and (png := value._repr_png_()):
            data["image/png"] = base64.b64encode(png).decode() + "\n"
        outputs.append({"data": data, "execution_count": count, "metadata": {}, "output_type": "execute_result"})
    return outputs


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        made = run(json.loads(path.read_text(encoding="utf-8")), path.name)
        path.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(path, shown(made))
