"""The Prior value: golden bytes, round trip, use on a layout, saving. Hostile files are in test_prior_hostile.py."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors import safe_open
from safetensors.numpy import load_file

from biaskit.errors import FileError, PriorError
from biaskit.grid import Layout, Plane, join, raster
from biaskit.prior.resample import resample
from biaskit.prior.value import PlaneStats, Prior

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "prior-schema1.safetensors"

META = {
    "kind": "calibrated",
    "model": "org/model",
    "model_type": "llava",
    "revision": "abc",
    "n_images": "5",
    "prompt": json.dumps(["Please describe the provided image."]),
    "note": "größer",
}


def ramp(*shape: int) -> Any:
    """Numbers that float32 holds exactly, so that no library's arithmetic is in the golden bytes."""
    return ((np.arange(np.prod(shape)) % 23 + 1) / 8).astype(np.float32).reshape(shape)


def golden() -> Prior:
    image = PlaneStats(
        mean=ramp(2, 3, 4),
        var=ramp(2, 3, 4) / 4,
        group_mean=np.concatenate([ramp(2, 2, 3, 4), np.zeros((1, 2, 3, 4), np.float32)]),
        group_count=np.array([3, 2, 0], np.int32),
        head_mean=ramp(2, 2, 3, 4),
        count=5,
    )
    newline = PlaneStats(mean=ramp(2, 3, 1), count=4)
    return Prior({"newline": newline, "image": image}, (1, 4), np.array([0.25, 0.5], np.float32), META)


# --- bytes ---------------------------------------------------------------------------------------------------------------------------


def test_golden_bytes() -> None:
    """Schema 1 is frozen: building the golden prior today gives the committed file. Never edit that file."""
    assert golden().to_bytes() == GOLDEN.read_bytes()


def test_golden_values() -> None:
    prior = Prior.load(GOLDEN)
    expected = golden()
    assert prior.layers == (1, 4)
    assert dict(prior.meta) == META
    assert {name: stats.count for name, stats in prior.planes.items()} == {"image": 5, "newline": 4}
    for name, stats in expected.planes.items():
        for part in ("mean", "var", "group_mean", "group_count", "head_mean"):
            want, got = getattr(stats, part), getattr(prior.planes[name], part)
            assert (want is None) == (got is None), part
            if want is not None:
                assert got.dtype == want.dtype
                np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(prior.visual_mass, expected.visual_mass)


def test_golden_opens_with_plain_safetensors() -> None:
    tensors = load_file(GOLDEN)
    np.testing.assert_array_equal(tensors["image.mean"], golden().planes["image"].mean)
    np.testing.assert_array_equal(tensors["layer_index"], [1, 4])
    with safe_open(GOLDEN, "np") as file:
        metadata = file.metadata()
    assert metadata["biaskit.schema"] == "1"
    assert metadata["biaskit.count.newline"] == "4"
    assert metadata["biaskit.note"] == "größer"


