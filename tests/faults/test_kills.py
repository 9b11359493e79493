"""Kills at random moments, and runs that go on with other numbers of processes: every byte is that of a run that nobody disturbed."""

from __future__ import annotations

import os
import signal
import sys
import time
from shutil import rmtree

import pytest
from processes import together

from biaskit.calibration.run import calibrate
from biaskit.families.checkpoints.load import Loaded, load_model
from biaskit.families.checkpoints.tiny import tiny_model
from biaskit.images import open_source
from biaskit.validation.ask.runner import validate

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are forked")

KILLS = 25 if os.environ.get("FAULTS") == "full" else 5


def undisturbed(act):
    """Do it once, in a process of its own; return how long it takes."""
    began = time.monotonic()
    assert together(1, lambda rank: act()) == [0]
    return time.monotonic() - began


def disturb(act, check, random, seconds, most):
    """Kill so often, on one process or several, and let it go on with as many as it happens to be; return how many kills there were.

    Args:
        check: called when a run ended before its kill; it looks at the result and throws it away, for the kills are still owed.
    """
    kills = 0
    while kills < KILLS:
        count = random.randint(1, most)
        victim = random.randrange(count)
        codes = together(count, lambda rank: act(), kill=(victim, random.uniform(0, 0.7 * seconds)))
        if codes == [0] * count:
            check()
        else:
            assert -signal.SIGKILL in codes and set(codes) <= {0, 1, -signal.SIGKILL, -signal.SIGTERM}, codes
            kills += 1
    last = random.randint(1, most)
    assert together(last, lambda rank: act()) == [0] * last
    check()
    return kills


def test_calibrate(tmp_path, random, counted):
    model, processor, family = tiny_model("llava-1.5")
    unit, source = Loaded(model, processor, family, "tiny", "test"), open_source("generated", n=40, seed=0)

    def run(out):
        if out.exists() and not list(out.parent.glob("*.partial*")):
            return  # all was done when another process was killed
        settings = {"samples": 32, "batch_size": 2, "workers": 0, "save_every": 0.0, "layers": "all"}
        calibrate(unit, source, out=out, progress=False, **settings)

    whole, out = tmp_path / "whole" / "p.safetensors", tmp_path / "killed" / "p.safetensors"
    seconds = undisturbed(lambda: run(whole))

    def check():
        assert out.read_bytes() == whole.read_bytes()
        assert list(out.parent.iterdir()) == [out]
        out.unlink()

    counted("kills of calibrate", disturb(lambda: run(out), check, random, seconds, most=3), "kills")


def test_validate(tmp_path, random, counted):
    demo = load_model("demo", device="cpu")

    def run(out):
        settings = {"limit": 24, "batch_size": 4, "progress": False}
        validate(demo, "scenes-presence", "none,random@k=3,fastv@k=3", 0.25, out=out, **settings)

    whole, out = tmp_path / "whole", tmp_path / "killed"
    seconds = undisturbed(lambda: run(whole))

    def check():
        for name in ("results.jsonl", "run.json"):
            assert (out / name).read_bytes() == (whole / name).read_bytes()
        assert {path.name for path in out.iterdir()} == {"results.jsonl", "run.json", "timing.jsonl"}
        rmtree(out)

    counted("kills of validate", disturb(lambda: run(out), check, random, seconds, most=3), "kills")


def test_study(tmp_path, random, counted):
    from typer.testing import CliRunner

    from biaskit.cli.app import app

    words = ["study", "transfer", "--model", "demo", "--data", "generated", "--prompt", "What is this?", "--prompt", "Where is it?"]
    words += ["--samples", "12", "--layers", "0", "--batch-size", "4", "--task", "scenes-presence", "--questions", "6", "--out", "study"]

    def run(folder):
        folder.mkdir(exist_ok=True)
        os.chdir(folder)
        found = CliRunner().invoke(app, words)
        assert found.exit_code == 0, found.output

    seconds = undisturbed(lambda: run(tmp_path / "whole"))

    def files(folder):
        found = {path.relative_to(folder).as_posix(): path for path in (folder / "study").rglob("*") if path.is_file()}
        return {name: path.read_bytes() for name, path in found.items() if path.name != "timing.jsonl"}

    def check():
        assert files(tmp_path / "killed") == files(tmp_path / "whole")
        rmtree(tmp_path / "killed")

    counted("kills of study", disturb(lambda: run(tmp_path / "killed"), check, random, seconds, most=1), "kills")
