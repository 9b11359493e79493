"""Images scaled down until the unpruned model sees few enough tokens: counted by the processor, asked like any other cell."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from biaskit import validate
from biaskit.errors import BiaskitError
from biaskit.families.checkpoints.load import Loaded
from biaskit.families.checkpoints.tiny import tiny_model
from biaskit.families.downscale import Downscaler
from biaskit.pruners.notation import build, parse_method
from biaskit.tasks import open_task
from biaskit.validation.ask.methods import Grid


def scaler_of(name):
    model, processor, family = tiny_model(name)
    return Downscaler(family, processor, model.config)


@pytest.mark.parametrize(
    ("size", "counts"),
    [((640, 480), (391, 99, 48, 24, 15, 4)), ((640, 427), (345, 88, 40, 24, 15, 4)), ((336, 336), (144, 36, 16, 9, 4, 4))],
)
def test_counts_of_card_35_7(size, counts):
    scaler = scaler_of("qwen2-vl")
    assert tuple(scaler.tokens((size[0] // r, size[1] // r)) for r in (1, 2, 3, 4, 5, 10)) == counts


@pytest.mark.parametrize("n", [200, 96, 48, 15, 4])
def test_the_size_is_the_largest_that_fits(n):
    scaler, image = scaler_of("qwen2.5-vl"), Image.new("RGB", (448, 336))
    small = scaler.scaled(image, n)
    assert scaler.tokens(small.size) <= n and abs(small.width / small.height - 4 / 3) < 0.05
    if small.size == image.size:
        assert scaler.tokens(image.size) <= n
    else:
        larger = (small.width + 1, round((small.width + 1) * 336 / 448))
        assert scaler.tokens(larger) > n


@pytest.mark.parametrize("name", ["llava-1.5", "internvl-qwen2"])
def test_processors_that_scale_up_are_refused(name):
    with pytest.raises(BiaskitError, match="no size of a 448×336 picture has 60 visual tokens or fewer") as caught:
        scaler_of(name).scaled(Image.new("RGB", (448, 336)), 60)
    assert "pool" in caught.value.hint


def test_a_validation_asks_it_and_records_the_real_count(tmp_path):
    model, processor, family = tiny_model("qwen2.5-vl")
    loaded, task = Loaded(model, processor, family, "tiny", "test"), open_task("scenes-presence")
    validate(loaded, task, ["none", "downscale", "pool"], [0.5, 0.25], out=tmp_path, limit=2, progress=False, keep_indices=True)
    lines = [json.loads(line) for path in tmp_path.glob("*.jsonl") for line in path.read_text().splitlines()]
    records = [record for record in lines if record.get("pruner") == "downscale"]
    whole = {record["id"]: record["n_visual"] for record in lines if record.get("pruner") == "none"}
    assert sorted(record["cell"] for record in records) == ["downscale/r0.25"] * 2 + ["downscale/r0.5"] * 2
    for record in records:
        assert record["n_visual"] == whole[record["id"]] and record["budget"] == int(record["n_visual"] * record["retention"] + 0.5)
        assert 0 < record["n_kept"] <= record["budget"] and record["layer_tokens"] == [[0, record["n_kept"]]]
        assert record["mean_tokens"] == record["n_kept"] and "kept" not in record and record["parameters"] == {}


def test_the_question_whose_picture_stays_too_large_is_named(tmp_path):
    model, processor, family = tiny_model("internvl-qwen2")
    loaded, task = Loaded(model, processor, family, "tiny", "test"), open_task("scenes-presence")
    with pytest.raises(BiaskitError, match=r"downscale, scenes-presence/\d+: no size of") as caught:
        validate(loaded, task, ["none", "downscale"], [0.1], out=tmp_path, limit=2, progress=False)
    assert "start again without downscale" in caught.value.hint
    with pytest.warns(UserWarning, match="none .100.0 %., pool"):  # random weights answer nothing
        validate(loaded, task, ["none", "pool"], [0.1], out=tmp_path, limit=2, progress=False)


def test_what_is_refused():
    config = tiny_model("llava-1.5")[0].config
    with pytest.raises(BiaskitError, match="brings every image to one number of visual tokens"):
        Grid(["downscale"], [0.5]).cells(config)
    with pytest.raises(BiaskitError, match="downscale is not a pruner"):
        build(parse_method("downscale"), retention=0.5)
    with pytest.raises(BiaskitError, match="has no settings"):
        parse_method("downscale@k=2")
