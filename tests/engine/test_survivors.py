"""What methods keep at many settings, from one run of the model for each K, is what `prune` keeps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from biaskit.engine.prune import prune
from biaskit.engine.survivors import Contender, survivors
from biaskit.families.checkpoints.load import Loaded
from biaskit.families.checkpoints.tiny import tiny_model
from biaskit.prior.value import PlaneStats, Prior
from biaskit.pruners import get_pruner

METHODS = ("fastv", "d2pruner", "random", "divprune", "pyramiddrop")


@pytest.mark.parametrize(("name", "methods"), [("llava-next", (*METHODS, "visionzip")), ("qwen2.5-vl", METHODS)])
def test_kept_tokens_are_those_of_prune(name, methods):
    model, processor, family = tiny_model(name, layers=4)
    pixels = np.random.default_rng(0).integers(0, 255, (224, 280, 3), dtype=np.uint8)
    prepared = family.prepare(processor, model.config, [[Image.fromarray(pixels)]], ["what?"])
    layout = prepared.layouts[0]
    stats = {}
    for plane in layout.planes:
        stats[plane.name] = PlaneStats(np.random.default_rng(1).gamma(9, 0.1, (4, plane.rows, plane.cols)).astype(np.float32))
    prior = Prior(stats, (0, 1, 2, 3), np.full(4, 0.5, np.float32), {"model_type": model.config.model_type})
    loaded = Loaded(model, processor, family, "tiny", "")
    more = {"pyramiddrop": {"layer": 1, "every": 1}, "d2pruner": {"layer": 2}}
    pruners = [get_pruner(method, retention=0.1, model_type=model.config.model_type, **more.get(method, {})) for method in methods]
    wanted = [Contender(pruner.name, pruner, prior if pruner.debiases else None) for pruner in pruners]
    found, attention = survivors(loaded, prepared.inputs, wanted, (0.2, 0.05), (0.0, 0.5, 1.0), seed=3)
    assert {len(attention[k]) for k in attention} == {len(layout)}
    assert len(found[0]) == 6 and len(found[2]) == 2, "strength counts where there is a prior to be strong with"
    for one, kept in zip(wanted, found, strict=True):
        for (share, strength), indices in list(kept.items())[:: 4 if len(kept) > 2 else 1]:
            pruner = replace(one.pruner, retention=share, **({} if strength is None else {"strength": strength}))
            used = one.prior if pruner.debiases else None
            with torch.inference_mode(), prune(loaded, pruner, prior=used, seed=3) as pruning:
                model.generate(**prepared.inputs, max_new_tokens=1, do_sample=False)
            assert np.array_equal(indices, pruning.samples[0].indices.numpy()), (one.label, share, strength)
    assert not np.array_equal(found[0][0.2, 0.0], found[0][0.2, 1.0]), "the prior makes a difference"
