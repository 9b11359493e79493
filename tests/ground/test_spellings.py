"""Python takes what the command line takes, and answers everything else with an error that helps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import biaskit
from biaskit.calibration.prompts import PROMPT, Prompts, read_prompts
from biaskit.errors import BiaskitError
from biaskit.families.checkpoints.load import Loaded
from biaskit.families.checkpoints.tiny import tiny_model
from biaskit.prior.layers import read_layers
from biaskit.validation.ask.arguments import read_priors, read_shares, words


@pytest.fixture(scope="module")
def unit():
    model, processor, family = tiny_model("llava-1.5")
    return Loaded(model, processor, family, "tiny", "x")


@pytest.fixture(scope="module")
def prior(unit, tmp_path_factory):
    path = tmp_path_factory.mktemp("priors") / "tiny.safetensors"
    biaskit.calibrate(unit, "generated", samples=3, workers=0, out=path)
    return path


def calibrated(unit, **options):
    return biaskit.calibrate(unit, "generated", samples=3, workers=0, **options)


def test_one_text_is_one_prompt(unit, tmp_path):
    one = calibrated(unit, prompts="Describe it.")
    assert json.loads(one.meta["prompt"]) == ["Describe it."]
    assert one.to_bytes() == calibrated(unit, prompts=["Describe it."]).to_bytes() == calibrated(unit, prompts=("Describe it.",)).to_bytes()
    (tmp_path / "prompts.txt").write_text("What?\nWhere?\n")
    for given in (tmp_path / "prompts.txt", str(tmp_path / "prompts.txt"), [tmp_path / "prompts.txt"]):
        assert json.loads(calibrated(unit, prompts=given).meta["prompt"]) == ["What?", "Where?"]
    assert calibrated(unit, prompts=()).meta["prompt"] == json.dumps([PROMPT])


@pytest.mark.parametrize("given", ["task:refcoco", ("task:refcoco",), ["task:refcoco"]])
def test_a_task_s_prompts_are_asked_not_its_name(unit, given):
    asked = json.loads(calibrated(unit, prompts=given).meta["prompt"])
    assert len(asked) > 20 and "task:refcoco" not in asked


def test_prompts_that_were_read_are_not_read_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("list").write_text("task:pope\nlist\n")
    found = read_prompts("list")
    assert found == ("task:pope", "list") and isinstance(found, Prompts)
    assert read_prompts(found) is found


@pytest.mark.parametrize("word", ["x" * 300, "图" * 100, "a/" * 3000, "null\0byte"])
def test_texts_that_cannot_be_file_names_are_texts(word):
    assert read_prompts(word) == (word,)


@pytest.mark.parametrize(
    ("given", "layers"),
    [
        (1, (1,)),
        ("1", (1,)),
        ("1-3", (1, 2, 3)),
        ("4,1", (1, 4)),
        ([4, 1], (1, 4)),
        (np.int64(2), (2,)),
        (range(2), (0, 1)),
        ("all", tuple(range(6))),
    ],
)
def test_layers(unit, given, layers):
    depth = unit.model.config.get_text_config().num_hidden_layers
    expected = tuple(range(depth)) if given == "all" else layers
    assert calibrated(unit, layers=given).layers == expected


@pytest.mark.parametrize("given", ["", "x", "1,", "3-1", "1.5", 1.5, [1.5], True, [None], "-1", "1-", "9" * 30, b"1"])
def test_layers_that_are_none(given):
    if given == b"1":
        assert read_layers(given) == (49,)  # bytes are whole numbers
        return
    with pytest.raises(BiaskitError, match="layers") as caught:
        read_layers(given)
    assert "0-7" in caught.value.hint


def test_paths_are_sources_and_models(unit, tmp_path):
    from biaskit.families.checkpoints.tiny import save_tiny
    from biaskit.images.generated import GeneratedSource

    (tmp_path / "pictures").mkdir()
    for number in range(3):
        GeneratedSource(3).load(number).save(tmp_path / "pictures" / f"{number}.png")
    save_tiny("llava-1.5", tmp_path / "model")
    prior = biaskit.calibrate(tmp_path / "model", tmp_path / "pictures", samples=2, workers=0, layers=1)
    assert (prior.model, prior.meta["source"], prior.n_images) == ("model", "folder", 2)
    assert biaskit.load_model(tmp_path / "model", dtype=torch.bfloat16, device=torch.device("cpu")).model.dtype == torch.bfloat16


def test_generated_pictures_are_made_in_any_number(unit):
    source = biaskit.open_source("generated", n=1003)
    assert biaskit.open_source(source) is source
    with pytest.raises(BiaskitError, match="1004 samples of a source with 1003 images"):
        biaskit.calibrate(unit, source, samples=1004)

    class Stop(Exception):
        pass

    def stop(progress):
        raise Stop(progress.total)

    with pytest.raises(Stop, match="1004"):
        biaskit.calibrate(unit, "generated", samples=1004, workers=0, report=stop)


def test_priors_and_pruners_by_name(unit, prior):
    from biaskit.families.checkpoints.tiny import tiny_inputs

    whole = biaskit.load_prior(prior)
    assert biaskit.load_prior(whole) is whole
    method = biaskit.get_pruner("fastv", retention=0.1)
    kept = []
    inputs = tiny_inputs(unit.family, unit.processor, unit.model.config)
    for model in (unit, unit.model, (unit.model, unit.processor)):
        for pruner in (method, "fastv"):
            for bias in (whole, prior, str(prior)):
                with torch.no_grad(), biaskit.prune(model, pruner, prior=bias) as pruning:
                    unit.model(**inputs)
                kept.append(pruning.samples[0].indices.tolist())
    assert len(kept[0]) == 58 and all(one == kept[0] for one in kept)


def test_several_priors_in_one_figure(prior):
    whole = biaskit.load_prior(prior)
    for given, count in ((prior, 1), (str(prior), 1), (whole, 1), ([prior, whole, str(prior)], 3)):
        figure = biaskit.heatmap(given, layers=1, planes="image", labels=[f"p{i}" for i in range(count)])
        shown = [text.get_text() for text in figure.texts]
        assert [name for name in shown if name in {"p0", "p1", "p2"}] == [f"p{i}" for i in range(count)]
    assert biaskit.heatmap(whole, layers="1,4", labels="mine").axes
    assert biaskit.bias_report(prior, layers="1").layers == biaskit.bias_report(whole, layers=[1]).layers


def test_methods_shares_and_priors_of_a_validation(prior):
    assert words("none, fastv+prior,") == ["none", "fastv+prior"] and words(["d2pruner@x=[1,2]"]) == ["d2pruner@x=[1,2]"]
    assert read_shares("0.5,1/4") == read_shares([0.5, 0.25]) == read_shares((np.float32(0.5), "0.25")) == [0.5, 0.25]
    assert read_shares(1) == [1.0]
    assert list(read_priors(prior)) == list(read_priors([str(prior)])) == ["prior"]
    assert list(read_priors({"a": prior, "b": str(prior)})) == list(read_priors([f"a={prior}", f"b={prior}"])) == ["a", "b"]
    with pytest.raises(BiaskitError, match="two priors called prior"):
        read_priors([prior, str(prior)])


def test_a_validation_takes_them(unit, prior, tmp_path):
    options = {"limit": 2, "workers": 0}
    one = biaskit.validate(unit, "scenes-where", "none,fastv+prior", "0.5", out=tmp_path / "one", prior=prior, **options)
    two = biaskit.validate(
        (unit.model, unit.processor),
        ["scenes-where"],
        ["none", "fastv+prior"],
        0.5,
        out=str(tmp_path / "two"),
        prior=biaskit.load_prior(prior),
        **options,
    )
    assert one.scores == two.scores and len(one.scores) == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda unit: biaskit.calibrate(3, "generated"), "int 3 is not a model"),
        (lambda unit: biaskit.calibrate(unit, 3), "3 is not an image source"),
        (lambda unit: biaskit.calibrate(unit, "generated", prompts=[3]), "a prompt is 3, not a text"),
        (lambda unit: biaskit.calibrate(unit, "generated", prompts=3), "prompts are 3, not texts"),
        (lambda unit: biaskit.calibrate(unit, "generated", batch_size=0), "batch_size is 0"),
        (lambda unit: biaskit.calibrate(unit, "generated", groups=0), "groups is 0"),
        (lambda unit: biaskit.calibrate(unit, "generated", workers=-1), "workers is -1"),
        (lambda unit: biaskit.calibrate(unit.model, "generated"), "comes without its processor"),
        (lambda unit: biaskit.load_model(3), "name is 3, not a text or a path"),
        (lambda unit: biaskit.load_prior(3), "3 is not a prior"),
        (lambda unit: biaskit.heatmap(3), "3 is not a prior"),
        (lambda unit: biaskit.heatmap([3]), "3 is not a prior"),
        (lambda unit: biaskit.bias_report(None), "None is not a prior"),
        (lambda unit: biaskit.prune("llava-1.5", "fastv").__enter__(), "'llava-1.5' is not a model in memory"),
        (lambda unit: biaskit.prune(unit, 3).__enter__(), "3 is not a pruner"),
        (lambda unit: biaskit.prune(unit, "fastw").__enter__(), "unknown pruner 'fastw'"),
        (lambda unit: biaskit.prune(unit, type(biaskit.get_pruner("fastv", retention=0.5))).__enter__(), "is not a pruner"),
        (lambda unit: biaskit.prune(unit, "fastv", prior=3).__enter__(), "3 is not a prior"),
        (lambda unit: biaskit.validate(unit, 3, "none", out="x"), "3 is not a task"),
        (lambda unit: biaskit.validate(unit, [3], "none", out="x"), "3 is not a task"),
        (lambda unit: biaskit.validate(unit, "pope", 3, out="x"), "3 is not a name"),
        (lambda unit: biaskit.validate(unit, "pope", [3], out="x"), "3 is not a name"),
        (lambda unit: biaskit.validate(unit, "pope", "none", "half", out="x"), "retention 'half' is not a number"),
        (lambda unit: biaskit.validate(unit, "pope", "none", [None], out="x"), "retention 'None' is not a number"),
        (lambda unit: biaskit.validate(unit, "pope", "none", prior=3, out="x"), "3 is not a prior"),
        (lambda unit: biaskit.calibrate(unit, "generated", out=3), "out is 3, not a text or a path or None"),
        (lambda unit: biaskit.validate(unit, "pope", "none", out=3), "out is 3, not a text or a path"),
        (lambda unit: biaskit.get_pruner(3), "name is 3, not a text"),
        (lambda unit: biaskit.open_source(None), "None is not an image source"),
    ],
)
def test_nothing_is_a_raw_type_error(unit, call, message):
    with pytest.raises(BiaskitError) as caught:
        call(unit)
    assert message in caught.value.message
    assert caught.value.hint
