"""Export of priors as plain arrays, tensors and JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biaskit.errors import FileError, PriorError
from biaskit.prior.exchange import export_prior, import_prior, narrow
from biaskit.prior.value import PlaneStats, Prior


def full() -> Prior:
    rng = np.random.default_rng(0)

    def values(*shape: int) -> Any:
        return rng.gamma(1, 1, shape).astype(np.float32)

    counts = np.array([3, 2], np.int32)
    base = PlaneStats(values(2, 3, 4), values(2, 3, 4), values(2, 2, 3, 4), counts, values(2, 5, 3, 4), 5)
    newline = PlaneStats(values(2, 3, 1), count=5)
    return Prior({"base": base, "newline": newline}, (1, 4), np.array([0.1, 0.7], np.float32), {"model": "größer", "n_images": "5"})


def test_export_npy(tmp_path: Path) -> None:
    prior, path = full(), tmp_path / "a.npy"
    export_prior(prior, path)
    np.testing.assert_array_equal(np.load(path), prior.planes["base"].mean)
    export_prior(prior, path, layer=4, force=True)
    np.testing.assert_array_equal(np.load(path), prior.planes["base"].mean[1])
    export_prior(prior, path, plane="newline", force=True)
    np.testing.assert_array_equal(np.load(path), prior.planes["newline"].mean)


def test_export_pt(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    prior, path = full(), tmp_path / "a.pt"
    export_prior(prior, path)
    tensors = torch.load(path, weights_only=True)
    assert set(tensors) == {"visual_mass", "layer_index", "newline.mean"} | {
        f"base.{part}" for part in ("mean", "var", "group_mean", "group_count", "head_mean")
    }
    np.testing.assert_array_equal(tensors["base.group_mean"].numpy(), prior.planes["base"].group_mean)
    assert tensors["layer_index"].tolist() == [1, 4]
    export_prior(prior, path, layer=4, plane="newline", force=True)
    tensors = torch.load(path, weights_only=True)
    assert set(tensors) == {"visual_mass", "layer_index", "newline.mean"}
    np.testing.assert_array_equal(tensors["newline.mean"].numpy(), prior.planes["newline"].mean[1:])


def test_export_json_is_lossless_and_short(tmp_path: Path) -> None:
    prior, path = full(), tmp_path / "a.json"
    export_prior(prior, path)
    text = path.read_text(encoding="utf-8")
    assert "größer" in text
    assert '"visual_mass": [0.1, 0.7]' in text  # not 0.10000000149011612
    data = json.loads(text)
    assert data["schema"] == 1
    assert data["layers"] == [1, 4]
    planes = {}
    for name, parts in data["planes"].items():
        held = {key: value if key == "count" or value is None else np.array(value, np.float32) for key, value in parts.items()}
        if held["group_count"] is not None:
            held["group_count"] = held["group_count"].astype(np.int32)
        planes[name] = PlaneStats(**held)
    again = Prior(planes, tuple(data["layers"]), np.array(data["visual_mass"], np.float32), data["meta"])
    assert again.to_bytes() == prior.to_bytes()


@settings(max_examples=200, deadline=None)
@given(st.floats(0, width=32, allow_infinity=False, allow_nan=False, exclude_min=True))
def test_export_json_numbers(tmp_path_factory: pytest.TempPathFactory, value: float) -> None:
    path = tmp_path_factory.getbasetemp() / "number.json"
    mean = np.full((1, 1, 1), value, np.float32)
    export_prior(Prior({"image": PlaneStats(mean)}, (0,), np.ones(1, np.float32), {}), path, force=True)
    assert np.float32(json.loads(path.read_text())["planes"]["image"]["mean"][0][0][0]) == mean[0, 0, 0]


def test_export_then_import(tmp_path: Path) -> None:
    prior, path = full(), tmp_path / "a.npy"
    export_prior(prior, path, layer=4)
    got = import_prior(path, as_="bias", model_type="llava", layer=4).map("image", 4)
    want = prior.map("base", 4)
    np.testing.assert_allclose(got, want / want.mean(), rtol=1e-6)


def test_narrow() -> None:
    prior = full()
    one = narrow(prior, 4, "base")
    assert one.layers == (4,)
    assert list(one.planes) == ["base"]
    np.testing.assert_array_equal(one.planes["base"].group_mean, prior.planes["base"].group_mean[:, 1:])
    np.testing.assert_array_equal(one.planes["base"].head_mean, prior.planes["base"].head_mean[1:])
    np.testing.assert_array_equal(one.visual_mass, [np.float32(0.7)])
    assert narrow(prior, None, None).to_bytes() == prior.to_bytes()


@pytest.mark.parametrize("suffix", [".npz", ".pt", ".json"])
@pytest.mark.parametrize("layer", [None, "all", 1, (1, 4)])
def test_what_is_exported_comes_back_with_the_layers_it_has(tmp_path: Path, suffix: str, layer: Any) -> None:
    prior, path = full(), tmp_path / f"map{suffix}"
    export_prior(prior, path, plane="base")
    first = path.read_bytes()
    export_prior(prior, path, plane="base", force=True)
    assert path.read_bytes() == first or suffix == ".pt"
    back = import_prior(path, as_="bias", model_type="llava", layer=layer, plane="base")
    assert back.layers == ((1,) if layer == 1 else (1, 4))
    for one in back.layers:
        wanted = prior.map("base", one)
        np.testing.assert_allclose(back.map("base", one), wanted / wanted.mean(), rtol=1e-6)
    with pytest.raises(PriorError, match="no layer 0, only 1, 4"):
        import_prior(path, as_="bias", model_type="llava", layer=0, plane="base")


def test_several_maps_in_one_array_are_not_guessed_at(tmp_path: Path) -> None:
    path = tmp_path / "nine.npy"
    np.save(path, np.ones((9, 3, 4)))
    with pytest.raises(PriorError, match=r"\[9, 3, 4\]") as caught:
        import_prior(path, as_="bias", model_type="llava", layer=1)
    assert "0-8" in caught.value.hint
    assert import_prior(path, as_="bias", model_type="llava", layer="0-8").layers == tuple(range(9))


@pytest.mark.parametrize(
    ("text", "told"),
    [("[[1, 2], [3]]", "not a readable JSON file"), ("{", "not a readable JSON file"), ('{"a": [[1]], "b": [[1]]}', "several arrays: a, b"),
     ('[["a"]]', "not real numbers"), ("[" * 100_000, "not a readable JSON file")],
    ids=["ragged", "cut", "several", "words", "deep"],
)  # fmt: skip
def test_json_that_is_no_map(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "map.json"
    path.write_text(text)
    with pytest.raises(PriorError, match=told):
        import_prior(path, as_="bias", model_type="llava", layer=1)
    path.write_text('{"a": [[1, 2], [3, 4]]}')
    assert import_prior(path, as_="bias", model_type="llava", layer=1).map("image", 1)[1, 1] == pytest.approx(1.6)


def test_export_errors(tmp_path: Path) -> None:
    prior = full()
    with pytest.raises(PriorError, match=r"cannot be written as '\.csv'"):
        export_prior(prior, tmp_path / "a.csv")
    with pytest.raises(PriorError, match="cannot be written as 'a'"):
        export_prior(prior, tmp_path / "a")
    with pytest.raises(PriorError, match="no layer 2"):
        export_prior(prior, tmp_path / "a.npy", layer=2)
    with pytest.raises(PriorError, match="no plane 'image'"):
        export_prior(prior, tmp_path / "a.json", plane="image")
    assert list(tmp_path.iterdir()) == []
    export_prior(prior, tmp_path / "a.json")
    with pytest.raises(FileError, match="exists"):
        export_prior(replace(prior, meta={}), tmp_path / "a.json")
