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


def test_a_prior_of_a_task_in_other_words_says_so_once(checkpoint, own, pope, tmp_path):
    model = str(checkpoint("llava-1.5"))
    theirs = {"samples": 1, "workers": 0}
    prior = biaskit.calibrate(load_model(model), "generated", prompts="task:pope", **theirs)
    neutral = biaskit.calibrate(load_model(model), "generated", **theirs)

    def said(name, loaded, prior):
        lines = []
        options = {"out": tmp_path / name, "progress": False, "limit": 1, "say": lines.append}
        biaskit.validate(loaded, open_task("pope", pope), ["fastv+prior", "random"], 0.5, prior=prior, **options)
        kept = json.loads((tmp_path / name / "run.json").read_text())["priors"]
        return [line for line in lines if "asked as" in line], [one.get("other_wording") for one in kept.values()]

    lines, kept = said("other", load_model(model, wording=own), prior)
    assert len(lines) == 1 and "task:pope" in lines[0] and "'Yes or no: Is there a person in the image?'" in lines[0]
    assert kept[0] and lines[0].endswith(kept[0])
    assert said("same", load_model(model), prior) == said("neutral", load_model(model, wording=own), neutral) == ([], [None])


def test_a_calibration_in_other_words_is_not_resumed(checkpoint, own, tmp_path):
    """A state of one wording is nothing to go on from in another, whatever the prompt is."""
    from biaskit.errors import CalibrationError

    class Stop(Exception):
        pass

    def stop(progress):
        if progress.done:
            raise Stop

    model, out = str(checkpoint("llava-1.5")), tmp_path / "p.safetensors"
    settings = {"samples": 3, "workers": 0, "batch_size": 1, "save_every": 0.0, "out": out}
    with pytest.raises(Stop):
        biaskit.calibrate(load_model(model), "generated", report=stop, **settings)
    assert (tmp_path / "p.safetensors.partial").exists()
    with pytest.raises(CalibrationError, match="wording"):
        biaskit.calibrate(load_model(model, wording=own), "generated", **settings)
    assert biaskit.calibrate(load_model(model), "generated", **settings).n_images == 3


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
