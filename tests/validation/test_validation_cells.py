"""Labels of methods, and the grid that they make with retentions, sweeps and priors."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biaskit.errors import BiaskitError, PriorError
from biaskit.prior.value import PlaneStats, Prior
from biaskit.pruners.notation import Method, parse_method
from biaskit.validation.ask.methods import ABLATION, Grid, read_retention

CONFIG = SimpleNamespace(model_type="llava", get_text_config=lambda: SimpleNamespace(num_hidden_layers=9))


def prior(model_type="llava", layers=(0, 1, 2)):
    mean = np.ones((len(layers), 3, 3), dtype=np.float32)
    return Prior({"image": PlaneStats(mean)}, layers, np.ones(len(layers), dtype=np.float32), {"model_type": model_type})


def labels(*methods, retentions=(0.5,), **more):
    return [cell.label for cell in Grid(methods, retentions, **more).cells(CONFIG)]


values = st.one_of(st.integers(-99, 99), st.booleans(), st.floats(0, 1), st.sampled_from(["topk", "mis", "a_b"]))


@given(
    st.sampled_from(["fastv", "d2pruner", "random"]),
    st.dictionaries(st.sampled_from(["alpha", "layer", "mode", "eps"]), values, max_size=3),
    st.sampled_from([None, "prior", "task", "coco-1"]),
)
def test_a_label_says_all_and_reads_back(name, settings, prior_name):
    method = Method(name, settings, prior_name)
    assert parse_method(method.label) == method
    assert parse_method(f" {method.label} ").label == method.label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("fastv@theta=0.50@alpha=1", "fastv@alpha=1@theta=0.5"),
        ("d2pruner@tau=0.5@K=3+prior", "d2pruner@k=3@strength=0.5+prior"),
        ("fastv@eps=1e+5", "fastv@eps=100000.0"),
        ("fastv@eps=1e-5+task", "fastv@eps=1e-05+task"),
    ],
)
def test_labels_have_one_form(text, label):
    assert parse_method(text).label == label


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fastw", "unknown pruner 'fastw'"),
        ("fastv@k", "cannot read 'k'"),
        ("fastv@=3", "cannot read '=3'"),
        ("none+prior", "no settings"),
        ("none@k=2", "no settings"),
    ],
)
def test_what_is_no_label(text, message):
    with pytest.raises(BiaskitError, match=message):
        parse_method(text)


@pytest.mark.parametrize(("text", "value"), [("0.25", 0.25), (" 1/9 ", 1 / 9), ("1", 1.0), ("1e-2", 0.01)])
def test_retentions(text, value):
    assert read_retention(text) == value


@pytest.mark.parametrize("text", ["0", "-0.5", "1.01", "10%", "", "1/0", "nan", "inf"])
def test_what_is_no_retention(text):
    with pytest.raises(BiaskitError, match="retention"):
        read_retention(text)


def test_none_has_one_cell_and_the_others_one_a_retention():
    cells = Grid(["none", "fastv", "divprune"], [0.5, 1 / 9]).cells(CONFIG)
    assert [cell.label for cell in cells] == ["none", "fastv/r0.5", "fastv/r0.111111", "divprune/r0.5", "divprune/r0.111111"]
    assert cells[0].parameters == {} and cells[0].retention == 1.0 and cells[0].pruner.stages()[0].tokens(144) == 144
    assert cells[2].pruner.stages()[0].tokens(576) == 64
    assert cells[1].parameters["strength"] == 1.0 and cells[1].parameters["layer"] == 2


def test_the_same_settings_are_asked_once():
    assert labels("fastv", "fastv@k=2", "fastv@strength=1.0") == ["fastv/r0.5"]


def test_sweeps_vary_one_thing_at_a_time_in_all_methods_that_have_it():
    swept = {"alpha": [0, 0.5, 1.0], "K": [2, 3]}
    found = labels("none", "fastv", "divprune", "d2pruner", sweeps=swept, priors={"prior": prior()})
    assert found == [
        *("none", "fastv/r0.5", "divprune/r0.5", "d2pruner+prior/r0.5"),  # α = 1 and K = 2 are the defaults: there already
        *("d2pruner@alpha=0+prior/r0.5", "d2pruner@alpha=0.5+prior/r0.5"),
        *("fastv@k=3/r0.5", "d2pruner@k=3+prior/r0.5"),  # DivPrune acts before the language model: no K
    ]


def test_a_sweep_of_strength_ends_without_prior():
    cells = Grid(["fastv+prior"], [0.5], sweeps={"τ": [0, 0.5]}, priors={"prior": prior()}).cells(CONFIG)
    assert [(cell.label, cell.prior is not None) for cell in cells] == [
        ("fastv+prior/r0.5", True),
        ("fastv@strength=0+prior/r0.5", False),
        ("fastv@strength=0.5+prior/r0.5", True),
    ]


def test_ablation():
    cells = Grid([], [0.1], ablation=True, priors={"prior": prior()}).cells(CONFIG)
    assert [cell.method for cell in cells] == list(ABLATION)
    assert [cell.prior is not None for cell in cells] == [False, False, True, False, True]
    assert [cell.title for cell in cells][1:] == ["FastV", "FastV, debiased", "D2Pruner", "D2Pruner"]


def test_layer_and_preset_reach_those_that_have_them():
    grid = Grid(["none", "random", "fastv@k=4", "divprune", "d2pruner"], [0.5], 3, "localization", priors={"prior": prior(layers=(2, 3))})
    layers = {cell.name: cell.parameters.get("layer") for cell in grid.cells(CONFIG)}
    assert layers == {"none": None, "random": 3, "fastv": 4, "divprune": 0, "d2pruner": 3}
    own = Grid(["d2pruner@preset=localization"], [0.5], priors={"prior": prior(layers=(4,))}).cells(CONFIG)[0]
    assert own.parameters["alpha"] == 0.5 and own.parameters["layer"] == 5  # LLaVA-1.5's form of the preset
    assert own.label == "d2pruner@preset=localization+prior/r0.5"


def test_priors_by_name():
    both = {"neutral": prior(), "task": prior()}
    assert labels("fastv+neutral", "fastv+task", priors=both) == ["fastv+neutral/r0.5", "fastv+task/r0.5"]
    with pytest.raises(BiaskitError, match="does not say which prior"):
        labels("d2pruner", priors=both)
    with pytest.raises(BiaskitError, match="no prior 'prior'") as error:
        labels("fastv+prior", priors=both)
    assert error.value.hint == "did you mean +neutral or +task?"


@pytest.mark.parametrize(
    ("methods", "more", "message"),
    [
        ([], {}, "no methods"),
        ([" "], {}, "no methods"),
        (["fastv+prior"], {}, "there is no prior"),
        (["d2pruner"], {}, "needs a prior"),
        (["divprune+prior"], {"priors": {"prior": prior()}}, "does not debias"),
        (["fastv+prior"], {"priors": {"prior": prior("qwen2_5_vl")}}, "model type 'qwen2_5_vl'"),
        (["fastv@k=3+prior"], {"priors": {"prior": prior(layers=(0,))}}, "no layer 2"),
        (["fastv"], {"layer": 9}, "layers 0 … 8"),
        (["fastv"], {"sweeps": {"alfa": [1]}}, "no method here has the parameter 'alfa'"),
        (["fastv@alpha=1"], {}, "fastv has no parameter 'alpha'"),
        (["fastv@budget=3"], {}, "use --retention|does not say how many tokens"),
        (["fastv"], {"retentions": ()}, "no retentions"),
        (["fastv"], {"retentions": (0.0,)}, "retention is 0"),
        (["fastv"], {"sweeps": {"strength": [2]}}, "strength is 2"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_loaded(methods, more, message):
    with pytest.raises((BiaskitError, PriorError), match=message):
        labels(*methods, **more)
