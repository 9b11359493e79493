"""`biaskit validate`, as a user runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from biaskit.cli.app import app
from biaskit.errors import BiaskitError
from biaskit.prior.value import PlaneStats, Prior
from biaskit.validation.results.directory import read_results

WORDS = ["validate", "-m", "demo", "--device", "cpu", "-t", "scenes-where,scenes-presence:photo", "-p", "none,random", "-r", "1/4"]


def save_prior(path, model_type="llava"):
    mean = np.linspace(1, 2, 9 * 144, dtype=np.float32).reshape(9, 12, 12)
    Prior({"image": PlaneStats(mean)}, tuple(range(9)), np.ones(9, dtype=np.float32), {"model_type": model_type}).save(path, force=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A directory with priors and the results of an undisturbed run."""
    root = tmp_path_factory.mktemp("validate")
    for name in ("neutral", "task"):
        save_prior(root / f"{name}.safetensors")
    save_prior(root / "qwen.safetensors", "qwen2_5_vl")
    with pytest.MonkeyPatch.context() as monkeypatch:
        done = in_process(*WORDS, "--questions", "12", "--out", "whole", "--json", cwd=root, monkeypatch=monkeypatch)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["asked"] == 48 and found["metrics"] == {"scenes-where": "iou50", "scenes-presence:photo": "correct"}
    assert [(row["task"], row["cell"]) for row in found["cells"]] == [
        (task, cell) for task in ("scenes-where", "scenes-presence:photo") for cell in ("none", "random/r0.25")
    ]
    assert all(row["scores"]["n"] == 12 for row in found["cells"])
    return root


def start(cwd, *words):
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    return subprocess.Popen(
        [sys.executable, "-m", "biaskit", *words],
        cwd=cwd,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )


def in_process(*words, cwd, monkeypatch):
    monkeypatch.chdir(cwd)
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=True)


def test_interrupted_and_finished(whole, monkeypatch):
    out, words = whole / "stopped", [*WORDS, "--questions", "12", "--out", "stopped"]
    run = start(whole, *words)
    while run.poll() is None and not (out / "timing.jsonl").exists():
        time.sleep(0.005)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=120)
    assert run.returncode == 130, said
    assert "stopped; nothing is lost: the same command resumes in stopped" in said and "Traceback" not in said
    assert 0 < len(list(read_results(out))) < 48
    done = in_process(*words, cwd=whole, monkeypatch=monkeypatch)
    assert done.exit_code == 0, done.output
    assert re.search(r"\d+ of 48 answers are there; going on", done.output)
    assert (out / "results.jsonl").read_bytes() == (whole / "whole" / "results.jsonl").read_bytes()
    assert "random/r0.25" in done.stdout and "(n = 12)" in done.stdout
    manifest = json.loads((out / "run.json").read_text())
    assert manifest["commands"][0] == "biaskit " + " ".join(words) and manifest["model"]["base"] == "demo"
    assert set(manifest["dims"]) == {"layers", "hidden", "inner", "heads", "kv_heads", "head_dim", "vocab"}
    said = in_process(*words, "--published-as", "llava-hf/llava-1.5-7b-hf", cwd=whole, monkeypatch=monkeypatch)
    assert said.exit_code == 0 and "published_as" not in manifest
    assert json.loads((out / "run.json").read_text())["published_as"] == "llava-hf/llava-1.5-7b-hf"
    other = in_process(*words, "--seed", "3", cwd=whole, monkeypatch=monkeypatch)
    assert isinstance(other.exception, BiaskitError)
    assert other.exception.message == "stopped has results of another run: seed was 0, is 3"


