"""`biaskit bench`, as a user runs it."""

from __future__ import annotations

import json

import pytest
from command import biaskit


def test_prefill_on_the_embedded_model(tmp_path):
    words = ["--model", "demo", "--pruner", "none,fastv", "-r", "0.5,0.25", "--new-tokens", "2", "--repeats", "2", "--device", "cpu"]
    done = biaskit("bench", *words, "--json", "--out", "results", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [(row["method"], row["n"]) for row in found["rows"]] == [("none", 144), ("fastv", 72), ("fastv", 36)]
    assert found["command"].startswith("biaskit bench --model demo") and found["machine"]["kind"] == "cpu"
    assert json.loads((tmp_path / "results" / "prefill.json").read_text()) == found
    assert (tmp_path / "results" / "prefill.md").read_text().count("fastv (") == 2
    again = biaskit("bench", *words, "--out", "results", cwd=tmp_path)
    assert again.returncode == 1 and "prefill.json exists" in again.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--model", "llava-9", "--random-weights"], 1, "sizes of 'llava-9' are not known"),
        (["--random-weights", "--shrink", "100x2"], 1, "100 channels"),
        (["--random-weights", "--shrink", "big"], 2, "CHANNELSxLAYERS"),
        (["--random-weights", "--shrink", "64x2", "--device", "cpu"], 1, "acts before layer 2 of 2"),
        (["-r", "half"], 1, "retention 'half' is not a number"),
        (["all", "--plan", "tpu"], 1, "unknown plan 'tpu'"),
        (["--random-weights", "--dtype", "int8"], 1, "unknown dtype 'int8'"),
    ],
)
def test_wrong_input(tmp_path, words, code, message):
    done = biaskit("bench", *words, cwd=tmp_path)
    assert done.returncode == code and message in " ".join(done.stderr.replace("│", " ").split()), done.stderr
    assert "Traceback" not in done.stderr
