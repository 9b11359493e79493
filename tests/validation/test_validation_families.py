"""Validation on tiny random checkpoints of the real classes: their numbers mean nothing; every record must parse, score and resume."""

from __future__ import annotations

import json

import pytest
import torch
from cases import SPECIAL_IDS, batch, generate
from PIL import Image
from reference import Top, model_of

from biaskit import validate
from biaskit.engine.image_encoder import encode_once
from biaskit.engine.prune import prune
from biaskit.families.checkpoints.load import load_model
from biaskit.families.checkpoints.tiny import TINY
from biaskit.prior.value import flat_prior
from biaskit.pruners.divprune import DivPrune
from biaskit.pruners.readings import EMBEDS, Reading
from biaskit.tasks import open_task
from biaskit.validation.ask.methods import Grid
from biaskit.validation.ask.questions import see
from biaskit.validation.results.directory import read_results

FAMILIES = ["llava-1.5", "llava-next", "qwen2.5-vl", "internvl-qwen2"]


@pytest.mark.parametrize("name", TINY)
def test_images_are_encoded_once_and_nothing_changes(name):
    model = model_of(name)[0]
    inputs, other = batch(name, "ragged"), batch(name, "single")
    with torch.no_grad(), prune(model, Top(layer=2)):
        expected = generate(model, inputs, max_new_tokens=2)[2]
        alone = generate(model, other, max_new_tokens=2)[2]
    whole = generate(model, inputs, max_new_tokens=2)[2]
    seen = []
    base = model.base_model
    tower = next(getattr(base, part) for part in ("visual", "vision_tower", "vision_model") if hasattr(base, part))
    handle = tower.register_forward_hook(lambda *_: seen.append(1))
    with encode_once(model):
        assert torch.equal(generate(model, inputs, max_new_tokens=2)[2], whole)
        first = len(seen)
        for _ in range(2):
            copied = {key: value.clone() for key, value in inputs.items()}
            with prune(model, Top(layer=2)):
                assert torch.equal(generate(model, copied, max_new_tokens=2)[2], expected)
        assert len(seen) == first > 0, "the tower has not run again"
        with prune(model, Top(layer=2)):
            assert torch.equal(generate(model, other, max_new_tokens=2)[2], alone)
        assert len(seen) > first
    handle.remove()
    assert "get_image_features" not in vars(model.base_model), "the model has its own method again"
    assert torch.equal(generate(model, inputs, max_new_tokens=2)[2], whole)


def tiny(checkpoint, name):
    loaded = load_model(str(checkpoint(name)), device="cpu")
    loaded.model.generation_config.suppress_tokens = SPECIAL_IDS  # a random model may answer with an image placeholder
    return loaded


@pytest.mark.parametrize("name", TINY)
def test_how_the_model_sees_an_image(name):
    """Sizes and parts of a picture that is not square, against what the processors are known to do."""
    model, processor, family = model_of(name)
    prepared = family.prepare(processor, model.config, [[Image.new("RGB", (640, 480))]], ["hi"])
    seen = see(family, model.config, "short", prepared.layouts[0], (480, 640))
    assert seen.size == (480, 640) and seen.boxes == family.box_convention
    if name.startswith(("qwen", "glm")):
        patch = model.config.vision_config.patch_size
        _, rows, cols = prepared.inputs["image_grid_thw"][0].tolist()
        assert seen.input == (rows * patch, cols * patch)
    elif name == "llava-1.5":
        assert seen.input == (336, 336)
    elif name in ("llava-next", "llava-next-video"):  # the best of the pinpoints is 224 × 224, of which 168 rows are not padding
        assert seen.input == (168, 224)
    elif name == "llava-onevision":  # its canvas is shrunk to 9 tiles
        assert seen.input[1] / seen.input[0] == pytest.approx(4 / 3, rel=0.02)
    else:  # whole tiles, which stretch the picture
        tile = model.config.vision_config.image_size
        tile = tile[0] if isinstance(tile, list | tuple) else tile
        assert seen.input[0] % tile == seen.input[1] % tile == 0 < seen.input[0]
        stretched = {"idefics3": 1.0, "smolvlm": 1.0, "gemma3": 1.0}  # to two tiles a side; to one square
        assert seen.input[1] / seen.input[0] == pytest.approx(stretched.get(name, 4 / 3), rel=0.2)
    assert seen.part == pytest.approx((0, 0.125, 1, 0.875) if name == "llava-1.5" else (0, 0, 1, 1))


