"""What tells local checkpoints apart: every byte of the weights, and every setting of the processor."""

from __future__ import annotations

import copy
import json
import os
import shutil
import time
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers.normalizers import Lowercase

from biaskit.errors import BiaskitError, ModelError
from biaskit.families.checkpoints import fingerprint as module
from biaskit.families.checkpoints.fingerprint import file_digest, fingerprint, model_fingerprint
from biaskit.families.checkpoints.load import load_model
from biaskit.families.checkpoints.processor_settings import processor_settings
from biaskit.families.checkpoints.tiny import TINY, save_tiny, tiny_model
from biaskit.families.checkpoints.wrap import as_loaded, wrap_model
from biaskit.prior.revision import revision_warning, settings_warning


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BIASKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fingerprints"


def checkpoint(folder, weights):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    save_file({name: values.contiguous() for name, values in weights.items()}, folder / "model.safetensors")
    return folder


def test_one_number_in_the_middle_of_the_weights_makes_another_checkpoint(tmp_path):
    weights = {"a": torch.zeros(1 << 20), "b": torch.zeros(1 << 20)}
    whole = checkpoint(tmp_path / "one", weights)
    same = checkpoint(tmp_path / "two", weights)
    assert fingerprint(whole) == fingerprint(same)
    weights["a"][1 << 19] = 1e-7
    other = checkpoint(tmp_path / "three", weights)
    assert (whole / "model.safetensors").stat().st_size == (other / "model.safetensors").stat().st_size
    assert fingerprint(whole) != fingerprint(other)
    renamed = checkpoint(tmp_path / "four", {"a": torch.zeros(1 << 20), "c": torch.zeros(1 << 20)})
    assert fingerprint(renamed) != fingerprint(same)  # the header counts
    (same / "config.json").write_text('{"rope_theta": 1}')
    assert fingerprint(whole) != fingerprint(same)
    assert fingerprint(whole).startswith("files-")


def test_the_hash_does_not_depend_on_how_a_file_is_cut_for_reading(tmp_path, monkeypatch):
    """Blocks are part of the hash, how much is read at once is not."""
    path = tmp_path / "file"
    path.write_bytes(os.urandom(100_003))
    found = set()
    for read in (7, 1 << 10, 1 << 22):
        monkeypatch.setattr(module, "_READ", read)
        found.add(module._hash(path, 100_003))
    assert len(found) == 1
    monkeypatch.setattr(module, "_BLOCK", 4096)
    blocks = module._hash(path, 100_003)
    swapped = bytearray(path.read_bytes())
    swapped[:4096], swapped[4096:8192] = swapped[4096:8192], swapped[:4096]
    path.write_bytes(swapped)
    assert module._hash(path, 100_003) != blocks


def test_an_old_file_is_hashed_once(tmp_path, cache, monkeypatch):
    path = tmp_path / "weights"
    path.write_bytes(b"x" * 1000)
    first = file_digest(path)
    assert not list(cache.glob("*"))  # it may still change within the same tick of the clock
    old = time.time() - 60
    os.utime(path, (old, old))
    assert file_digest(path) == first
    (kept,) = cache.iterdir()
    monkeypatch.setattr(module, "_hash", lambda *arguments: pytest.fail("hashed again"))
    assert file_digest(path) == first
    monkeypatch.undo()
    path.write_bytes(b"y" * 1000)
    assert file_digest(path) != first  # the same size, another time
    for broken in (b"", b"{", b'{"facts": 3}', b"[]", b"\xff\xff"):
        kept.write_bytes(broken)
        os.utime(path, (old, old))
        assert file_digest(path) != first


def test_a_cache_that_cannot_be_written_only_costs_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("BIASKIT_CACHE", str(tmp_path / "file"))
    path = tmp_path / "weights"
    path.write_bytes(b"x")
    os.utime(path, (1, 1))
    assert file_digest(path) == file_digest(path)


