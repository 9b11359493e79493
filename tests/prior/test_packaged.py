"""The priors that come with biaskit: as the index says, of the weights that come with it, and the laws those of the paper."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from packaged_priors import FOLDER, index_text, laws

from biaskit.families.checkpoints.catalog import resolve
from biaskit.families.checkpoints.fingerprint import fingerprint
from biaskit.images import open_source
from biaskit.prior.bias.recency import fit_recency, published_slopes
from biaskit.prior.store import load_prior

EMBEDDED = [f"{model}-{prompts}" for model in ("demo", "demo-qwen") for prompts in ("neutral", "tasks")]


def test_the_index_is_that_of_the_files():
    assert (FOLDER / "index.json").read_text(encoding="utf-8") == index_text(), "python tests/support/packaged_priors.py"
    assert {*json.loads(index_text())} == {*EMBEDDED, *laws()}


@pytest.mark.parametrize("name", EMBEDDED)
def test_an_embedded_model_s_prior_is_of_its_weights_and_scenes(name):
    prior = load_prior(name)
    model, _, prompts = name.rpartition("-")
    assert prior.meta["revision"] == fingerprint(Path(resolve(model).target)), "calibrate it again, see tests/support/packaged_priors.py"
    assert prior.meta["source_fingerprint"] == open_source("scenes-photo", n=1000, seed=1).fingerprint()
    assert prior.n_images == 1000 and prior.layers[0] == 0 and (len(json.loads(prior.meta["prompt"])) > 1) is (prompts == "tasks")


@pytest.mark.parametrize("name", laws())
def test_a_published_law_is_made_of_the_published_numbers(name):
    prior = load_prior(name)
    assert prior.to_bytes() == laws()[name].to_bytes() and "2508.17807" in prior.meta["source"]
    first, last = prior.map("image", 1).ravel()[[0, -1]]
    slopes = sorted(one.k for one in published_slopes() if one.method.lower() == name.rpartition("-")[2])
    if slopes:  # the median of ten: between the fifth and the sixth
        assert slopes[4] <= math.log(last / first) / 575 <= slopes[5]
        assert fit_recency(prior, 1).k.value == pytest.approx(math.log(last / first) / 575, rel=1e-5)
    else:
        assert last / first == pytest.approx(1 / 0.358239, rel=1e-5)
    np.testing.assert_allclose(prior.map("image", 1).mean(), 1, rtol=1e-6)
