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
from checkpoints import DWARFS
from with_torchvision import made

from biaskit.errors import ModelError
from biaskit.families import families
from biaskit.families.checkpoints import processors

NAMES = [name for name in DWARFS if name not in ("Qwen2.5-VL-3B-Instruct", "InternVL2_5-2B-MPO-hf", "llava-v1.6-vicuna-7b-hf")]
SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture(scope="module")
def told():
    """Words → what the program prints in a process with torchvision."""
    folder = os.environ.get("BIASKIT_TORCHVISION", "")
    if not folder and find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed, and BIASKIT_TORCHVISION names no folder that `pip install --target` put it into")

    @cache
    def run(*words):
        places = [folder, str(Path(__file__).parents[2]), str(SUPPORT), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}
        command = [sys.executable, str(SUPPORT / "with_torchvision.py"), *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run


def agree(directory, told, monkeypatch):
    monkeypatch.setattr(processors, "find_spec", lambda _: None)
    mine = json.loads(json.dumps(made(directory)))
    other = told(str(directory))[str(directory)]
    assert mine["class"].endswith("Pil") and not other["class"].endswith("Pil")
    for size, here in mine["sizes"].items():
        there = other["sizes"][size]
        assert {**here, "off": None} == {**there, "off": None}, size
        assert max(*here["off"].values(), *there["off"].values()) < 0.1, (size, here["off"], there["off"])


@pytest.mark.parametrize("name", NAMES)
def test_layouts_agree_with_and_without(dwarf, told, name, monkeypatch):
    agree(dwarf(name), told, monkeypatch)


def test_omni_whose_processor_hears_as_well(checkpoint, told, monkeypatch):
    """With torchvision the stock processor has its parts for video and audio."""
    agree(checkpoint("qwen2.5-omni"), told, monkeypatch)


def test_mistral3_whose_processor_needs_torchvision(told):
    """Contract (exactness at K = 0 … 3, patches and projector), lit spots, attention row, exactness from a slow reference."""
    assert set(told("--tiny", "mistral3").values()) == {True}


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="torchvision is installed")
def test_mistral3_without_torchvision_names_what_is_missing(tmp_path):
    processor = {"processor_class": "PixtralProcessor", "patch_size": 14, "spatial_merge_size": 2}
    pixels = {"image_processor_type": "PixtralImageProcessor", "size": {"longest_edge": 1540}, "patch_size": 14}
    for name, content in (("processor_config.json", processor), ("preprocessor_config.json", pixels)):
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ModelError, match="PixtralProcessor does not run without torchvision") as caught:
        processors.load_processor(families.get("mistral3"), str(tmp_path))
    assert "pip install" in caught.value.hint
