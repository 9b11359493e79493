"""With torchvision the stock processors are other classes: prompts and layouts must be those of PIL's, and be where the pixels are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import DWARFS
from with_torchvision import made

from biaskit.families.checkpoints import processors

NAMES = [name for name in DWARFS if name not in ("Qwen2.5-VL-3B-Instruct", "InternVL2_5-2B-MPO-hf", "llava-v1.6-vicuna-7b-hf")]
SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture(scope="module")
def theirs(dwarf):
    """Directory → what it is in a process with torchvision."""
    folder = os.environ.get("BIASKIT_TORCHVISION", "")
    if not folder and find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed, and BIASKIT_TORCHVISION names no folder that `pip install --target` put it into")

    @cache
    def run(directory):
        places = [folder, str(Path(__file__).parents[2]), str(SUPPORT), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}
        command = [sys.executable, str(SUPPORT / "with_torchvision.py"), directory]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])[directory]

    return run


@pytest.mark.parametrize("name", NAMES)
def test_layouts_agree_with_and_without(dwarf, theirs, name, monkeypatch):
    monkeypatch.setattr(processors, "find_spec", lambda _: None)
    mine = json.loads(json.dumps(made(dwarf(name))))
    other = theirs(str(dwarf(name)))
    assert mine["class"].endswith("Pil") and not other["class"].endswith("Pil")
    for size, here in mine["sizes"].items():
        there = other["sizes"][size]
        assert {**here, "off": None} == {**there, "off": None}, size
        assert max(*here["off"].values(), *there["off"].values()) < 0.1, (size, here["off"], there["off"])
