"""A checkpoint through every command, as a person would type them: `python tests/support/every_command.py CHECKPOINT …`.

`--torchvision` as the first word: with torchvision's processors, which must be importable, if need be as `with_torchvision.py` says.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

THINGS = ("dog", "red car", "cup")
QUESTIONS = len(THINGS)


def questions(folder):
    """Two pictures of different shapes, and three questions each of POPE and RefCOCO about them; batches of two are ragged."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    for name, size in (("a.png", (320, 240)), ("b.png", (240, 400))):
        Image.fromarray(pixels).resize(size).save(folder / name)
    rows = {
        "pope.jsonl": [{"text": f"Is there a {word} in the image?", "label": ("yes", "no")[k % 2]} for k, word in enumerate(THINGS)],
        "refcoco_val.jsonl": [{"sent": text, "bbox": [10, 20, 100, 90]} for text in ("dog", "the man in the red shirt", "left")],
    }  # fmt: skip
    for name, many in rows.items():
        lines = [json.dumps({"image": f"{'ab'[k % 2]}.png", **row}) for k, row in enumerate(many)]
        (folder / name).write_text("\n".join(lines), encoding="utf-8")
    return folder


def run(*words):
    """Run one command in this process; return what it prints."""
    from typer.testing import CliRunner

    from biaskit.cli.app import app

    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, (words, done.output[-2000:], repr(done.exception), getattr(done.exception, "hint", ""))
    return done.stdout


def few_words(most=8):
    """Random weights never end an answer by themselves: let validation's answers end after a few tokens."""
    from biaskit.tasks.grounding import Grounding
    from biaskit.tasks.pope import POPE

    Grounding.max_new_tokens = POPE.max_new_tokens = most


def through(checkpoint, out, *options):
    """Run every command on a checkpoint, and look at what each one leaves; return seconds by command.

    Args:
        checkpoint: its directory. out: an empty folder. options: of the processor, for all commands.
    """
    data, prior, took = questions(out / "data"), out / "prior.safetensors", {}

    def timed(*words):
        began = time.monotonic()
        said = run(*words)
        took[" ".join(word for word in map(str, words[: 1 + (words[0] in ("models", "priors"))]))] = round(time.monotonic() - began, 1)
        return said

    told = json.loads(timed("models", "check", checkpoint, *options, "--json"))
    assert told["passed"], told
    model = ("--model", checkpoint, *options)
    methods = "fastv+prior,random"
    timed("calibrate", *model, "-d", data, "-n", 2, "--layers", "all", "--prompt", "task:refcoco", "--batch-size", 2, "--out", prior)
    shown = json.loads(timed("priors", "show", prior, "--json"))
    assert len(shown["layers"]) == json.loads(run("models", "inspect", checkpoint, "--json"))["decoder_layers"]
    timed("heatmap", prior, "--out", out / "heatmap.png")
    picture = ("--image", data / "a.png", "--prompt", "Where is the dog?", "--max-new-tokens", 6)
    kept = json.loads(
        timed("prune", *model, *picture, "--pruner", "d2pruner+prior", "--compare", methods, "--prior", prior, "--retention", 0.25,
              "--overlay", out / "overlay.png", "--json")
    )  # fmt: skip
    assert [row["name"] for row in kept["runs"]][:1] == ["none"] and len(kept["runs"]) == 4
    assert Image.open(out / "overlay.png").size[0] > 100 and Image.open(out / "heatmap.png").size[0] > 100
    cells = ("--pruner", f"none,{methods}", "--prior", prior, "--retention", 0.25, "--batch-size", 2)
    tasks = ("--task", "pope,refcoco:val", "--data", data)
    found = json.loads(timed("validate", *model, *tasks, *cells, "--out", out / "results", "--json"))
    assert found["asked"] == 2 * QUESTIONS * 3 and len(found["cells"]) == 2 * 3
    lines = (out / "results" / "results.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2 * QUESTIONS * 3
    began = time.monotonic()
    run("validate", "report", out / "results")
    took["validate report"] = round(time.monotonic() - began, 1)
    return took


if __name__ == "__main__":
    import transformers

    which = sys.argv[1:]
    if with_torchvision := which[:1] == ["--torchvision"]:
        from with_torchvision import importable

        held, which = importable(), which[1:]
    few_words()
    for one in which:
        with tempfile.TemporaryDirectory() as folder:
            took = through(Path(one), Path(folder))
        print(Path(one).name, "transformers", transformers.__version__, "torchvision" if with_torchvision else "PIL", took, flush=True)