def test_warnings_are_said_once(checkpoint, tmp_path):
    loaded, said = tiny(checkpoint, "qwen2.5-vl"), []
    validate(loaded, "scenes-attribute", ["divprune"], [0.5, 0.1], out=tmp_path, limit=2, batch_size=1, say=said.append)
    assert len(said) == len(set(said)) == 2, "and that random weights answer what cannot be read"
    assert sum("DivPrune renumbers positions" in line for line in said) == 1


def test_methods_that_read_the_tower_share_one_pass_of_it(checkpoint, tmp_path, monkeypatch):
    """Readings are kept beside the features: the tower runs once a batch whichever cells read it."""
    loaded, ran, seen = tiny(checkpoint, "llava-1.5"), [], []
    reading = Reading("attention", "tower", layer=-2, queries="cls")
    choose_many = DivPrune.choose_many

    def looks(self, signals, budget):
        seen.extend(sample[reading].sum().item() for sample in signals)
        return choose_many(self, signals, budget)

    monkeypatch.setattr(DivPrune, "needs", frozenset({EMBEDS, reading}))
    monkeypatch.setattr(DivPrune, "choose_many", looks)
    loaded.model.base_model.vision_tower.register_forward_hook(lambda *_: ran.append(1))
    validate(loaded, "scenes-attribute", ["none", "fastv", "divprune"], [0.5, 0.1], out=tmp_path, limit=4, batch_size=2)
    assert len(ran) == 2 and len(seen) == 8
    assert all(0 < mass < 1 for mass in seen) and sorted(seen)[::2] == sorted(seen)[1::2], "both retentions see the same"


@pytest.mark.parametrize("name", FAMILIES)
def test_pope_and_referring_expressions_of_real_images(checkpoint, coco_sample, tmp_path, name):
    loaded = tiny(checkpoint, name)
    tasks = [
        open_task("pope:adversarial", coco_sample / "annotations" / "pope.jsonl"),
        open_task("refcoco", coco_sample / "annotations" / "referring_expressions.json"),
    ]
    for task in tasks:
        task.max_new_tokens = 2
    sizes = {name: size for name, size in loaded.family.canonical(loaded.model.config).items() if name != "cls"}
    grid = Grid(
        ["none", "fastv+prior", "d2pruner"],
        [0.1],
        priors={"prior": flat_prior(sizes, range(6), {"model_type": loaded.model.config.model_type})},
    )
    out, done = tmp_path / "out", []

    def stop(progress):
        if progress.done == stop.at:
            raise KeyboardInterrupt

    for stop.at in (2, 8):
        with pytest.raises(KeyboardInterrupt):
            validate(loaded, tasks, grid, out=out, limit=2, batch_size=2, report=stop)
        done.append(len(list(read_results(out))))
    found = validate(loaded, tasks, grid, out=out, limit=2, batch_size=2)
    assert done == [2, 8] and found.asked == 2 * 2 * 3 - 8
    validate(loaded, tasks, grid, out=tmp_path / "whole", limit=2, batch_size=2)
    assert (out / "results.jsonl").read_bytes() == (tmp_path / "whole" / "results.jsonl").read_bytes()
    by_name = {task.name: task for task in tasks}
    for record in read_results(out):
        task = by_name[record["task"]]
        assert set(record["scores"]) >= {task.metric, "parsed"} and all(0 <= value <= 1 for value in record["scores"].values())
        assert record["n_kept"] == (record["n_visual"] if record["pruner"] == "none" else record["budget"]) and record["n_text"] > 5
        assert record["image"].endswith(".jpg") and record["tags"]
    assert {(task, cell) for task, cell in found.scores} == {
        (task, cell) for task in by_name for cell in ("none", "fastv+prior/r0.1", "d2pruner+prior/r0.1")
    }
    assert json.loads((out / "run.json").read_text())["model"]["model_type"] == loaded.model.config.model_type
