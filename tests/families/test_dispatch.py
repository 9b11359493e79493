"""Models spread over the CPU and disk: calibrate, prune and validate give what the undispatched model gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from biaskit import prune, validate
from biaskit.calibration.run import calibrate
from biaskit.engine.attention import attention_rows
from biaskit.errors import ModelError
from biaskit.families.checkpoints.device import input_device
from biaskit.families.checkpoints.load import load_model
from biaskit.families.checkpoints.wrap import wrap_model
from biaskit.images import open_source
from biaskit.pruners import get_pruner

NAMES = ["llava-1.5", "qwen2.5-vl", "qwen3-vl", "internvl-qwen2"]


def spread(model):
    """Every other decoder layer, the embeddings of text, the vision tower and the head on disk; the rest on the CPU."""
    found = {"lm_head": "disk"}
    for name, part in model.model.named_children():
        if name != "language_model":
            found[f"model.{name}"] = "disk" if "vis" in name else "cpu"
            continue
        for inner, layers in part.named_children():
            if inner == "layers":
                found |= {f"model.{name}.layers.{i}": ("cpu", "disk")[i % 2] for i in range(len(layers))}
            else:
                found[f"model.{name}.{inner}"] = "disk"
    return found


@pytest.fixture(scope="module")
def pair(checkpoint):
    """Name → the same checkpoint undispatched, and dispatched."""
    made = {}

    def get(name):
        if name not in made:
            whole = load_model(checkpoint(name), device="cpu")
            made[name] = whole, load_model(checkpoint(name), device_map=spread(whole.model))
        return made[name]

    return get


def hooks(model):
    return [len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules()]


def prompt(unit, images=2):
    source = open_source("generated", n=images, seed=3)
    texts = ["Where is the red circle, and what is left of it?", "What is this?"][:images]
    return unit.family.prepare(unit.processor, unit.model.config, [[source.load(i)] for i in range(images)], texts).inputs


@pytest.mark.parametrize("name", NAMES)
def test_it_is_on_disk_and_inputs_go_to_where_the_embeddings_work(pair, name):
    whole, parts = pair(name)
    assert parts.model.get_input_embeddings().weight.is_meta
    assert {"cpu", "disk"} == set(parts.model.hf_device_map.values())
    assert input_device(parts.model) == input_device(whole.model) == torch.device("cpu")
    assert parts.revision == whole.revision and "on cpu" in repr(parts)


@pytest.mark.parametrize("name", NAMES)
def test_attention_rows_and_priors_are_the_same(pair, name):
    whole, parts = pair(name)
    inputs = prompt(whole)
    layers = range(whole.model.config.get_text_config().num_hidden_layers)
    assert torch.equal(attention_rows(parts.model, inputs, layers), attention_rows(whole.model, inputs, layers))
    source = open_source("generated", n=5, seed=0)
    one, two = (calibrate(unit, source, samples=5, layers="all", workers=0, batch_size=2) for unit in (whole, parts))
    assert one.to_bytes() == two.to_bytes()


@pytest.mark.parametrize(("name", "method"), [("llava-1.5", "visionzip"), ("internvl-qwen2", "visionzip")])
def test_readings_of_the_vision_tower_are_the_same(pair, name, method):
    whole, parts = pair(name)
    inputs, kept = prompt(whole), []
    for unit in (whole, parts):
        with torch.inference_mode(), prune(unit.model, get_pruner(method, retention=0.3)) as pruning:
            unit.model(**inputs)
        kept.append([sample.indices.tolist() for sample in pruning.samples])
    assert kept[0] == kept[1]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["fastv", "divprune", "d2pruner"])
def test_pruned_generate_is_the_same(pair, name, method):
    whole, parts = pair(name)
    inputs, texts = prompt(whole), []
    pruner = get_pruner(method, retention=0.3, **({"strength": 0} if method == "d2pruner" else {}))
    for unit in (whole, parts):
        with torch.inference_mode(), prune(unit.model, pruner) as pruning:
            output = unit.model.generate(**inputs, max_new_tokens=6, do_sample=False, return_dict_in_generate=True, output_logits=True)
        texts.append((output.sequences, torch.stack(output.logits), [sample.indices.tolist() for sample in pruning.samples]))
    (ids, logits, kept), (their_ids, their_logits, their_kept) = texts
    assert torch.equal(ids, their_ids) and torch.equal(logits, their_logits) and kept == their_kept


def test_hooks_of_both_live_together_and_ours_leave(pair):
    """accelerate's hooks stay; weights are off memory again, also after a pass that stopped early."""
    _, parts = pair("llava-1.5")
    hooked = [name for name, module in parts.model.named_modules() if hasattr(module, "_hf_hook")]
    away = {name for name, tensor in parts.model.state_dict().items() if tensor.is_meta}
    inputs, stock = prompt(parts), hooks(parts.model)
    attention_rows(parts.model, inputs, [1])
    with torch.inference_mode(), prune(parts.model, get_pruner("fastv", retention=0.3)):
        parts.model.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert hooked == [name for name, module in parts.model.named_modules() if hasattr(module, "_hf_hook")]
    assert away == {name for name, tensor in parts.model.state_dict().items() if tensor.is_meta}
    assert hooks(parts.model) == stock


