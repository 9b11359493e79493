"""Studies of transfer on tiny random models: conditions, priors that are kept, comparisons, scores with each prior."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

from biaskit.calibration.prompts import PROMPT
from biaskit.cli.study import app
from biaskit.errors import BiaskitError
from biaskit.families.checkpoints.load import load_model
from biaskit.families.checkpoints.tiny import save_tiny
from biaskit.prior.bias import correlation
from biaskit.prior.value import PlaneStats, Prior
from biaskit.tasks.base import Opening
from biaskit.validation.studies.conditions import Condition, adopt, conditions, prior_of
from biaskit.validation.studies.transfer import Asking, _checked, transfer
from biaskit.validation.studies.transfer_figure import draw_transfer


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return load_model(str(save_tiny("qwen2.5-vl", tmp_path_factory.mktemp("tiny") / "qwen", layers=4)))


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    return load_model(str(save_tiny("llava-1.5", tmp_path_factory.mktemp("tiny") / "llava", layers=3)))


def where(n=6):
    from biaskit.tasks.scenes import ScenesWhere

    return ScenesWhere.open(Opening("scenes-where", n=n))


# --- conditions ----------------------------------------------------------------------------------------------------------------------


def test_one_thing_varies_at_a_time():
    axis, group = conditions(["demo"], ["scenes"], [PROMPT, "task:scenes-where", "Is it?"])
    assert axis == "prompt"
    assert [c.label for c in group] == ["neutral", "scenes-where", "Is-it"]
    assert {(c.model, c.data, c.size) for c in group} == {("demo", "scenes", None)}
    axis, group = conditions(["demo"], ["scenes"], sizes=[None, (336, 448)])
    assert (axis, [c.label for c in group]) == ("size", ["unresized", "s336x448"])
    assert [c.label for c in conditions(["a/7b", "b/7b"], ["scenes"])[1]] == ["c7b-1", "c7b-2"]
    assert [c.label for c in conditions(["demo"], ["a/coco", "mean:a/coco", "mean:scenes"])[1]] == ["coco", "mean-coco", "mean-scenes"]
    with pytest.raises(BiaskitError, match="nothing varies"):
        conditions(["demo"], ["scenes"])
    with pytest.raises(BiaskitError, match="prompt and data vary"):
        conditions(["demo"], ["scenes", "grey"], ["a", "b"])
    with pytest.raises(BiaskitError, match="the same data"):
        conditions(["demo"], ["grey", "grey"])


def test_a_prior_is_calibrated_once_and_not_taken_for_another(qwen, tmp_path):
    one = Condition("one", "tiny", "noise")
    first = prior_of(one, qwen, tmp_path, samples=8, batch_size=4)
    stamp = (tmp_path / "one.safetensors").stat().st_mtime_ns
    assert prior_of(one, qwen, tmp_path, samples=8, batch_size=4).to_bytes() == first.to_bytes()
    assert (tmp_path / "one.safetensors").stat().st_mtime_ns == stamp
    assert len(first.planes["image"].group_count) == 8
    with pytest.raises(BiaskitError, match="calibrated with another source_fingerprint and prompt"):
        prior_of(Condition("one", "tiny", "grey", "hi"), qwen, tmp_path, samples=8, batch_size=4)
    mean = prior_of(Condition("mean", "tiny", "mean:noise"), qwen, tmp_path, samples=8, batch_size=4)
    assert mean.meta["source"] == "grey"


def test_a_prior_of_another_depth_is_taken_over_by_relative_depth():
    def prior(depth, model):
        maps = np.stack([np.full((2, 2), layer + 1, np.float32) for layer in range(depth)])
        return Prior({"image": PlaneStats(maps)}, tuple(range(depth)), np.full(depth, 0.5, np.float32), {"model_type": model})

    taken = adopt(prior(9, "big"), prior(5, "small"))
    assert taken.layers == (0, 1, 2, 3, 4)
    assert taken.planes["image"].mean[:, 0, 0].tolist() == [1, 3, 5, 7, 9]
    assert taken.model_type == "small"


# --- transfer ------------------------------------------------------------------------------------------------------------------------


def test_resolutions_are_compared_and_each_prior_is_tried(qwen, tmp_path):
    axis, group = conditions(["tiny"], ["generated"], sizes=[(112, 112), (168, 112), (112, 224)])
    asking = Asking([where()], 6, "fastv", 0.25, 2)
    arguments = {"samples": 12, "batch_size": 6, "asking": asking, "loaded": {"tiny": qwen}}
    study = transfer(axis, group, tmp_path / "study", **arguments)
    assert len(study.maps) == 3 * 4  # pairs × layers
    priors = {c.label: Prior.load(tmp_path / "study" / f"{c.label}.safetensors") for c in group}
    row = next(r for r in study.maps if (r["a"], r["b"], r["layer"]) == ("s112x112", "s112x224", 2))
    maps = [priors[label].map("image", 2).ravel() for label in ("s112x112", "s112x224")]
    assert row["pearson"] == pytest.approx(float(correlation.pearson(*maps)))
    assert 0 <= row["ceiling"] <= 1
    assert [s["prior"] for s in study.scores] == ["unpruned", "no prior", *priors]
    lines = [json.loads(line) for line in (tmp_path / "study/answers/all/results.jsonl").read_text().splitlines()]
    for found in study.scores:
        cell = {"unpruned": "none", "no prior": "fastv/r0.25"}.get(found["prior"], f"fastv+{found['prior']}/r0.25")
        mine = [line["scores"]["iou50"] for line in lines if line["cell"] == cell]
        assert (len(mine), found["n"]) == (6, 6)
        assert found["score"] == pytest.approx(np.mean(mine))
    assert transfer(axis, group, tmp_path / "study", **arguments).to_json() == study.to_json()
    json.dumps(study.to_json(), allow_nan=False)
    figure = draw_transfer(study, tmp_path / "study.png")
    assert len(figure.axes) == 2
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == [
        "s112x112 · s168x112", "s112x112 · s112x224", "s168x112 · s112x224"
    ]  # fmt: skip


def test_models_of_different_depth_swap_their_priors(qwen, llava, tmp_path):
    axis, group = conditions(["qwen", "llava"], ["noise"])
    asking = Asking([where(4)], 4, "d2pruner", 0.25, 1)
    study = transfer(axis, group, tmp_path, samples=8, batch_size=4, asking=asking, loaded={"qwen": qwen, "llava": llava})
    assert [(row["layer"], row["layer_b"]) for row in study.maps] == [(0, 0), (1, 1), (2, 1), (3, 2)]
    assert {(s["model_of"], s["prior"]) for s in study.scores} == {
        (model, prior) for model in ("qwen", "llava") for prior in ("unpruned", "no prior", "qwen", "llava")
    }
    assert all(s["gain"] == 0 for s in study.scores if s["prior"] == "no prior")


@pytest.mark.parametrize(
    ("pruner", "k", "layers", "message"),
    [
        ("fastv", 2, (0, 2), "fastv at K = 2 reads layer 1, which is not among"),
        ("pyramiddrop", 1, (1, 3), "pyramiddrop at K = 1 reads layers 9, 17, which are not among"),
        ("fastv", 2, (1,), None),
    ],
)
def test_layers_are_those_that_the_method_reads(pruner, k, layers, message):
    """FastV reads the attention of layer K − 1; PyramidDrop that of K, at three stages. Refused before anything is calibrated."""
    asking, (_, group) = Asking([where(2)], 2, pruner, 0.25, k), conditions(["tiny"], ["grey", "noise"])
    if message is None:
        assert _checked(asking, group, 4, 0, layers).pruner == pruner
        return
    with pytest.raises(BiaskitError, match=message):
        _checked(asking, group, 4, 0, layers)


def test_a_reference_is_compared_with_all_others(qwen, tmp_path):
    axis, group = conditions(["tiny"], ["noise", "grey", "colours"])
    study = transfer(axis, group, tmp_path, samples=8, batch_size=8, layers=(1,), reference="noise", loaded={"tiny": qwen})
    assert [(row["a"], row["b"], row["layer"]) for row in study.maps] == [("noise", "grey", 1), ("noise", "colours", 1)]
    assert study.scores == []
    assert study.to_json()["asking"] is None


# --- the command ---------------------------------------------------------------------------------------------------------------------


def run(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_the_commands(tmp_path):
    same = ("-m", "demo", "--layers", "0,1", "--batch-size", "8", "-n", "16")
    result = run("enough", "-o", tmp_path / "enough", *same, "-d", "scenes", "--json")
    data = json.loads(result.stdout)
    assert data == json.loads((tmp_path / "enough/study.json").read_text())
    assert {row["n"] for row in data["rows"]} == {10, 16}
    assert set(data["needed"]) == {"0", "1"}
    assert (tmp_path / "enough/study.png").read_bytes()[:4] == b"\x89PNG"
    blank = (
        "content-free",
        "-o",
        tmp_path / "blank",
        *same,
        "-d",
        "scenes",
        "--blank",
        "grey,mean",
        "--task",
        "scenes-where",
        "--questions",
        "4",
    )
    result = run(*blank)
    assert "scores, fastv at K = 1, 25% of the visual tokens kept" in result.stdout
    assert "mean-scenes" in result.stdout
    data = json.loads(run(*blank, "--json").stdout)
    assert data["study"] == "content-free"
    assert [s["prior"] for s in data["scores"]] == ["unpruned", "no prior", "scenes", "grey", "mean-scenes"]
    assert all(math.isfinite(s["gain_half_width"]) for s in data["scores"])
    assert run("transfer", "-o", tmp_path / "x", "-m", "demo", "-d", "scenes", "--image-size", "small").exit_code == 2
    with pytest.raises(BiaskitError, match="nothing varies"):
        run("transfer", "-o", tmp_path / "x", "-m", "demo", "-d", "scenes")


def test_slips_show_before_the_first_calibration(tmp_path):
    same = ("transfer", "-o", tmp_path / "x", "-m", "demo", "-n", "16", "-d", "scenes")
    for words, message in (
        (("-d", "gray"), "unknown image source 'gray'"),
        (("-d", "grey", "--task", "scenes-were"), "unknown task 'scenes-were'"),
        (("-d", "grey", "--task", "scenes-where", "--pruner", "fastw"), "unknown pruner 'fastw'"),
        (("-d", "grey", "--task", "scenes-where", "--layers", "1"), "layer 0, which is not among"),
    ):
        with pytest.raises(BiaskitError, match=message):
            run(*same, *words)
    assert list((tmp_path / "x").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(BiaskitError, match="cannot be created"):
        run("transfer", "-o", tmp_path / "file", "-m", "demo", "-d", "scenes", "-d", "grey")


def test_another_retention_in_the_same_folder_is_another_study(tmp_path):
    """The answers of both stay in the folder, and are not mixed."""
    words = (
        "-m",
        "demo",
        "-n",
        "16",
        "-d",
        "scenes",
        "-d",
        "grey",
        "--layers",
        "0",
        "--task",
        "scenes-where",
        "--questions",
        "4",
        "--json",
    )
    run("transfer", "-o", tmp_path / "both", *words, "--retention", "0.02")
    again = json.loads(run("transfer", "-o", tmp_path / "both", *words, "--retention", "1").stdout)
    scores = {row["prior"]: row["score"] for row in again["scores"]}
    assert set(scores) == {"unpruned", "no prior", "scenes", "grey"} and len(set(scores.values())) == 1, "retention 1 prunes nothing"
    low = json.loads(run("transfer", "-o", tmp_path / "both", *words, "--retention", "0.02").stdout)
    assert {row["prior"]: row["score"] for row in low["scores"]}["no prior"] < scores["unpruned"]