def test_readme_snippet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = (ROOT / "priors" / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    assert len([line for line in block.splitlines() if line.strip()]) == 6
    (tmp_path / "priors").mkdir()
    (tmp_path / "priors" / "NAME.safetensors").write_bytes(GOLDEN.read_bytes())
    monkeypatch.chdir(tmp_path)
    row = golden().planes["image"].mean[0].ravel()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for attention in (row, torch.from_numpy(row.copy())):
            names: dict[str, Any] = {"attention": attention}
            exec(block, names)
            np.testing.assert_allclose(names["relative"].ravel(), np.ones(12), rtol=1e-6)
    with pytest.raises(ValueError, match="size 11"):
        exec(block, {"attention": row[:-1]})


def test_bytes_do_not_depend_on_order() -> None:
    a = golden()
    b = replace(a, planes=dict(reversed(a.planes.items())), meta=dict(reversed(META.items())))
    assert a.to_bytes() == b.to_bytes()
    assert int.from_bytes(a.to_bytes()[:8], "little") % 8 == 0


counts = st.integers(1, 4)
levels = st.floats(0, 2.0**100, width=32)


@st.composite
def priors(draw: st.DrawFn) -> Prior:
    n_layers, groups, heads = draw(counts), draw(counts), draw(counts)
    layers = tuple(sorted(draw(st.sets(st.integers(0, 2**31 - 1), min_size=n_layers, max_size=n_layers))))
    names = draw(st.sets(st.sampled_from(["image", "base", "canvas", "newline", "my-plane_2"]), min_size=1))
    planes = {}
    for name in sorted(names):
        rows, cols = draw(counts), draw(counts)

        def values(*shape: int) -> Any:
            return draw(arrays(np.float32, shape, elements=levels))

        mean = values(n_layers, rows, cols)
        mean[:, 0, 0] += np.float32(1)
        full = draw(st.booleans())
        group_count = draw(arrays(np.int32, groups, elements=st.integers(1, 99))) if full else None
        planes[name] = PlaneStats(
            mean=mean,
            var=values(n_layers, rows, cols) if full else None,
            group_mean=values(groups, n_layers, rows, cols) if full else None,
            group_count=group_count,
            head_mean=values(n_layers, heads, rows, cols) if draw(st.booleans()) else None,
            count=int(group_count.sum()) if group_count is not None else draw(st.integers(0, 10**6)),
        )
    text = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
    key = text.filter(lambda k: k not in {"", "schema", "kind", "n_images"} and not k.startswith("count."))
    mass = draw(arrays(np.float32, n_layers, elements=st.floats(0, 1, width=32)))
    return Prior(planes, layers, mass, draw(st.dictionaries(key, text, max_size=4)))


@settings(max_examples=60, deadline=None)
@given(priors())
def test_round_trip(prior: Prior) -> None:
    data = prior.to_bytes()
    again = Prior.from_bytes(data)
    assert again.to_bytes() == data
    assert again.layers == prior.layers
    assert dict(again.meta) == dict(prior.meta)
    assert set(again.planes) == set(prior.planes)
    for name, stats in prior.planes.items():
        np.testing.assert_array_equal(again.planes[name].mean, stats.mean)
        assert again.planes[name].count == stats.count


# --- use -----------------------------------------------------------------------------------------------------------------------------


def test_properties() -> None:
    prior = golden()
    assert (prior.model, prior.model_type, prior.revision, prior.n_images) == ("org/model", "llava", "abc", 5)
    bare = replace(prior, meta={})
    assert (bare.model, bare.model_type, bare.revision, bare.n_images) == ("", "", "", 0)


def test_map_is_a_copy_in_float64() -> None:
    prior = Prior.load(GOLDEN)
    got = prior.map("image", 4)
    assert got.dtype == np.float64
    np.testing.assert_array_equal(got, prior.planes["image"].mean[1])
    got[:] = 0
    assert prior.map("image", 4).any()


def test_absent_layer_and_plane() -> None:
    prior = golden()
    assert prior.layer(4) == 1
    with pytest.raises(PriorError, match="no layer 2, only 1, 4") as caught:
        prior.map("image", 2)
    assert "--layers 2" in caught.value.hint
    with pytest.raises(PriorError, match="no plane 'canvas', only image, newline"):
        prior.map("canvas", 1)


def layout(*planes: Plane) -> Layout:
    tokens = join([raster(plane) for plane in planes])
    return Layout(np.arange(len(tokens)) + 7, tokens.planes, tokens.plane, tokens.row, tokens.col)


def test_for_layout_same_grid_is_the_map() -> None:
    got = golden().for_layout(layout(Plane("image", 3, 4)), 4)
    np.testing.assert_array_equal(got, golden().map("image", 4).ravel())


def test_for_layout_resamples_every_plane_and_keeps_their_levels() -> None:
    prior = golden()
    grids = (Plane("image", 6, 5), Plane("newline", 6, 1), Plane("image", 2, 2, image=1))
    got = prior.for_layout(layout(*grids), 1)
    want = [resample(prior.map(p.name, 1), p.rows, p.cols).ravel() for p in grids]
    np.testing.assert_array_equal(got, np.concatenate(want))
    flat = {"image": PlaneStats(np.full((1, 3, 4), 2, np.float32)), "newline": PlaneStats(np.full((1, 3, 1), 0.5, np.float32))}
    got = Prior(flat, (0,), np.ones(1, np.float32), {}).for_layout(layout(*grids), 0)
    np.testing.assert_allclose(got, [2.0] * 30 + [0.5] * 6 + [2.0] * 4)


def test_for_layout_follows_the_order_of_the_tokens() -> None:
    """Row ends interleaved, as LLaVA-NeXT does with its newline tokens."""
    planes = (Plane("image", 3, 4), Plane("newline", 3, 1))
    rows, cols = np.divmod(np.arange(15), 5)
    plane = (cols == 4).astype(np.int64)
    mixed = Layout(np.arange(15), planes, plane, rows, np.where(plane == 1, 0, cols))
    got = golden().for_layout(mixed, 1).reshape(3, 5)
    np.testing.assert_array_equal(got[:, :4], golden().map("image", 1))
    np.testing.assert_array_equal(got[:, 4:], golden().map("newline", 1))


def test_for_layout_without_the_plane() -> None:
    with pytest.raises(PriorError, match="no plane 'thumbnail'"):
        golden().for_layout(layout(Plane("image", 3, 4), Plane("thumbnail", 2, 2)), 1)


def test_check_model() -> None:
    prior = golden()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prior.check_model("llava")
        prior.check_model("llava", "abc", "org/model")
        prior.check_model("llava", None, "org/model")
    with pytest.raises(PriorError, match="model type 'llava', not 'qwen2_5_vl'"):
        prior.check_model("qwen2_5_vl")
    with pytest.raises(PriorError, match="model type 'unknown'"):
        replace(prior, meta={}).check_model("llava")
    with pytest.warns(UserWarning, match="revision 'abc', and is used with 'def'"):
        prior.check_model("llava", "def")
    with pytest.warns(UserWarning, match="model 'org/model', and is used with 'org/other'"):
        prior.check_model("llava", model="org/other")


@pytest.mark.parametrize(
    ("sizes", "primary"),
    [
        ({"canvas": 2, "image": 1}, "image"),
        ({"base": 9, "canvas": 1}, "canvas"),
        ({"base": 1, "newline": 9}, "base"),
        ({"a": 1, "b": 3, "c": 2}, "b"),
        ({"b": 2, "a": 2}, "a"),
    ],
)
def test_primary(sizes: dict[str, int], primary: str) -> None:
    planes = {name: PlaneStats(ramp(1, size, 1)) for name, size in sizes.items()}
    assert Prior(planes, (0,), np.ones(1, np.float32), {}).primary == primary


# --- save ----------------------------------------------------------------------------------------------------------------------------


def test_save_does_not_overwrite_without_force(tmp_path: Path) -> None:
    path = tmp_path / "new" / "prior.safetensors"
    golden().save(path)
    assert path.read_bytes() == GOLDEN.read_bytes()
    other = replace(golden(), meta={})
    with pytest.raises(FileError, match="exists") as caught:
        other.save(path)
    assert "--force" in caught.value.hint
    assert path.read_bytes() == GOLDEN.read_bytes()
    other.save(path, force=True)
    assert path.read_bytes() == other.to_bytes()
    assert [p.name for p in path.parent.iterdir()] == ["prior.safetensors"]


def test_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "prior.safetensors"
    golden().save(path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(FileError, match="cannot be written: No space left"):
        replace(golden(), meta={}).save(path, force=True)
    assert path.read_bytes() == GOLDEN.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["prior.safetensors"]


def test_save_to_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="is a folder"):
        golden().save(tmp_path, force=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileError, match="cannot be written"):
        golden().save(tmp_path / "file" / "prior.safetensors")
