"""`biaskit view`, as a user runs it: with priors alone, and with the embedded model asked about a picture."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from biaskit.cli.app import app
from biaskit.engine.prune import prune
from biaskit.families.checkpoints.load import load_model
from biaskit.images import open_source
from biaskit.prior.value import PlaneStats, Prior
from biaskit.pruners import get_pruner


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, seed in (("neutral", 0), ("tasks", 1)):
        mean = np.random.default_rng(seed).gamma(4, 0.25, (2, 12, 12)).astype(np.float32)
        Prior({"image": PlaneStats(mean)}, (1, 4), np.full(2, 0.5, np.float32), {"model_type": "llava"}).save(
            tmp_path / f"{name}.safetensors"
        )
    open_source("scenes-photo", n=1, seed=0).load(0).save(tmp_path / "scene.png")
    return tmp_path


def run(*words):
    return CliRunner().invoke(app, ["view", *words])


def page(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL).group(1))


def test_priors_and_a_picture(place):
    done = run("neutral.safetensors", "mine=tasks.safetensors", "-i", "scene.png", "--layers", "4")
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == "view.html"
    found = page(place / "view.html")
    assert [one["name"] for one in found["priors"]] == ["neutral", "mine"]
    assert found["priors"][0]["layers"] == [4] and found["sample"] is None
    assert found["picture"]["full"] == list(Image.open("scene.png").size)
    again = run("neutral.safetensors")
    assert again.exit_code == 1 and "view.html" in str(again.exception)


def test_the_tokens_that_survive_are_those_of_prune(place):
    words = ["neutral.safetensors", "tasks=tasks.safetensors", "-m", "demo", "-i", "scene.png", "--prompt", "where is the red star ?"]
    done = run(*words, "-p", "fastv+tasks,fastv@k=3,divprune", "-r", "0.25,0.1", "-o", "a.html")
    assert done.exit_code == 0, done.output
    sample = page(place / "a.html")["sample"]
    assert sample["n"] == 144 and sample["retentions"] == [0.25, 0.1]
    kept = {one["label"]: one["kept"] for one in sample["choices"]}
    assert set(kept["fastv+tasks"]) == {f"{k}|{share}|{tau}" for k in (2, 5) for share in (0, 1) for tau in range(5)}
    assert set(kept["fastv@k=3"]) == {"|0|", "|1|"} == set(kept["divprune"])
    loaded = load_model("demo")
    prepared = loaded.family.prepare(
        loaded.processor, loaded.model.config, [[Image.open("scene.png").convert("RGB")]], ["where is the red star ?"]
    )
    prior = Prior.load(place / "tasks.safetensors")
    pruner = get_pruner("fastv", retention=0.1, layer=5, strength=0.5)
    with torch.inference_mode(), prune(loaded, pruner, prior=prior) as pruning:
        loaded.model.generate(**prepared.inputs, max_new_tokens=1, do_sample=False)
    bits = np.unpackbits(np.frombuffer(base64.b64decode(kept["fastv+tasks"]["5|1|2"]), np.uint8), bitorder="little")
    assert np.array_equal(np.flatnonzero(bits), pruning.samples[0].indices.numpy())


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nowhere"], 1, "nowhere"),
        (["neutral.safetensors", "-m", "demo"], 2, "give --image too"),
        (["neutral.safetensors", "neutral.safetensors"], 2, "two priors have one name"),
        (["neutral.safetensors", "-i", "nothing.png"], 1, "cannot read nothing.png"),
        (["neutral.safetensors", "--layers", "7"], 1, "no layer 7"),
    ],
)
def test_mistakes_are_explained(place, words, code, message):
    done = run(*words)
    assert done.exit_code == code
    assert message in str(done.exception) + " ".join(done.stderr.replace("│", " ").split())
    assert not (place / "view.html").exists()