def test_a_checkpoint_with_merged_weights_does_not_go_on_with_another_one_s_calibration(tmp_path):
    from biaskit import calibrate

    save_tiny("llava-1.5", tmp_path / "base" / "model")
    shutil.copytree(tmp_path / "base" / "model", tmp_path / "merged" / "model")
    file = tmp_path / "merged" / "model" / "model.safetensors"
    weights = load_file(file)
    name = min(name for name in weights if "q_proj" in name)
    weights[name] = weights[name] + 0.01
    save_file(weights, file, metadata={"format": "pt"})
    base, merged = load_model(tmp_path / "base" / "model"), load_model(tmp_path / "merged" / "model")
    assert base.name == merged.name and base.revision != merged.revision

    def stop(progress):
        if progress.done >= 2:
            raise KeyboardInterrupt

    options = {"samples": 4, "workers": 0, "layers": 1, "batch_size": 1, "out": tmp_path / "p.safetensors"}
    with pytest.raises(KeyboardInterrupt):
        calibrate(base, "generated", report=stop, **options)
    with pytest.raises(BiaskitError, match=f'revision was "{base.revision}", is "{merged.revision}"'):
        calibrate(merged, "generated", **options)
    prior = calibrate(base, "generated", **options)
    with pytest.warns(UserWarning, match=f"revision '{base.revision}', and is used with '{merged.revision}'"):
        prior.check_model("llava", merged.revision, merged.name)


def test_revisions_made_before_are_a_warning_that_says_why():
    assert "older kind of fingerprint" in revision_warning("local-0123", "files-0123")
    assert "is used with 'local-4'" in revision_warning("local-3", "local-4")
    assert revision_warning("", "files-1") == revision_warning("abc", "abc") == ""


@pytest.mark.parametrize("name", TINY)
def test_processor_settings_are_plain_and_complete(name):
    _, processor, _ = tiny_model(name)
    settings = processor_settings(processor)
    assert json.loads(json.dumps(settings)) == settings
    for key, value in processor.image_processor.to_dict().items():
        if key != "image_processor_type" and value is not None:
            assert any(name == f"image_processor.{key}" or name.startswith(f"image_processor.{key}.") for name in settings), key
    assert settings["chat_template"].startswith("sha256:")
    assert settings == processor_settings(processor)


def test_every_setting_counts():
    _, processor, _ = tiny_model("internvl-llama")
    before = processor_settings(processor)
    processor.image_processor.max_patches = 6
    processor.chat_template += " "
    after = processor_settings(processor)
    assert {name for name in before if before[name] != after[name]} == {"image_processor.max_patches", "chat_template"}


def test_the_tokenizer_counts_by_what_it_does():
    _, processor, _ = tiny_model("llava-1.5")
    before = processor_settings(processor)
    processor(text=["padded", "and padded to it"], padding=True)
    assert processor_settings(processor) == before, "a state that a call leaves behind is no setting"
    other = copy.deepcopy(processor)
    other.tokenizer.backend_tokenizer.normalizer = Lowercase()
    larger = copy.deepcopy(processor)
    larger.tokenizer.add_tokens(["<new>"])
    assert len({processor_settings(one)["tokenizer"] for one in (processor, other, larger)}) == 3


def test_padding_that_only_one_of_two_knows_is_a_difference(checkpoint):
    """LLaVA's image processors that pad and that crop are of different classes, with different settings."""
    pads, crops = (load_model(checkpoint("llava-1.5"), image_mode=mode).processor_settings for mode in ("pad", "crop"))
    for mine, theirs, said in ((pads, crops, "true, and is used with false"), (crops, pads, "false, and is used with true")):
        assert f"image_processor.do_pad = {said}" in settings_warning(json.dumps(mine), theirs)


def resized(folder, pixels):
    path = folder / "preprocessor_config.json"
    settings = json.loads(path.read_text())
    settings["size"] = {"shortest_edge": 3136, "longest_edge": pixels}
    path.write_text(json.dumps(settings))
    return load_model(folder)