def test_sweeps_named_priors_and_measures(whole, monkeypatch):
    words = ["validate", "-m", "demo", "-t", "scenes-where", "--questions", "2", "-r", "0.1", "--k", "3", "--analyse", "--device", "cpu"]
    words += ["-p", "fastv+neutral,fastv+task", "--prior", "neutral=neutral.safetensors", "--prior", "task=task.safetensors"]
    done = in_process(*words, "--sweep", "tau=0.5", "--out", "sweep", "--json", cwd=whole, monkeypatch=monkeypatch)
    assert done.exit_code == 0, done.output
    records = list(read_results(whole / "sweep"))
    assert list(dict.fromkeys(record["cell"] for record in records)) == [
        *("fastv+neutral/r0.1", "fastv+task/r0.1"),
        *("fastv@strength=0.5+neutral/r0.1", "fastv@strength=0.5+task/r0.1"),
    ]
    assert {record["parameters"]["strength"] for record in records} == {0.5, 1.0}
    assert all(len(record["kept"]) == 14 and {"importance", "hopkins", "coverage"} <= set(record["selection"]) for record in records)
    assert json.loads((whole / "sweep" / "run.json").read_text())["analysed"]["hopkins_reference"]


FEW = ["-m", "demo", "--questions", "2", "--out", "none"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*FEW, "-t", "scenes-wear", "-p", "fastv"], "unknown task 'scenes-wear'.*did you mean scenes-where"),
        ([*FEW, "-t", "scenes-where", "-p", "fastw"], "unknown pruner 'fastw'.*did you mean fastv"),
        ([*FEW, "-t", "scenes-where", "-p", "fastv", "-r", "0"], "retention is 0"),
        ([*FEW, "-t", "scenes-where", "-p", "fastv", "-r", "0.5,x"], "retention 'x' is not a number"),
        ([*FEW, "-t", "scenes-where", "-p", "fastv+prior", "--prior", "qwen.safetensors"], "model type 'qwen2_5_vl', not 'llava'"),
        ([*FEW, "-t", "scenes-where", "-p", "fastv+prior"], "there is no prior 'prior'"),
        ([*FEW, "-t", "scenes-where", "-p", "fastv", "--prior", "nowhere.safetensors"], "no prior 'nowhere.safetensors'"),
        ([*FEW, "-t", "scenes-where", "--ablation"], "no prior 'prior'"),
        ([*FEW, "-t", "scenes-where", "-p", "fastv", "--k", "9"], "layers 0 … 8"),
        ([*FEW, "-t", "scenes-where", "-p", "fastv", "--sweep", "alpha=1"], "no method here has the parameter 'alpha'"),
        ([*FEW, "-t", "scenes-where", "-p", "fastv", "--published-as", "x/y"], "no published table has the model 'x/y'.*llava-hf"),
        ([*FEW, "-t", "pope", "-p", "fastv"], "pope needs data"),
        ([*FEW, "-t", "pope", "-p", "fastv", "--data", "empty.jsonl"], "empty.jsonl"),
        (["-m", "demmo", "--questions", "2", "--out", "none", "-t", "scenes-where", "-p", "fastv"], "unknown model 'demmo'"),
    ],
)
def test_wrong_input(whole, monkeypatch, words, message):
    (whole / "empty.jsonl").write_text("")
    done = in_process("validate", *words, cwd=whole, monkeypatch=monkeypatch)
    assert isinstance(done.exception, BiaskitError), done.output
    assert re.search(message, f"{done.exception.message} {done.exception.hint}")
    assert not (whole / "none").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--model, --task, --out"),
        ([*FEW, "-t", "scenes-where"], "--pruner"),
        ([*FEW, "-t", "scenes-where", "-p", "fastv", "--sweep", "alpha"], "KEY=V1,V2"),
        ([*FEW, "-t", "scenes-where", "-p", "fastv", "--data", "pope=x"], "pope is not one of the tasks"),
        (
            [*FEW, "-t", "scenes-where", "-p", "a", "--prior", "a=neutral.safetensors", "--prior", "a=task.safetensors"],
            "two priors called a",
        ),
        (["-m", "demo", "--questions", "0"], "--questions"),
    ],
)
def test_wrong_usage(whole, monkeypatch, words, message):
    done = in_process("validate", *words, cwd=whole, monkeypatch=monkeypatch)
    assert done.exit_code == 2 and message in " ".join(done.output.replace("│", " ").split())
