"""Streams and paths that a command may meet: full, closed, of another encoding, in a circle."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import biaskit, environment
from typer.testing import CliRunner

from biaskit.cli.app import app

COMMANDS = [
    ("--help",),
    ("--version",),
    ("models", "list"),
    ("pruners", "show", "d2pruner"),
    ("tasks", "list", "--json"),
    ("validate", "published"),
]


def run(words, stdout, **more):
    command = [sys.executable, "-m", "biaskit", *words]
    done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, env=environment(**more), timeout=120, check=False)
    return done.returncode, (done.stdout or b"").decode(errors="replace"), done.stderr.decode(errors="replace")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_full_output(words):
    with Path("/dev/full").open("w") as full:
        code, _, told = run(words, full)
    assert code == 1
    assert told.startswith("error: ") and told.count("\n") == 2, told
    assert "No space left" in told and "free some space" in told


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_closed_pipe_ends_quietly(words):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        code, _, told = run(words, writing)
    finally:
        os.close(writing)
    assert (code, told) == (1, "")


def test_closed_output():
    command = 'exec "$0" -m biaskit models list >&-'
    done = subprocess.run(["sh", "-c", command, sys.executable], stderr=subprocess.PIPE, text=True, env=environment(), check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_consoles_that_are_not_utf_8(encoding):
    code, shown, told = run(("validate", "published"), subprocess.PIPE, PYTHONIOENCODING=encoding)
    assert (code, told) == (0, "")
    assert "D2Pruner" in shown


@pytest.mark.parametrize(
    "words",
    [
        ("heatmap", "{}"),
        ("heatmap", "{}/a.safetensors"),
        ("priors", "show", "{}"),
        ("priors", "verify", "{}"),
        ("scenes", "--out", "{}/x"),
        ("demo", "--out", "{}/x"),
        ("models", "inspect", "{}"),
        ("prune", "--model", "demo", "--image", "{}", "--prompt", "where?"),
        ("prune", "--model", "demo", "--image", "{}/x.png", "--prompt", "where?"),
        ("validate", "report", "{}"),
        ("calibrate", "--model", "demo", "--data", "{}/x"),
        ("calibrate", "--model", "demo", "--data", "generated", "-n", "1", "--out", "{}/x.safetensors"),
    ],
    ids=lambda words: " ".join(words),
)
def test_links_in_a_circle(tmp_path, words):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    done = biaskit(*[word.format(tmp_path / "a") for word in words], cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr, done.stderr
    told = done.stderr + (done.stdout if words[1] == "verify" else "")  # what is wrong with a prior is what `verify` reports
    assert "hint: " in told or "Usage" in told


@pytest.mark.parametrize("words", [("-q", "models", "check", "demo"), ("models", "check", "demo", "-q"), ("models", "check", "demo")])
def test_quiet_says_nothing_of_progress(words):
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0 and "all probes passed" in done.stdout
    assert (done.stderr == "") is ("-q" in words)
