"""Loading says what it does and fails early, with a hint; hub answers are simulated, for tests reach no network."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import errors as hub

from biaskit.errors import ModelError
from biaskit.families.checkpoints.catalog import CHECKPOINTS, resolve
from biaskit.families.checkpoints.load import load_model, read_checkpoint, weights
from biaskit.families.checkpoints.tiny import TINY, tiny_model


def answer(kind):
    return kind("the hub says no", response=SimpleNamespace(headers={}, request=None, status_code=404, text=""))


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (lambda: answer(hub.GatedRepoError), "is gated", "hf auth login"),
        (lambda: answer(hub.RepositoryNotFoundError), "there is no model llava-hf/llava-1.5-7b-hf", "spelling"),
        (lambda: answer(hub.RevisionNotFoundError), "no such revision", "branches"),
        (lambda: hub.LocalEntryNotFoundError("gone"), "not in the local cache and the hub cannot be reached", "pass the directory"),
        (lambda: hub.OfflineModeIsEnabled("offline"), "not in the local cache", "HF_HUB_OFFLINE"),
        (lambda: answer(hub.RemoteEntryNotFoundError), "lacks a file", "complete checkpoint"),
        (lambda: answer(hub.HfHubHTTPError), "the hub does not answer", "pass the directory"),
        (lambda: ConnectionError("refused"), "the hub does not answer", "connection"),
    ],
)
def test_hub_errors(monkeypatch, error, message, hint):
    def fail(*args, **kwargs):
        raise error()

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(ModelError, match=message) as caught:
        load_model("llava-1.5")
    assert hint in caught.value.hint


def test_offline_for_real():
    """Nothing simulated: no cache, no network."""
    with pytest.raises(ModelError, match=r"Qwen/Qwen2.5-VL-7B-Instruct is not in the local cache"):
        load_model("qwen2.5-vl")


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("OpenGVLab/InternVL2_5-8B", "OpenGVLab/InternVL2_5-8B-MPO-hf"),
        ("OpenGVLab/InternVL3-8B", "OpenGVLab/InternVL3-8B-hf"),
        ("OpenGVLab/InternVL3_5-8B", "OpenGVLab/InternVL3_5-8B-HF"),
        ("OpenGVLab/InternVL3_5-30B-A3B", "OpenGVLab/InternVL3_5-30B-A3B-HF"),
        ("lmms-lab/llava-onevision-qwen2-7b-si", "llava-hf/llava-onevision-qwen2-7b-si-hf"),
        ("liuhaotian/llava-v1.5-7b", "llava-hf/llava-1.5-7b-hf"),
    ],
)
def test_remote_code_names_the_twin_without_a_request(monkeypatch, name, twin):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *a, **k: pytest.fail("a request was made"))
    with pytest.raises(ModelError, match="needs code of its own") as caught:
        load_model(name)
    assert twin in caught.value.hint


def directory(tmp_path, **config):
    (tmp_path / "config.json").write_text(json.dumps(config))
    return str(tmp_path)


def test_local_remote_code_and_unsupported_classes(tmp_path):
    with pytest.raises(ModelError, match="needs code of its own") as caught:
        load_model(directory(tmp_path, model_type="internvl_chat", auto_map={"AutoModel": "modeling.Model"}))
    assert "HF format" in caught.value.hint
    with pytest.raises(ModelError, match="needs code of its own"):
        load_model(directory(tmp_path, model_type="llava", architectures=["LlavaLlamaForCausalLM"]))
    with pytest.raises(ModelError, match="'bert' model, which no family covers") as caught:
        load_model(directory(tmp_path, model_type="bert"))
    assert "qwen2_5_vl" in caught.value.hint
    with pytest.raises(ModelError, match="no safetensors weights"):
        load_model(directory(tmp_path, model_type="llava"))


def test_not_a_checkpoint(tmp_path):
    with pytest.raises(ModelError, match=r"has no config.json"):
        load_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="is not JSON"):
        load_model(str(tmp_path))
    with pytest.raises(ModelError, match="unknown model 'qwen25-vl'") as caught:
        load_model("qwen25-vl")
    assert "qwen2.5-vl" in caught.value.hint


def test_not_enough_memory(monkeypatch, checkpoint):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1000))
    with pytest.raises(ModelError, match=r"needs about .* GB on cpu, 0.0 GB are free") as caught:
        load_model(str(checkpoint("llava-1.5")))
    assert "--dtype bfloat16" in caught.value.hint


def test_truncated_weights(tmp_path, checkpoint):
    source = checkpoint("llava-1.5")
    for path in source.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="does not load"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("missing", ["tokenizer.json", "preprocessor_config.json"])
def test_incomplete_processor(tmp_path, checkpoint, missing):
    for path in checkpoint("qwen2.5-vl").iterdir():
        if path.name not in (missing, "tokenizer_config.json" if missing == "tokenizer.json" else missing):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ModelError, match=r"_config\.json of .* does not load|has no tokenizer"):
        load_model(str(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda:7"}, "device"),
        ({"device": "quantum"}, "unknown device"),
        ({"dtype": "int3"}, "unknown dtype"),
        ({"attention": "psychic"}, "does not load"),
    ],
)
def test_impossible_options(checkpoint, options, message):
    with pytest.raises(ModelError, match=message):
        load_model(str(checkpoint("llava-1.5")), **options)


def test_dtype_and_note(checkpoint):
    assert load_model(str(checkpoint("llava-1.5")), dtype="bfloat16").model.dtype.itemsize == 2
    assert "trained further" in resolve("internvl2.5").note
    assert resolve("internvl2.5").target.endswith("MPO-hf")


def test_a_folder_of_results_does_not_hide_a_short_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("demo", "qwen2.5-vl", "other"):
        (tmp_path / name).mkdir()
        for file in ("run.json", "prior.safetensors"):
            (tmp_path / name / file).touch()
    assert resolve("demo").title == "demo" and not resolve("qwen2.5-vl").local
    assert resolve("./demo").target == "./demo" and resolve("other").target == "other"
    (tmp_path / "demo" / "config.json").touch()
    assert resolve("demo").target == "demo"


def test_every_short_name_is_of_a_known_family():
    from biaskit.families import families

    for name, entry in CHECKPOINTS.items():
        assert entry.model_type in families, name
        assert not resolve(name).local


@pytest.mark.parametrize("name", TINY)
def test_saved_checkpoint_gives_the_same_inputs(checkpoint, name):
    """Loading goes through the checkpoint's files alone and ends with the same processor."""
    import torch
    from PIL import Image

    model, processor, family = tiny_model(name)
    place, found, config, loaded = read_checkpoint(str(checkpoint(name)))
    assert type(found) is type(family) and place.local
    image = Image.linear_gradient("L").convert("RGB").resize((300, 200))
    expected = family.prepare(processor, model.config, [[image]], ["what?"]).inputs
    got = found.prepare(loaded, config, [[image]], ["what?"]).inputs
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[key], got[key]) for key in expected)


def test_size_of_a_hub_checkpoint_is_known_before_it_is_fetched(monkeypatch):
    files = [SimpleNamespace(rfilename="model-1.safetensors", size=7), SimpleNamespace(rfilename="model-2.safetensors", size=5)]
    other = [SimpleNamespace(rfilename="pytorch_model.bin", size=99), SimpleNamespace(rfilename="original/model.safetensors", size=12)]
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *a, **k: SimpleNamespace(siblings=files + other))
    assert weights(resolve("llava-1.5"), None) == (12, 2)


def test_processors_survive_pickling(checkpoint):
    import pickle

    _, family, config, processor = read_checkpoint(str(checkpoint("internvl-llama")))
    again = pickle.loads(pickle.dumps(processor))
    from PIL import Image

    image = [[Image.new("RGB", (64, 64))]]
    assert len(family.prepare(again, config, image, ["?"])) == 1
    assert Path(str(checkpoint("internvl-llama"))).is_dir()
