"""`biaskit models check` passes what is right, and finds each thing that can be wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from checkpoints import built
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from typer.testing import CliRunner

from biaskit.cli.app import app
from biaskit.engine import layer_masks
from biaskit.engine.check import check_checkpoint
from biaskit.families.checkpoints.load import Loaded

PROBES = ["placeholders", "lit spots", "attention row", "100 % kept", "25 % kept"]


def loaded(name, **options):
    model, processor, family = built(name, **options)
    return Loaded(model, processor, family, name, "local")


def failed(findings):
    return {one.probe for one in findings if one.passed is False}


def test_every_family_passes(tiny):
    model, processor, family = tiny
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    implementations = [part.config._attn_implementation for part in model.modules() if hasattr(part, "config")]
    functions = dict(ALL_ATTENTION_FUNCTIONS._local_mapping)
    seen = []
    findings = check_checkpoint(Loaded(model, processor, family, "tiny", "local"), report=seen.append)
    assert [one.probe for one in findings] == PROBES and seen == findings
    assert not failed(findings), findings
    assert findings[1].numbers["spots"] >= 10
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert [part.config._attn_implementation for part in model.modules() if hasattr(part, "config")] == implementations
    assert dict(ALL_ATTENTION_FUNCTIONS._local_mapping) == functions


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_other_dtypes_and_implementations_pass(dtype, attention):
    assert not failed(check_checkpoint(loaded("qwen2.5-vl", dtype=dtype, attention=attention)))


def test_a_layout_whose_cells_lie_elsewhere_is_found(monkeypatch):
    mine = loaded("qwen2.5-vl")
    whole = type(mine.family).layout

    def mirrored(self, *given):
        return [replace(one, col=one.planes[0].cols - 1 - one.col) for one in whole(self, *given)]

    monkeypatch.setattr(type(mine.family), "layout", mirrored)
    findings = check_checkpoint(mine)
    assert failed(findings) == {"lit spots"}
    assert "not where the layout says, such as image of 640x480" in findings[1].said


def test_placeholders_that_do_not_match_are_found(monkeypatch):
    mine = loaded("llava-1.5")
    whole = type(mine.family).tokens

    def one_less(self, *given):
        return [replace(one, plane=one.plane[:-1], row=one.row[:-1], col=one.col[:-1]) for one in whole(self, *given)]

    monkeypatch.setattr(type(mine.family), "tokens", one_less)
    findings = check_checkpoint(mine)
    assert findings[0].passed is False
    assert "576 image placeholders in the prompt, but the images give 575 visual tokens" in findings[0].said


def test_a_wrong_attention_row_is_found(monkeypatch):
    from biaskit.engine import attention

    right = attention.attention_row
    monkeypatch.setattr(attention, "attention_row", lambda *given, **more: right(*given, **more).flip(-1))
    assert "attention row" in failed(check_checkpoint(loaded("llava-1.5")))


def test_a_wrong_mask_is_found(monkeypatch):
    monkeypatch.setattr(layer_masks, "make_mask", lambda *given, **more: None)
    assert failed(check_checkpoint(loaded("llava-1.5", attention="eager", dtype=torch.float32))) == {"25 % kept"}


def test_a_real_photograph(coco_sample):
    photograph = next(iter(sorted(Path(coco_sample).rglob("*.jpg"))))
    from PIL import Image

    assert not failed(check_checkpoint(loaded("llava-next"), image=Image.open(photograph).convert("RGB")))


def test_the_command(checkpoint, tmp_path):
    done = CliRunner().invoke(app, ["models", "check", str(checkpoint("llava-1.5"))])
    assert done.exit_code == 0, done.output
    assert all(f"ok    {probe}: " in done.output for probe in PROBES)
    assert "all probes passed" in done.output
    told = json.loads(CliRunner().invoke(app, ["models", "check", str(checkpoint("llava-1.5")), "--json"]).stdout)
    assert told["passed"] and [one["probe"] for one in told["findings"]] == PROBES


@pytest.mark.parametrize(
    ("name", "words", "most"),
    [
        ("qwen2.5-vl", ["--max-pixels", "23520", "--dtype", "float64"], 30),
        ("internvl-llama", ["--max-tiles", "2"], 3 * 64),
        ("llava-1.5", ["--image-mode", "pad", "--conversation", "vicuna_v1"], 576),
    ],
)
def test_the_command_checks_a_processor_as_it_is_chosen(checkpoint, name, words, most):
    """A grid cut short, fewer tiles, padding: the same probes, at the setting of the run to come."""
    done = CliRunner().invoke(app, ["models", "check", str(checkpoint(name)), *words, "--device", "cpu", "--json"])
    told = json.loads(done.stdout)
    assert done.exit_code == 0 and told["passed"], told
    assert max(told["findings"][0]["numbers"].values()) <= most
    chosen = {word.removeprefix("--").replace("-", "_") for word in words if word.startswith("--")} - {"dtype"}
    assert set(told["options"]) == chosen


def test_the_command_refuses_what_a_family_does_not_have(checkpoint):
    done = CliRunner().invoke(app, ["models", "check", str(checkpoint("llava-1.5")), "--max-tiles", "2"])
    assert done.exit_code and "LLaVA-1.5 has no --max-tiles" in str(done.exception)
