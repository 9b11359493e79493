"""Import of other tools' maps as priors: shapes, weights, hostile files."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biaskit.errors import PriorError
from biaskit.prior.bias.correlation import spearman
from biaskit.prior.exchange import import_prior
from biaskit.prior.value import Prior

BIAS = np.arange(1.0, 13.0).reshape(3, 4)


def bring(path: Path, as_: Any = "bias", layer: Any = 1, **more: Any) -> Prior:
    return import_prior(path, as_=as_, model_type="llava", layer=layer, **more)


def npy(tmp_path: Path, values: Any, name: str = "map.npy") -> Path:
    np.save(tmp_path / name, values)
    return tmp_path / name


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int64, np.uint8])
@pytest.mark.parametrize("shape", [(12,), (3, 4), (1, 12), (1, 3, 4)])
def test_bias_shapes_and_dtypes(tmp_path: Path, dtype: type, shape: tuple[int, ...]) -> None:
    prior = bring(npy(tmp_path, BIAS.astype(dtype).reshape(shape)), rows=3, cols=4)
    assert list(prior.planes) == ["image"]
    assert prior.layers == (1,)
    np.testing.assert_allclose(prior.map("image", 1), BIAS / 6.5, rtol=1e-6)
    np.testing.assert_array_equal(prior.visual_mass, [1])


@pytest.mark.parametrize("layer", ["1-2", "1,2", [1, 2], np.array([1, 2])])
def test_layers_as_everywhere(tmp_path: Path, layer: Any) -> None:
    assert bring(npy(tmp_path, np.ones((2, 3, 4))), layer=layer).layers == (1, 2)


@pytest.mark.parametrize("layer", [None, "all"])
def test_layers_must_be_named(tmp_path: Path, layer: Any) -> None:
    with pytest.raises(PriorError, match="does not say which layers"):
        bring(npy(tmp_path, np.ones((2, 3, 4))), layer=layer)


def test_weight_is_the_reciprocal(tmp_path: Path) -> None:
    prior = bring(npy(tmp_path, 7 / BIAS), "weight")
    np.testing.assert_allclose(prior.map("image", 1), BIAS / 6.5, rtol=1e-6)


def test_meta(tmp_path: Path) -> None:
    path = npy(tmp_path, BIAS)
    prior = bring(path, "weight", model="org/model", note="from the appendix", plane="base")
    assert list(prior.planes) == ["base"]
    assert (prior.model, prior.model_type, prior.n_images, prior.planes["base"].count) == ("org/model", "llava", 0, 0)
    assert prior.meta["kind"] == "imported"
    assert prior.meta["source"] == "map.npy"
    assert prior.meta["source_fingerprint"] == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    assert prior.meta["note"] == "from the appendix"
    assert "1 / weight" in prior.meta["reduction"]
    assert "revision" not in prior.meta
    assert Prior.from_bytes(prior.to_bytes()).to_bytes() == prior.to_bytes()


@pytest.mark.parametrize("shape", [(2, 12), (2, 3, 4)])
def test_several_layers_are_normalised_one_by_one(tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = np.stack([BIAS, 100 * BIAS[::-1]]).reshape(shape)
    prior = bring(npy(tmp_path, values), layer=[1, 4], rows=3, cols=4)
    np.testing.assert_allclose(prior.map("image", 1), BIAS / 6.5, rtol=1e-6)
    np.testing.assert_allclose(prior.map("image", 4), BIAS[::-1] / 6.5, rtol=1e-6)


def test_square_and_one_side(tmp_path: Path) -> None:
    assert bring(npy(tmp_path, np.ones(9))).planes["image"].mean.shape == (1, 3, 3)
    assert bring(npy(tmp_path, np.ones(12)), rows=2).planes["image"].mean.shape == (1, 2, 6)
    assert bring(npy(tmp_path, np.ones(12)), cols=2).planes["image"].mean.shape == (1, 6, 2)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-300, 1e300), min_size=4, max_size=4), st.sampled_from(["bias", "weight"]))
def test_scale_does_not_overflow(tmp_path_factory: pytest.TempPathFactory, values: list[float], as_: str) -> None:
    prior = bring(npy(tmp_path_factory.getbasetemp(), np.array(values)), as_)
    assert prior.map("image", 1).mean() == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize(
    ("values", "more", "message"),
    [
        (np.ones(12), {}, "12 values, which is not a square"),
        (np.ones(12), {"rows": 5}, "12 values, which do not fill 5 rows x 2 cols"),
        (np.ones(12), {"rows": 13}, "do not fill 13 rows"),
        (np.ones(16), {"rows": 3, "cols": 4}, "16 values, which do not fill 3 rows x 4 cols"),
        (BIAS, {"rows": 4}, r"shape \[3, 4\], which is not 4 rows x 4 cols"),
        (np.ones((5, 12)), {"rows": 3, "cols": 4}, r"shape \[5, 12\], which is not 3 rows x 4 cols"),
        (np.ones((2, 12)), {"layer": [1, 2, 3]}, "but 3 layers are named"),
        (np.ones(3), {"layer": [1, 2, 3]}, "which is not a map"),
        (np.ones((2, 2, 3, 4)), {}, "which is not a map"),
        (np.float64(1), {}, "which is not a map"),
        (np.ones((0,)), {}, "which is not a map"),
        (BIAS, {"layer": -1}, "not ascending"),
        (np.ones((2, 4)), {"layer": [4, 1]}, "not ascending"),
        (BIAS, {"plane": "a.b"}, "plane name"),
        (BIAS, {"key": "bias"}, "single array, there is no 'bias'"),
        (np.where(BIAS == 3, np.nan, BIAS), {}, "1 values that are not finite"),
        (np.where(BIAS == 3, np.inf, BIAS), {"as_": "weight"}, "1 values that are not finite"),
        (BIAS - 2, {}, "negative values, down to -1"),
        (BIAS - 2, {"as_": "weight"}, "negative values, down to -1"),
        (BIAS - 1, {"as_": "weight"}, "weights of 0"),
        (BIAS * 0, {}, "0 everywhere"),
        (BIAS * 1j, {}, "complex128 values, not real"),
        (BIAS > 2, {}, "bool values, not real"),
        (np.array(["a"] * 4), {}, "<U1 values, not real"),
        (BIAS, {"as_": "ratio"}, "cannot be read as 'ratio'"),
    ],
)
def test_values_that_are_no_map(tmp_path: Path, values: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(PriorError, match=message) as caught:
        bring(npy(tmp_path, values), **more)
    assert caught.value.hint


def test_empty_model_type(tmp_path: Path) -> None:
    with pytest.raises(PriorError, match="model type is empty"):
        import_prior(npy(tmp_path, BIAS), as_="bias", model_type="", layer=1)


def test_zero_bias_is_allowed(tmp_path: Path) -> None:
    assert bring(npy(tmp_path, BIAS - 1)).map("image", 1)[0, 0] == 0


def test_npz(tmp_path: Path) -> None:
    path = tmp_path / "maps.npz"
    np.savez_compressed(path, one=BIAS)
    np.testing.assert_allclose(bring(path).map("image", 1), BIAS / 6.5, rtol=1e-6)
    np.savez(path, one=BIAS, two=BIAS[::-1])
    with pytest.raises(PriorError, match="several arrays: one, two") as caught:
        bring(path)
    assert "--key" in caught.value.hint
    with pytest.raises(PriorError, match="no 'three', only one, two"):
        bring(path, key="three")
    prior = bring(path, key="two")
    np.testing.assert_allclose(prior.map("image", 1), BIAS[::-1] / 6.5, rtol=1e-6)
    assert prior.meta["source"] == "maps.npz:two"


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("name", ["bomb.npy", "bomb.npz", "bomb.pt"])
@pytest.mark.parametrize("raw", [True, False])
def test_pickles_are_never_run(tmp_path: Path, name: str, raw: bool) -> None:
    trace, path = tmp_path / "trace", tmp_path / name
    bomb = Bomb(trace)
    if raw:
        path.write_bytes(pickle.dumps(bomb, protocol=2))
    elif name.endswith("pt"):
        pytest.importorskip("torch").save(bomb, path)
    else:
        (np.save if name.endswith("npy") else np.savez)(path, np.array([bomb], dtype=object))
    with pytest.raises(PriorError, match="not a readable") as caught:
        bring(path)
    assert "never loaded" in caught.value.hint
    assert not trace.exists()


@pytest.mark.parametrize("name", ["map.npy", "map.npz", "map.pt"])
def test_cut_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("npy"):
        np.save(path, BIAS)
    elif name.endswith("npz"):
        np.savez(path, BIAS)
    else:
        torch = pytest.importorskip("torch")
        torch.save(torch.from_numpy(BIAS), path)
    data = path.read_bytes()
    for size in range(0, len(data), 1 + len(data) // 40):
        path.write_bytes(data[:size])
        with pytest.raises(PriorError, match="not a readable"):
            bring(path)


def test_npy_header_that_promises_too_much(tmp_path: Path) -> None:
    path = npy(tmp_path, BIAS)
    path.write_bytes(path.read_bytes().replace(b"(3, 4), ", b"(9999999999, 9999999), ").replace(b" " * 15, b"", 1))
    with pytest.raises(PriorError, match="not a readable NumPy file"):
        bring(path)


def test_other_endings_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(PriorError, match=r"is not a .npy, .npz, .pt or .json file"):
        bring(tmp_path / "map.csv")
    with pytest.raises(PriorError, match="cannot be read: No such file"):
        bring(tmp_path / "map.npy")
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(PriorError, match="cannot be read"):
        bring(tmp_path / "folder.npy")


def test_pt(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "map.pt"
    for tensor in (torch.from_numpy(BIAS), torch.from_numpy(BIAS).bfloat16(), torch.from_numpy(BIAS).requires_grad_()):
        torch.save(tensor, path)
        np.testing.assert_allclose(bring(path).map("image", 1), BIAS / 6.5, rtol=1e-6)
    torch.save({"a": torch.from_numpy(BIAS), "b": torch.zeros(3)}, path)
    with pytest.raises(PriorError, match="several arrays: a, b"):
        bring(path)
    np.testing.assert_allclose(bring(path, key="a").map("image", 1), BIAS / 6.5, rtol=1e-6)
    for odd, message in (
        ({"a": {"b": torch.ones(4)}}, "a is a dict, not a tensor"),
        ([1.0] * 4, "is a list"),
        ({}, "several arrays: nothing"),
    ):
        torch.save(odd, path)
        with pytest.raises(PriorError, match=message):
            bring(path)
    torch.save(torch.ones(4, dtype=torch.complex64), path)
    with pytest.raises(PriorError, match="complex64 values, not real"):
        bring(path)


def test_published_map() -> None:
    """A published multiplicative weight for LLaVA-1.5 (24 x 24) gives a bias that grows towards the bottom."""
    sample = os.environ.get("BIASKIT_COCO_SAMPLE")
    if not sample:
        pytest.skip("BIASKIT_COCO_SAMPLE is not set: it names the folder beside published-prior/")
    path = Path(sample).resolve().parent / "published-prior" / "FastV__weight.npy"
    if not path.is_file():
        pytest.skip(f"{path} does not exist")
    prior = bring(path, "weight")
    a_bias = prior.map("image", 1)
    assert a_bias.shape == (24, 24)
    assert a_bias.mean() == pytest.approx(1)
    np.testing.assert_allclose((a_bias.ravel() * np.load(path)).std(), 0, atol=1e-6)
    rows = a_bias.mean(axis=1)
    assert rows[-1] > 2 * rows[0]
    assert (np.diff(rows) > 0).all()
    # It is a function of the flattened index alone: rows run on from the right edge of one to the left edge of the next.
    assert spearman(a_bias.ravel(), np.arange(576)) > 0.999
