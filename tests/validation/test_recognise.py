"""The gate against published scores: on for local copies of the papers' checkpoints, off for others, and the report says which and why."""

from __future__ import annotations

import json
import re

import pytest
from runs import KEPT, make_run

from biaskit.errors import BiaskitError
from biaskit.families.checkpoints.sizes import SIZES
from biaskit.validation.report.analyse import Settings
from biaskit.validation.report.contents import Report
from biaskit.validation.report.recognise import recognise
from biaskit.validation.results.manifest import merge
from biaskit.validation.results.read import read_run

QUICK = Settings(resamples=100, flips=100)


def sized(short, **model):
    """What run.json says of a checkpoint with the sizes of a known one."""
    known = SIZES[short]
    return {
        "model": {"name": "copy", "model_type": known.model_type, **model},
        "dims": {**vars(known.text), "vocab": known.text.vocab + 64},
    }


@pytest.mark.parametrize(
    ("short", "key"),
    [("llava-1.5", "llava-1.5-7b"), ("llava-next", "llava-next-7b"), ("qwen2.5-vl", "qwen2.5-vl-7b"), ("internvl2.5", "internvl2.5-8b")],
)
def test_local_copies_are_recognised_by_architecture_and_sizes(short, key):
    found = recognise(sized(short))
    assert found.key == key and "copy is taken for" in found.remark and "fine-tuned" in found.remark
    assert recognise(sized(short, model_type="idefics3")).key is None
    changed = sized(short)
    changed["dims"]["layers"] -= 1
    assert recognise(changed).key is None


@pytest.mark.parametrize("short", [short for short in SIZES if short not in ("llava-1.5", "llava-next", "qwen2.5-vl", "internvl2.5")])
def test_other_sizes_are_none_of_the_papers(short):
    found = recognise(sized(short))
    assert found.key is None and "nothing is published" in found.why


def test_what_the_user_says_comes_first():
    known = sized("llava-1.5")
    assert recognise(known, "none").key is None
    assert recognise({**known, "published_as": "none"}).key is None
    assert recognise({**known, "published_as": "none"}, "llava-hf/llava-1.5-7b-hf").key == "llava-1.5-7b"
    assert recognise({"model": {"name": "odd"}}, "Qwen/Qwen2.5-VL-7B-Instruct").remark.startswith("taken for Qwen")
    with pytest.raises(BiaskitError, match="no published table has the model 'gpt-7'") as caught:
        recognise(known, "gpt-7")
    assert "llava-hf/llava-1.5-7b-hf" in caught.value.hint


def copy_of_llava(folder, **kept):
    """A run of a local copy, unpruned 60 % where the paper prints 69.29."""
    make_run(folder, n=60, kept={"fastv": KEPT["fastv"]}, tasks=("refcoco:val",), model="my-llava", unpruned=0.5, retentions=(0.25,))
    manifest = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**manifest, "dims": sized("llava-1.5")["dims"], **kept}))
    return read_run(folder)


def test_the_report_of_a_local_copy_is_gated(tmp_path):
    run = copy_of_llava(tmp_path / "run")
    found = Report.of(run, QUICK)
    assert "prints 69.29" in found.warnings[0] and "my-llava is taken for llava-hf/llava-1.5-7b-hf" in found.warnings[0]
    assert found.gate.startswith("The gate against published scores is on for refcoco:val") and found.summary()["gate"] == found.gate
    assert found.chapters[-1].tables[0].notes[-1] == found.gate
    off = Report.of(run, QUICK, "none")
    assert not off.papers and not off.warnings and "is off: --published-as none" in off.gate
    assert "is off: --published-as none" in Report.of(copy_of_llava(tmp_path / "told", published_as="none"), QUICK).gate


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"model": "demo"}, "nothing is published about the embedded model demo"),
        ({"model": "mine"}, r"mine \(a llava model of 8 layers of 64 channels\) is not one of the papers' checkpoints"),
        ({"model": "llava-1.5", "tasks": ("scenes-where",)}, "print nothing about scenes-where for llava-1.5-7b"),
    ],
)
def test_the_report_says_when_the_gate_is_off(tmp_path, options, why):
    make_run(tmp_path, **{"tasks": ("refcoco:val",), "n": 30, "kept": {}, **options})
    found = Report.of(read_run(tmp_path), QUICK)
    assert re.search(f"^The gate against published scores is off: .*{why}", found.gate)
    assert found.chapters[-1].tables[0].notes[-1] == found.gate and not found.warnings


def test_without_an_unpruned_cell_the_gate_is_off(tmp_path):
    make_run(tmp_path, tasks=("refcoco:val",), n=30, kept={"fastv": KEPT["fastv"]}, model="llava-1.5", retentions=(0.5,))
    lines = [line for line in (tmp_path / "results.jsonl").read_text().splitlines(keepends=True) if '"cell": "none"' not in line]
    (tmp_path / "results.jsonl").write_text("".join(lines))
    found = Report.of(read_run(tmp_path), QUICK)
    assert found.gate == "The gate against published scores is off: the run has no unpruned score that corresponds to a published one."


def test_what_is_said_later_is_recorded():
    """It changes no answer, so a run goes on with it."""
    old = {"schema": 1, "commands": [], "tasks": [], "priors": {}, "cells": []}
    said = {**old, "published_as": "none"}
    assert merge(old, dict(said), "here")["published_as"] == "none"
    assert merge(said, dict(old), "here")["published_as"] == "none"
    assert "published_as" not in merge(old, dict(old), "here")
