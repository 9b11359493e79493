"""`biaskit calibrate` and `biaskit models`, as a user runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from command import biaskit
from PIL import Image
from typer.testing import CliRunner

from biaskit.cli.app import app
from biaskit.errors import CalibrationError
from biaskit.images.generated import GeneratedSource
from biaskit.prior.value import Prior


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    from biaskit.families.checkpoints.tiny import save_tiny

    return save_tiny("llava-1.5", tmp_path_factory.mktemp("checkpoint") / "tiny-llava")


def test_from_images_to_prior_figure_and_metrics(tmp_path, checkpoint):
    images = tmp_path / "images"
    images.mkdir()
    source = GeneratedSource(8, 0)
    for i in range(8):
        source.load(i).save(images / f"{i}.png")
    Image.open(images / "0.png").convert("CMYK").save(images / "cmyk.jpg")
    Image.open(images / "0.png").convert("P").save(images / "palette.png")
    Image.open(images / "0.png").convert("L").save(images / "grey.png")
    Image.new("RGB", (1, 1)).save(images / "pixel.png")
    (images / "truncated.jpg").write_bytes((images / "cmyk.jpg").read_bytes()[:900])
    bomb = Image.new("1", (30000, 30000))
    bomb.save(images / "bomb.png")

    done = biaskit("calibrate", "--model", checkpoint, "--data", images, "--layers", "0-1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "tiny-llava.safetensors: 11 images, 3 skipped" in done.stdout
    for reason in ("pixel.png", "truncated.jpg", "bomb.png"):
        assert f"skipped {reason}" in done.stderr
    prior = Prior.load(tmp_path / "priors/tiny-llava.safetensors")
    assert prior.layers == (0, 1) and prior.n_images == 11
    assert {name for name, _ in json.loads(prior.meta["skipped"])} == {"pixel.png", "truncated.jpg", "bomb.png"}

    shown = biaskit("priors", "show", "tiny-llava", "--json", cwd=tmp_path)
    assert json.loads(shown.stdout)["bias"]["layers"][0]["metrics"]["bottom_third"]["value"] > 0
    drawn = biaskit("heatmap", "tiny-llava", "--out", "figure.png", cwd=tmp_path)
    assert drawn.returncode == 0, drawn.stderr
    assert Image.open(tmp_path / "figure.png").width > 500


@pytest.mark.parametrize(
    ("model", "region", "yes_no"),
    [
        (
            "qwen2.5-vl",
            "Locate {} in this image and output the bbox coordinates in JSON format.",
            "{}\nAnswer the question using a single word or phrase.",
        ),
        (
            "internvl-qwen2",
            "Please provide the bounding box coordinate of the region this sentence describes: <ref>{}</ref>",
            "{}\nAnswer the question using a single word or phrase. ",
        ),
    ],
)
def test_the_prompts_of_a_task_are_worded_as_validation_words_them(tmp_path, model, region, yes_no):
    from biaskit.families.checkpoints.tiny import save_tiny

    words = [
        "--data",
        "generated",
        "-n",
        "2",
        "--layers",
        "1",
        "--prompt",
        "task:refcoco",
        "--prompt",
        "task:pope",
        "--out",
        "prior.safetensors",
    ]
    done = biaskit("calibrate", "--model", save_tiny(model, tmp_path / "tiny"), *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    prompts = json.loads(Prior.load(tmp_path / "prior.safetensors").meta["prompt"])
    assert region.format("the person on the left") in prompts
    assert yes_no.format("Is there a person in the image?") in prompts


def test_killed_and_started_again(tmp_path, checkpoint):
    words = [
        "calibrate",
        "--model",
        checkpoint,
        "--data",
        "generated",
        "-n",
        "24",
        "--batch-size",
        "2",
        "--workers",
        "1",
        "--save-every",
        "0",
    ]
    whole = biaskit(*words, "--out", "whole.safetensors", "--json", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    assert json.loads(whole.stdout)["n_images"] == 24
    state = tmp_path / "killed.safetensors.partial"
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    command = [sys.executable, "-m", "biaskit", *map(str, words), "--out", "killed.safetensors"]
    victim = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not state.exists() and victim.poll() is None:
        time.sleep(0.01)
    time.sleep(0.2)
    workers = psutil.Process(victim.pid).children(recursive=True)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert workers and not psutil.wait_procs(workers, timeout=20)[1], "no worker may outlive the command"
    assert state.exists() and not (tmp_path / "killed.safetensors").exists()
    again = biaskit(*words, "--out", "killed.safetensors", cwd=tmp_path)
    assert "resuming from killed.safetensors.partial" in again.stderr
    assert (tmp_path / "killed.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert not state.exists()


def test_ctrl_c_says_how_to_go_on(tmp_path, checkpoint):
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    command = [sys.executable, "-m", "biaskit", "calibrate", "--model", str(checkpoint), "--data", "generated", "-n", "500"]
    run = subprocess.Popen(
        [*command, "--save-every", "0"],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    while not (tmp_path / "priors/tiny-llava.safetensors.partial").exists() and run.poll() is None:
        time.sleep(0.01)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "the same command resumes from priors/tiny-llava.safetensors.partial" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--model", "qwen25-vl"], 1, "error: unknown model 'qwen25-vl'\nhint: did you mean qwen2.5-vl"),
        (["--model", "OpenGVLab/InternVL2_5-8B", "--data", "generated"], 1, "hint: use its HF-format twin OpenGVLab/InternVL2_5-8B-MPO-hf"),
        (["--model", "CHECKPOINT", "--data", "nowhere"], 1, "error: "),
        (["--model", "CHECKPOINT", "--data", "generated", "--layers", "1,x"], 2, "'1,x': write numbers and ranges"),
        (["--model", "CHECKPOINT", "--data", "generated", "--layers", "99", "-n", "2"], 1, "the model has layers 0 … 5"),
        (["--model", "CHECKPOINT", "--data", "generated", "--samples", "0"], 2, "Invalid value for '--samples'"),
        (["--model", "CHECKPOINT", "--coco-root", "nowhere"], 1, "error: "),
        (["--model", "CHECKPOINT", "--data", "generated", "--coco-root", "nowhere"], 1, "error: "),
        (["--model", "CHECKPOINT", "--data", "generated", "--out", "."], 1, "error: . is a folder"),
        (["--model", "CHECKPOINT", "--data", "generated", "--out", "/dev/null/prior.safetensors"], 1, "cannot be written"),
        (["--model", "CHECKPOINT", "--data", "generated", "--seed", "-1"], 2, "Invalid value for '--seed'"),
        ([], 2, "Missing option '--model'"),
    ],
)
def test_wrong_input(tmp_path, checkpoint, words, code, message):
    done = biaskit("calibrate", *(str(checkpoint) if word == "CHECKPOINT" else word for word in words), cwd=tmp_path)
    assert done.returncode == code
    assert message in done.stderr.replace("│", " ").replace("  ", " ") or message in done.stderr
    assert "Traceback" not in done.stderr
    assert code == 2 or "hint: " in done.stderr


def test_existing_prior_is_kept(tmp_path, checkpoint):
    there = tmp_path / "priors/tiny-llava.safetensors"
    there.parent.mkdir()
    there.write_text("precious")
    done = biaskit("calibrate", "--model", checkpoint, "--data", "generated", "-n", "2", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: priors/tiny-llava.safetensors exists, and is not a prior")
    assert done.stderr.endswith("\nhint: choose another --out, or overwrite it with --force\n")
    assert there.read_text() == "precious"


def test_what_calibrate_writes_is_found_by_name_and_not_made_twice(tmp_path, checkpoint, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*words):
        return CliRunner().invoke(app, list(map(str, words)))

    words = ("calibrate", "--model", checkpoint, "--data", "generated", "-n", "2", "--layers", "1", "--workers", "0")
    first = run(*words)
    assert first.exit_code == 0 and first.stdout.startswith("priors/tiny-llava.safetensors: 2 images")
    made = Path("priors/tiny-llava.safetensors").read_bytes()
    again = run(*words)
    assert again.exit_code == 0 and again.stdout == first.stdout
    assert "priors/tiny-llava.safetensors is finished" in again.stderr and "going on" not in again.stderr
    other = run(*words, "--seed", "1")
    assert isinstance(other.exception, CalibrationError) and 'seed was "0", is "1"' in other.exception.message
    assert Path("priors/tiny-llava.safetensors").read_bytes() == made
    assert "tiny-llava" in run("priors", "list").stdout
    assert run("priors", "verify", "tiny-llava").exit_code == 0


def test_offline_without_coco_says_how_to_point_at_a_copy(tmp_path, checkpoint):
    done = biaskit("calibrate", "--model", checkpoint, cwd=tmp_path, BIASKIT_CACHE=str(tmp_path), http_proxy="http://127.0.0.1:9")
    assert done.returncode == 1
    assert "--coco-root" in done.stderr and "$BIASKIT_COCO" in done.stderr


def test_models_list_and_inspect(tmp_path, checkpoint):
    listed = biaskit("models", "list")
    assert "llava-hf/llava-1.5-7b-hf" in listed.stdout and "MPO checkpoint" in listed.stdout
    assert json.loads(biaskit("models", "list", "--json").stdout)["model_types"]["qwen3_vl"] == "Qwen3-VL"
    shown = biaskit("models", "inspect", checkpoint, "--image-size", "640x480")
    assert "image: 24 × 24 (rows × cols), covers x 0.125–0.875, y 0.000–1.000" in shown.stdout
    facts = json.loads(biaskit("models", "inspect", checkpoint, "--json").stdout)
    assert facts["visual_tokens"] == 576 and facts["preset_layers"] == [1, 4]
    wrong = biaskit("models", "inspect", checkpoint, "--image-size", "huge")
    assert wrong.returncode == 2 and "WIDTHxHEIGHT" in wrong.stderr
    from biaskit.families.checkpoints.tiny import save_tiny

    thin = biaskit("models", "inspect", save_tiny("qwen2.5-vl", tmp_path / "qwen"), "--image-size", "9000x10")
    assert thin.returncode == 1 and thin.stderr.startswith("error: the processor refuses 9000×10 pixels")


def test_real_coco_images(tmp_path, checkpoint, coco_sample):
    done = biaskit("calibrate", "--model", checkpoint, "--coco-root", coco_sample, "--samples", "10", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n_images"] == 10
    assert Prior.load(tmp_path / "priors/tiny-llava.safetensors").meta["source"] == "coco"


def test_help_is_fast():
    biaskit("--help")
    started = time.monotonic()
    assert biaskit("--help").returncode == 0
    assert time.monotonic() - started < 0.5 * 4, "half a second on a quiet machine; four times that on a busy one"
