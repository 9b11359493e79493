"""The checkpoint's own generation config does not reach our generate() unasked; what is asked for does, and is recorded."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from PIL import Image
from typer.testing import CliRunner

from biaskit.cli.app import app
from biaskit.engine.greedy import check_generation, generation_in_force, greedy_settings, put_aside
from biaskit.errors import BiaskitError
from biaskit.families.checkpoints.tiny import save_tiny, tiny_model

FLAGS = {
    "num_beams": 3,
    "num_return_sequences": 2,
    "do_sample": True,
    "temperature": 0.1,
    "use_cache": False,
    "return_dict_in_generate": True,
    "prompt_lookup_num_tokens": 3,
    "prefill_chunk_size": 64,
    "repetition_penalty": 5.0,
    "no_repeat_ngram_size": 1,
    "min_new_tokens": 9,
    "output_scores": True,
}


@pytest.fixture(scope="module")
def ready():
    model, processor, family = tiny_model("qwen2.5-vl")
    picture = Image.effect_noise((120, 90), 60).convert("RGB")
    return model, family.prepare(processor, model.config, [[picture]], ["hello"]).inputs


def test_nothing_of_the_checkpoint_is_in_force(ready, monkeypatch):
    model, inputs = ready
    expected = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    for name, value in FLAGS.items():
        monkeypatch.setattr(model.generation_config, name, value)
    settings = greedy_settings(model)
    assert torch.equal(model.generate(**inputs, max_new_tokens=4, **settings), expected)
    said = put_aside(model, settings)
    assert all(f"{name}={value}" in said for name, value in FLAGS.items())
    assert not {name: value for name, value in generation_in_force(model, settings).items() if FLAGS.get(name) == value}


def test_token_ids_stay(ready, monkeypatch):
    model, inputs = ready
    first = int(model.generate(**inputs, max_new_tokens=1, do_sample=False)[0, -1])
    monkeypatch.setattr(model.generation_config, "suppress_tokens", [first])
    monkeypatch.setattr(model.generation_config, "eos_token_id", 7)
    settings = greedy_settings(model)
    assert int(model.generate(**inputs, max_new_tokens=1, **settings)[0, -1]) != first
    assert put_aside(model, settings) is None
    force = generation_in_force(model, settings)
    assert force["suppress_tokens"] == [first] and force["eos_token_id"] == 7 and force["repetition_penalty"] == 1.0


def test_what_is_asked_for_is_in_force(ready, monkeypatch):
    model, inputs = ready
    monkeypatch.setattr(model.generation_config, "repetition_penalty", 5.0)
    expected = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    settings = greedy_settings(model, check_generation({"repetition_penalty": 5.0}))
    assert torch.equal(model.generate(**inputs, max_new_tokens=6, **settings), expected)
    assert put_aside(model, settings) is None and generation_in_force(model, settings)["repetition_penalty"] == 5.0


@pytest.mark.parametrize(
    ("name", "message"),
    [("repetition", "no setting 'repetition'"), ("update", "no setting 'update'"), ("use_cache", "cannot be chosen"),
     ("prefill_chunk_size", "cannot be chosen"), ("num_return_sequences", "cannot be chosen"), ("max_new_tokens", "cannot be chosen")],
)  # fmt: skip
def test_settings_that_are_refused(name, message):
    with pytest.raises(BiaskitError, match=message):
        check_generation({name: 2})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint whose generation config would break every command, and one question."""
    where = tmp_path_factory.mktemp("own")
    save_tiny("qwen2.5-vl", where / "model")
    own = where / "model" / "generation_config.json"
    own.write_text(json.dumps({**json.loads(own.read_text()), **FLAGS}))
    Image.new("RGB", (200, 150), (9, 90, 200)).save(where / "a.png")
    (where / "q.jsonl").write_text(json.dumps({"question": "a?", "answer": "x", "image": "a.png"}))
    return where


def run(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def test_prune_of_such_a_checkpoint(checkpoint):
    words = [
        "prune",
        "--model",
        checkpoint / "model",
        "--image",
        checkpoint / "a.png",
        "--pruner",
        "fastv",
        "--max-new-tokens",
        3,
        "--json",
    ]
    plain = run(*words)
    assert plain.stderr.count("repetition_penalty=5.0") == 1
    assert json.loads(plain.stdout)["generation"]["repetition_penalty"] == 1.0
    asked = json.loads(run(*words, "--generation", "repetition_penalty=1.5", "--generation", "num_beams=2").stdout)["generation"]
    assert (asked["repetition_penalty"], asked["num_beams"], asked["do_sample"]) == (1.5, 2, False)


def test_validate_of_such_a_checkpoint(checkpoint, tmp_path):
    words = ["validate", "--model", checkpoint / "model", "--task", "vqa", "--data", checkpoint / "q.jsonl", "--images", checkpoint]
    words += ["--pruner", "none,fastv", "-r", "0.2", "--out", tmp_path / "r"]
    first = run(*words)
    assert first.stderr.count("repetition_penalty=5.0") == 1
    manifest = json.loads((tmp_path / "r" / "run.json").read_text())
    assert manifest["generation"]["repetition_penalty"] == 1.0 and "temperature" in manifest["generation"]
    if transformers.__version__.startswith("5.17."):
        return  # repeats the pictures of beams as samples of their own, for which validation has no seeds
    again = [tmp_path / "beams" if word == tmp_path / "r" else word for word in words]
    run(*again, "--generation", "num_beams=2")
    assert json.loads((tmp_path / "beams" / "run.json").read_text())["generation"]["num_beams"] == 2
    other = CliRunner().invoke(app, [str(word) for word in [*words, "--generation", "repetition_penalty=1.05"]])
    assert other.exit_code
    assert "repetition_penalty was 1.0, is 1.05" in other.output + str(other.exception)
