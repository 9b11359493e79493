"""`biaskit doctor`: what is there, what is not, and what to do about it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from biaskit.cli.app import app


def findings(*words, code=0):
    done = CliRunner().invoke(app, ["doctor", *words])
    assert done.exit_code == code, done.output
    return {one["part"]: one for one in json.loads(done.stdout)["findings"]} if "--json" in words else done.stdout


def test_a_machine_on_which_it_works(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BIASKIT_COCO", raising=False)
    monkeypatch.setenv("BIASKIT_CACHE", str(tmp_path / "cache"))
    found = findings("--json")
    assert found["torch"]["ok"] and found["device"]["ok"] and found["biaskit cache"]["ok"]
    assert found["COCO"]["ok"] is None and "scenes" in found["COCO"]["advice"]
    assert str(tmp_path / "cache") in found["biaskit cache"]["said"]
    assert all(one["advice"] for one in found.values() if not one["ok"])
    assert "next: biaskit demo" in findings()
    assert not (tmp_path / "cache").exists(), "nothing is made by looking"


@pytest.mark.parametrize("wrong", ["coco", "prior", "package"])
def test_what_is_wrong_is_said_with_advice(monkeypatch, tmp_path, wrong):
    monkeypatch.chdir(tmp_path)
    if wrong == "coco":
        monkeypatch.setenv("BIASKIT_COCO", str(tmp_path / "gone"))
    elif wrong == "prior":
        (tmp_path / "priors").mkdir()
        (tmp_path / "priors/mine.safetensors").write_text("nonsense")
    else:
        monkeypatch.setattr("biaskit.cli.doctor._NEEDED", ("torch", "no-such-package"))
    part = {"coco": "COCO", "prior": "priors", "package": "no-such-package"}[wrong]
    found = findings("--json", code=1)
    assert [name for name, one in found.items() if one["ok"] is False] == [part] and found[part]["advice"]
    assert "FAIL" in findings(code=1)