def test_validate_gives_the_same_answers(tmp_path):
    whole = load_model("demo", device="cpu")
    parts = load_model("demo", device_map=spread(whole.model))
    for unit, out in ((whole, "whole"), (parts, "parts")):
        validate(unit, "scenes-presence", "none,fastv@k=3", 0.25, out=tmp_path / out, limit=8, batch_size=4)
    for file in ("results.jsonl", "run.json"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "parts" / file).read_bytes()


def test_a_stock_model_that_was_dispatched_has_the_fingerprint_of_its_weights(pair):
    whole, parts = pair("llava-1.5")
    one, two = (wrap_model(unit.model, unit.processor, name="tiny") for unit in (whole, parts))
    assert one.revision == two.revision
    layer = whole.model.model.language_model.layers[0].mlp.up_proj.weight
    layer.data[0, 0] += 1
    try:
        assert wrap_model(whole.model, whole.processor).revision != two.revision
    finally:
        layer.data[0, 0] -= 1


def test_auto_by_itself(checkpoint):
    lines = []
    unit = load_model(checkpoint("llava-1.5"), device_map="auto", say=lines.append)
    assert any("on devices as auto" in line for line in lines)
    prior = calibrate(unit, open_source("generated", n=2, seed=0), workers=0)
    assert np.isfinite(prior.planes["image"].mean).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device_map": "everywhere"}, "unknown device map 'everywhere'"),
        ({"device_map": "auto", "device": "cpu"}, "device 'cpu' besides a device map"),
        ({"device_map": {"": "cuda:77"}}, "device 'cuda:77' is not there"),
        ({"device_map": {"": 77}}, "device 'cuda:77' is not there"),
        ({"device_map": {"": "shelf"}}, "unknown device 'shelf'"),
        ({"device_map": {"model.nowhere": "cpu", "": "cpu"}}, "no module 'model.nowhere'"),
        ({"device_map": {"model.vision_tower": "disk"}}, "does not load: The device_map provided does not give any device"),
    ],
)
def test_what_cannot_be_is_refused_by_name(checkpoint, options, message):
    with pytest.raises(ModelError, match=message):
        load_model(checkpoint("llava-1.5"), **options)


def test_several_processes_do_not_each_take_all_gpus(checkpoint, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    with pytest.raises(ModelError, match="2 processes would each spread the model over all GPUs"):
        load_model(checkpoint("llava-1.5"), device_map="auto")


def test_the_commands_take_a_device_map(checkpoint, tmp_path):
    from typer.testing import CliRunner

    from biaskit.cli.app import app

    folder, runner = str(checkpoint("llava-1.5")), CliRunner()
    calibration = ["calibrate", "-m", folder, "-d", "generated", "-n", "2", "--workers", "0"]
    assert runner.invoke(app, [*calibration, "--device-map", "auto", "-o", str(tmp_path / "a.safetensors")]).exit_code == 0
    assert runner.invoke(app, [*calibration, "-o", str(tmp_path / "b.safetensors")]).exit_code == 0
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    validation = ["validate", "-m", "demo", "-t", "scenes-presence", "-p", "none", "--questions", "2", "-o", str(tmp_path / "run")]
    assert runner.invoke(app, [*validation, "--device-map", "sequential"]).exit_code == 0
    for command in (["prune", folder, "x.png", "?"], calibration, validation):
        assert "--device-map" in runner.invoke(app, [command[0], "--help"], env={"COLUMNS": "200"}).output
    refused = runner.invoke(app, [*calibration, "--device-map", "shelf", "-o", str(tmp_path / "c.safetensors")])
    assert isinstance(refused.exception, ModelError) and "unknown device map 'shelf'" in str(refused.exception)