def test_another_resolution_is_another_run(tmp_path):
    from biaskit import Prior, calibrate
    from biaskit.validation.ask.describe import make_manifest
    from biaskit.validation.results.manifest import merge

    save_tiny("qwen2.5-vl", tmp_path / "model")
    large = resized(tmp_path / "model", 28 * 28 * 400)

    def stop(progress):
        if progress.done >= 2:
            raise KeyboardInterrupt

    options = {"samples": 4, "workers": 0, "layers": 1, "batch_size": 1, "out": tmp_path / "p.safetensors"}
    with pytest.raises(KeyboardInterrupt):
        calibrate(large, "generated", report=stop, **options)
    small = resized(tmp_path / "model", 28 * 28 * 30)
    assert large.revision == small.revision
    with pytest.raises(BiaskitError, match=r"settings: processor image_processor.size.longest_edge was 313600, is 23520"):
        calibrate(small, "generated", **options)
    calibrate(large, "generated", **options)
    with pytest.raises(BiaskitError, match=r"other settings: .*processor image_processor.size.longest_edge was 313600, is 23520"):
        calibrate(small, "generated", **options)
    prior = Prior.load(tmp_path / "p.safetensors")
    assert json.loads(prior.meta["processor"]) == large.processor_settings
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prior.check_model("qwen2_5_vl", large.revision, large.name, large.processor_settings)
    words = "setting of the processor: image_processor.size.longest_edge = 313600, and is used with 23520"
    with pytest.warns(UserWarning, match=words):
        prior.check_model("qwen2_5_vl", small.revision, small.name, small.processor_settings)
    assert settings_warning("", small.processor_settings) == settings_warning("no JSON", {}) == ""  # made before, or edited

    old, new = (make_manifest(one, {}, {}, [], priors={}, seed=0, command="") for one in (large, small))
    with pytest.raises(BiaskitError, match=r"processor image_processor.size.longest_edge was 313600, is 23520"):
        merge(old, new, "results")


def test_a_stock_model_comes_with_its_processor(tmp_path):
    from biaskit import calibrate

    model, processor, _ = tiny_model("llava-1.5")
    wrapped = wrap_model(model, processor)
    assert as_loaded((model, processor)).revision == wrapped.revision == model_fingerprint(model)
    given = calibrate((model, processor), "generated", samples=2, layers=1, workers=0)
    assert given.to_bytes() == calibrate(wrapped, "generated", samples=2, layers=1, workers=0).to_bytes()
    with torch.no_grad():
        next(model.parameters())[0] += 1e-3
    assert model_fingerprint(model) != wrapped.revision
    with pytest.raises(ModelError, match="LlavaForConditionalGeneration comes without its processor") as caught:
        calibrate(model, "generated")
    assert "(model, processor)" in caught.value.hint
    with pytest.raises(ModelError, match="is not a processor of images and text"):
        wrap_model(model, processor.tokenizer)
    with pytest.raises(ModelError, match="training mode"):
        wrap_model(model.train(), processor)
    with pytest.raises(ModelError, match="is not a model that biaskit can run"):
        wrap_model(torch.nn.Linear(1, 1), processor)
    with pytest.raises(BiaskitError, match="int 3 is not a model"):
        calibrate(3, "generated")


def test_priors_made_before_still_load_and_only_warn():
    from pathlib import Path

    from biaskit import Prior

    golden = Prior.load(Path(__file__).parents[1] / "golden" / "prior-schema1.safetensors")
    assert "processor" not in golden.meta
    before = Prior(golden.planes, golden.layers, golden.visual_mass, {**golden.meta, "revision": "local-0123456789abcdef"})
    with pytest.warns(UserWarning, match="older kind of fingerprint") as caught:
        before.check_model(golden.model_type, "files-0123456789abcdef", golden.model, {"image_processor.size": 3})
    assert len(caught) == 1
