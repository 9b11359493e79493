"""The README's Python runs as it stands, with a tiny checkpoint in the place of the real one."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from PIL import Image

from biaskit.families.checkpoints.catalog import CHECKPOINTS
from biaskit.images.generated import GeneratedSource

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_python_snippet(checkpoint, tmp_path, monkeypatch, capsys):
    code, prune = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 8
    shutil.copytree(checkpoint("qwen2.5-vl"), tmp_path / "qwen2.5-vl")  # a directory of that name wins over the short name
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("biaskit.calibration.run.open_source", lambda name: GeneratedSource(4, 0))
    made = {}
    exec(code.replace("samples=1000", "samples=4"), made)
    assert made["a_bias"].shape == (32, 32)
    assert capsys.readouterr().out.startswith("1 image ")
    assert Image.open("qwen2.5-vl.png").width > 500
    unit = made["model"]
    picture = GeneratedSource(1, 0).load(0)
    made["inputs"] = unit.family.prepare(unit.processor, unit.model.config, [[picture]], ["Where?"]).inputs
    exec(prune, made)
    sample = made["pruning"].samples[0]
    assert len(sample) == round(sample.n_visual * 0.1)


def test_short_names_in_the_table():
    named = set(re.findall(r"`([\w.-]+)`", "\n".join(line for line in README.splitlines() if line.startswith("|"))))
    assert named == set(CHECKPOINTS)
