"""Resolution, tiles, padding and conversation on the command line."""

from __future__ import annotations

import json

from command import biaskit
from PIL import Image


def inspected(model, *words):
    done = biaskit("models", "inspect", str(model), *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_inspect_shows_what_the_options_change(checkpoint):
    assert inspected(checkpoint("qwen2.5-vl"), "--max-pixels", "23520")["visual_tokens"] <= 30
    assert inspected(checkpoint("internvl-llama"), "--max-tiles", "6")["visual_tokens"] == 7 * 64
    (plane,) = inspected(checkpoint("llava-1.5"), "--image-mode", "pad")["planes"]
    assert plane["box"][0] == 0 and plane["box"][1] < 0 and plane["box"][3] > 1


def test_an_option_that_the_family_does_not_have(checkpoint):
    done = biaskit("models", "inspect", str(checkpoint("qwen2.5-vl")), "--max-tiles", "6")
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["error: Qwen2.5-VL has no --max-tiles", "hint: it has --min-pixels, --max-pixels"]


def test_every_command_that_runs_a_model_takes_them(checkpoint, tmp_path):
    """They refuse before any picture is touched."""
    model = ("--model", str(checkpoint("llava-1.5")), "--max-tiles", "6")
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    commands = [
        ("calibrate", *model, "--data", str(tmp_path), "--out", str(tmp_path / "p.safetensors")),
        ("prune", *model, "--image", str(tmp_path / "a.png")),
        ("validate", *model, "--task", "scenes", "--pruner", "random", "--out", str(tmp_path / "r")),
        ("study", "enough", *model, "--data", "generated", "--out", str(tmp_path / "e")),
        ("study", "content-free", *model, "--data", "scenes", "--samples", "8", "--out", str(tmp_path / "c")),
        ("models", "check", *model[1:]),
    ]
    for words in commands:
        done = biaskit(*words)
        assert done.returncode == 1 and "error: LLaVA-1.5 has no --max-tiles" in done.stderr, (words[0], done.stderr)
