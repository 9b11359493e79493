"""Arrays, priors and scorers' weights of others. What has a checksum is read as it was, or not at all."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from mutations import mutated
from safetensors.torch import save
from sandbox import times

from biaskit.prior.exchange import import_prior
from biaskit.prior.value import PlaneStats, Prior
from biaskit.pruners.selector_weights import read_selector

BIAS = np.arange(1.0, 13.0).reshape(3, 4)


def written(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "npy":
        np.save(buffer, BIAS)
    elif kind == "npz":
        np.savez(buffer, a=BIAS)
    elif kind == "npz packed":
        np.savez_compressed(buffer, a=BIAS)
    elif kind == "pt":
        torch.save(torch.from_numpy(BIAS), buffer)
    else:
        torch.save({"a": torch.from_numpy(BIAS).to(torch.bfloat16)}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["npy", "npz", "npz packed", "pt", "pt dict"])
def test_imports(kind, survives, random, tmp_path):
    path = tmp_path / f"map.{kind.split()[0]}"

    def read(data):
        path.write_bytes(data)
        values = import_prior(path, as_="bias", model_type="llava", layer=1).map("image", 1)
        if kind != "npy":  # a plain array has no checksum: who changes a value changes the map
            np.testing.assert_allclose(values, BIAS / BIAS.mean(), rtol=1e-6)

    data = written(kind)
    inputs = [("whole", data), *((f"{kind} {k}", mutated(data, random)) for k in range(times(80, 500)))]
    assert survives("arrays mutated", read, inputs).read


def test_priors(survives, random, tmp_path):
    stats = PlaneStats((BIAS / BIAS.mean())[None].astype(np.float32), count=3)
    data = Prior({"image": stats}, (1,), np.ones(1, dtype=np.float32) / 2, {"model_type": "llava", "n_images": "3"}).to_bytes()

    def read(given):
        (tmp_path / "x.safetensors").write_bytes(given)
        assert np.isfinite(Prior.load(tmp_path / "x.safetensors").map("image", 1)).all()

    inputs = [("whole", data), *((f"prior {k}", mutated(data, random)) for k in range(times(150, 900)))]
    assert survives("priors mutated", read, inputs).read


def test_scorers(survives, random, tmp_path):
    shapes = {"q_proj.weight": (4, 6), "q_proj.bias": (4,), "k_proj.weight": (4, 6), "k_proj.bias": (4,)}
    data = save({name: torch.ones(shape) for name, shape in shapes.items()})

    def read(given):
        (tmp_path / "x.safetensors").write_bytes(given)
        selector = read_selector(tmp_path / "x.safetensors")
        assert selector.query[0].shape == selector.key[0].shape and selector.query[0].isfinite().all()

    inputs = [("whole", data), *((f"scorer {k}", mutated(data, random)) for k in range(times(150, 900)))]
    assert survives("scorers mutated", read, inputs).read
