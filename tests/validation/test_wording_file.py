"""A wording of the user's own: asked in validation and calibration, written down, and part of what identifies a run."""

from __future__ import annotations

import json

import pytest
from PIL import Image

import biaskit
from biaskit.errors import BiaskitError
from biaskit.families.checkpoints.load import load_model
from biaskit.tasks import open_task
from biaskit.validation.results.directory import read_results


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    path = tmp_path_factory.mktemp("wording") / "own.json"
    path.write_text(json.dumps({"yes_no": "Yes or no: {}"}), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def pope(tmp_path_factory):
    root = tmp_path_factory.mktemp("pope")
    Image.new("RGB", (64, 48), (200, 30, 30)).save(root / "a.png")
    rows = [{"image": "a.png", "text": f"Is there a thing {k}?", "label": ("yes", "no")[k % 2], "subset": "random"} for k in range(3)]
    (root / "pope.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return root


def test_a_run_asks_and_keeps_it_and_no_other_wording_joins_it(checkpoint, own, pope, tmp_path):
    model = str(checkpoint("llava-1.5"))
    asked = load_model(model, wording=own)
    biaskit.validate(asked, open_task("pope", pope), "fastv", 0.5, out=tmp_path, progress=False, batch_size=2)
    assert {record["prompt"] for record in read_results(tmp_path)} == {f"Yes or no: Is there a thing {k}?" for k in range(3)}
    kept = json.loads((tmp_path / "run.json").read_text())["wording"]
    assert kept == {**load_model(model).wording.templates(), "yes_no": "Yes or no: {}"}
    with pytest.raises(BiaskitError, match=r"wording yes_no was \"Yes or no: \{\}\", is"):
        biaskit.validate(load_model(model), open_task("pope", pope), "fastv", 0.5, out=tmp_path, progress=False, batch_size=2)


def test_a_prior_is_calibrated_with_it_and_says_so(checkpoint, own):
    prior = biaskit.calibrate(load_model(str(checkpoint("llava-1.5")), wording=own), "generated", samples=1, prompts="task:pope", workers=0)
    assert json.loads(prior.meta["wording"])["yes_no"] == "Yes or no: {}"
    assert "Yes or no: Is there a person in the image?" in json.loads(prior.meta["prompt"])


def test_the_commands_take_it(checkpoint, own, pope, tmp_path):
    from typer.testing import CliRunner

    from biaskit.cli.app import app

    words = ("--model", str(checkpoint("llava-1.5")), "--wording", str(own))
    done = CliRunner().invoke(
        app,
        ["validate", *words, "--task", "pope", "--data", str(pope), "--pruner", "none", "--questions", "1", "--out", str(tmp_path / "r")],
    )
    assert done.exit_code == 0, done.output
    assert next(iter(read_results(tmp_path / "r")))["prompt"].startswith("Yes or no: ")
    out = tmp_path / "p.safetensors"
    done = CliRunner().invoke(app, ["calibrate", *words, "-d", "generated", "-n", "1", "--prompt", "task:pope", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "Yes or no: {}" in biaskit.Prior.load(out).meta["wording"]
