"""A training killed while it writes its state goes on to the same weights; both stages write theirs by the same function."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

# One process imports torch and forks a training for each kill.
TRAININGS = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from biaskit.demo.training.architectures import find
from biaskit.demo.training.pictures import draw_pictures
from biaskit.demo.training.recipe import Recipe
from biaskit.demo.training.train import _same_recipe
from biaskit.demo.training.vision_stage import train_vision

replace, fsync = Path.replace, os.fsync

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def train(out, name="", moment=""):
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    if moment == "rename":
        Path.replace = lambda self, target: die() if Path(target).name == name else replace(self, target)
    elif moment == "write":
        os.fsync = lambda handle: die() if f".{name}." in os.readlink(f"/proc/self/fd/{handle}") else fsync(handle)
    torch.manual_seed(0)
    work, quiet = Path(out), lambda line: None
    _same_recipe(work / "recipe.json", Recipe(scenes=8, vision_steps=2))
    architecture = find("llava")
    tower = architecture.tower(architecture.make_model(layers=1))
    train_vision(architecture, tower, draw_pictures(work, 8, 1, quiet), work, 2, 0, "cpu", quiet)
    os._exit(0)

print(train(sys.argv[1]))
for words in sys.argv[3:]:
    print(train(sys.argv[2], *words.split()))
print(train(sys.argv[2]))
"""
MOMENTS = ["recipe.json write", "recipe.json rename", "pictures.json write", "pictures.json rename", "vision.pt write", "vision.pt rename"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="tells files by /proc")
def test_killed_while_it_writes_its_state(tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "killed"
    words = [sys.executable, "-c", TRAININGS, str(whole), str(out), *MOMENTS]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["0", *[str(int(signal.SIGKILL))] * len(MOMENTS), "0"], done.stderr[-2000:]
    assert not list(out.glob(".*"))
    assert (out / "recipe.json").read_bytes() == (whole / "recipe.json").read_bytes()
    mine, theirs = (torch.load(folder / "vision.pt", weights_only=True)["tower"] for folder in (out, whole))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
