"""Files and values that are no prior: every one is refused with a PriorError, whatever the bytes."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biaskit.errors import PriorError
from biaskit.prior.value import PlaneStats, Prior

BYTES = (Path(__file__).parents[1] / "golden" / "prior-schema1.safetensors").read_bytes()
GOLDEN = Prior.from_bytes(BYTES)


def ramp(*shape: int) -> Any:
    return np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(shape)


def edited(change: Callable[[dict[str, Any]], None]) -> bytes:
    """Bytes of the golden prior with another header."""
    size = int.from_bytes(BYTES[:8], "little")
    header = json.loads(BYTES[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + BYTES[8 + size :]


def test_cut_anywhere() -> None:
    data = BYTES
    for size in range(len(data)):
        with pytest.raises(PriorError):
            Prior.from_bytes(data[:size])


def test_bytes_too_many() -> None:
    with pytest.raises(PriorError, match="damaged"):
        Prior.from_bytes(BYTES + b"\0")


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(BYTES) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_flipped_bytes_are_refused_or_valid(flips: list[tuple[int, int]]) -> None:
    data = bytearray(BYTES)
    for place, value in flips:
        data[place] = value
    try:
        prior = Prior.from_bytes(bytes(data))
    except PriorError:
        return
    assert Prior.from_bytes(prior.to_bytes()).to_bytes() == prior.to_bytes()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(PriorError):
        Prior.from_bytes(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=100, deadline=None)
@given(json_values)
def test_any_json_header_is_refused(value: Any) -> None:
    text = json.dumps(value).encode()
    with pytest.raises(PriorError):
        Prior.from_bytes(len(text).to_bytes(8, "little") + text)


def metadata(**values: Any) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        for key, value in values.items():
            if value is None:
                del header["__metadata__"][f"biaskit.{key}"]
            else:
                header["__metadata__"][f"biaskit.{key}"] = value

    return change


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        (metadata(schema="2"), "schema 2, this biaskit reads up to 1", "upgrade"),
        (metadata(schema="999999999"), "reads up to 1", "upgrade"),
        (metadata(schema=None), "not a biaskit prior", "biaskit priors import"),
        (metadata(schema="one"), "'one', which is not a whole number", "calibrate"),
        (metadata(schema="1.0"), "not a whole number", "calibrate"),
        (metadata(schema="-1"), "not a whole number", "calibrate"),
        (metadata(schema="0"), "not a whole number", "calibrate"),
        (metadata(schema="٣"), "not a whole number", "calibrate"),
        (metadata(schema=1), "no readable safetensors header", "calibrate"),
        (metadata(n_images="many"), "n_images is 'many'", "calibrate"),
        (metadata(n_images="9" * 5000), "n_images is '9", "calibrate"),
        (metadata(kind="guessed"), "kind is 'guessed'", "calibrate"),
        (metadata(**{"count.image": "4"}), "adds up to 5, not to the 4 images", "calibrate"),
        (metadata(**{"count.image": None}), "count.image is ''", "calibrate"),
        (metadata(**{"count.image": "-5"}), "count.image is '-5'", "calibrate"),
        (metadata(**{"count.moon": "5"}), "count.moon counts a plane that has no tensors", "calibrate"),
        (lambda h: h.pop("__metadata__"), "not a biaskit prior", "biaskit priors import"),
        (lambda h: h.update({"image.mode": h.pop("image.mean")}), "unknown tensor 'image.mode'", "calibrate"),
        (lambda h: h.update({"mean": h.pop("image.mean")}), "unknown tensor 'mean'", "calibrate"),
        (lambda h: h.update({"moon.var": h.pop("image.var")}), "'moon.mean' is missing", "calibrate"),
        (lambda h: h.update({"other": h.pop("visual_mass")}), "visual_mass is missing", "calibrate"),
        (lambda h: h.update({"other": h.pop("layer_index")}), "layer_index is missing", "calibrate"),
        (lambda h: h["image.mean"].update(shape=[2, 4, 3]), "image.var has shape", "calibrate"),
        (lambda h: h["image.mean"].update(shape=[24]), "image.mean has shape", "calibrate"),
        (lambda h: h["image.mean"].update(shape=[2, 3, 5]), "damaged", "calibrate"),
        (lambda h: h["image.mean"].update(dtype="I32"), "image.mean is int32, not float32", "calibrate"),
        (lambda h: h["image.mean"].update(dtype="F16", shape=[2, 3, 8]), "'image.mean' is F16", "calibrate"),
        (lambda h: h["image.mean"].update(dtype="F64", shape=[2, 3, 2]), "'image.mean' is F64", "calibrate"),
        (lambda h: h["layer_index"].update(dtype="F32"), "layer_index is float32", "calibrate"),
        (lambda h: h["layer_index"].update(shape=[1, 2]), "layer_index is int32", "calibrate"),
        (lambda h: h["visual_mass"].update(shape=[2, 1]), "visual_mass has shape", "calibrate"),
    ],
)
def test_edited_headers(change: Callable[[dict[str, Any]], None], message: str, hint: str) -> None:
    with pytest.raises(PriorError, match=message) as caught:
        Prior.from_bytes(edited(change), "file.safetensors")
    assert caught.value.message.startswith("file.safetensors")
    assert hint in caught.value.hint


def test_foreign_metadata_is_no_error() -> None:
    data = edited(lambda h: h["__metadata__"].update(format="pt"))
    assert Prior.from_bytes(data).to_bytes() == BYTES


def test_huge_header_length_is_not_believed() -> None:
    for size in (2**63, 2**64 - 1, 10**9, 100_000_001):
        with pytest.raises(PriorError, match="not a safetensors file, or is cut short"):
            Prior.from_bytes(size.to_bytes(8, "little") + b"{}" * 20)


def test_deeply_nested_header() -> None:
    text = b'{"__metadata__":' + b"[" * 100_000
    with pytest.raises(PriorError, match="no readable safetensors header"):
        Prior.from_bytes(len(text).to_bytes(8, "little") + text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"bottom rows matter more\n" * 9, "not a safetensors file"),
        (pickle.dumps({"image.mean": [1.0] * 99}), "not a safetensors file"),
    ],
)
def test_other_files(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    path.write_bytes(content)
    with pytest.raises(PriorError, match=message) as caught:
        Prior.load(path)
    assert str(path) in caught.value.message


def test_folder_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(PriorError, match="is a folder"):
        Prior.load(tmp_path)
    with pytest.raises(PriorError, match="does not exist"):
        Prior.load(tmp_path / "none.safetensors")


# --- values --------------------------------------------------------------------------------------------------------------------------


def image(**parts: Any) -> Prior:
    prior = GOLDEN
    return replace(prior, planes={"image": replace(prior.planes["image"], **parts)})


def spoilt(values: Any, value: float, index: tuple[int, ...] = (0,)) -> Any:
    values = values.copy()
    values.flat[index[0]] = value
    return values


@pytest.mark.parametrize("part", ["mean", "var", "group_mean", "head_mean"])
@pytest.mark.parametrize(("value", "message"), [(np.nan, "not finite"), (np.inf, "not finite"), (-1, "negative values, down to -1")])
def test_impossible_values(part: str, value: float, message: str) -> None:
    with pytest.raises(PriorError, match=f"image.{part} has .*{message}"):
        image(**{part: spoilt(getattr(GOLDEN.planes["image"], part), value)})


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32])
def test_other_dtypes(dtype: type) -> None:
    with pytest.raises(PriorError, match=f"image.mean is {np.dtype(dtype)}, not float32"):
        image(mean=ramp(2, 3, 4).astype(dtype))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"mean": np.zeros((2, 3, 4), np.float32)}, "all zero"),
        ({"mean": np.concatenate([ramp(1, 3, 4), np.zeros((1, 3, 4), np.float32)])}, "all zero at a layer"),
        ({"mean": np.ones((2, 0, 4), np.float32)}, "not \\[layers, rows, cols\\]"),
        ({"mean": ramp(3, 3, 4)}, "\\[3, 3, 4\\], not \\[2, 3, 4\\]"),
        ({"var": ramp(2, 4, 3)}, "image.var has shape"),
        ({"head_mean": ramp(2, 3, 4)}, "image.head_mean has shape"),
        ({"head_mean": np.ones((2, 0, 3, 4), np.float32)}, "image.head_mean has shape"),
        ({"group_mean": None}, "come together"),
        ({"group_count": None}, "come together"),
        ({"group_mean": ramp(2, 2, 3, 4)}, "image.group_count has shape \\[3\\], not \\[2\\]"),
        ({"group_mean": np.ones((0, 2, 3, 4), np.float32), "group_count": np.ones(0, np.int32)}, "group_mean has shape"),
        ({"group_mean": np.float32(1)}, "group_mean is|group_mean has shape"),
        ({"group_count": np.array([6, -1, 0], np.int32)}, "negative"),
        ({"group_count": np.array([3, 2, 0], np.int64)}, "int64, not int32"),
        ({"group_count": np.array([2**31 - 1, 2**31 - 1, 7], np.int32)}, "adds up to 4294967301"),
        ({"group_count": np.array([0, 5, 0], np.int32)}, "not 0 for a block without images"),
        ({"count": -1}, "count of plane image is -1"),
    ],
)
def test_parts_that_contradict(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(PriorError, match=message):
        image(**parts)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"layers": (4, 1)}, "not ascending"),
        ({"layers": (1, 1)}, "not ascending"),
        ({"layers": (-1, 1)}, "not ascending"),
        ({"layers": ()}, "not ascending"),
        ({"layers": (1,)}, "visual_mass has shape"),
        ({"visual_mass": np.array([0.5, 1.2], np.float32)}, "visual_mass reaches 1.2"),
        ({"visual_mass": np.array([0.5, np.nan], np.float32)}, "visual_mass has values that are not finite"),
        ({"planes": {}}, "no plane"),
        ({"planes": {"a.b": PlaneStats(ramp(2, 1, 1))}}, "plane name 'a.b'"),
        ({"planes": {"": PlaneStats(ramp(2, 1, 1))}}, "plane name ''"),
        ({"meta": {"schema": "1"}}, "'schema' belongs to the file"),
        ({"meta": {"count.image": "5"}}, "'count.image' belongs to the file"),
        ({"meta": {"seed": 42}}, "'seed': 42 is not text"),
        ({"meta": {"note": "\ud800"}}, "not valid Unicode"),
    ],
)
def test_priors_that_cannot_be(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(PriorError, match=message):
        replace(GOLDEN, **parts)


@pytest.mark.parametrize("layers", [(4, 1), (4, 4), (-1, 4)])
def test_layers_in_a_file(layers: tuple[int, int]) -> None:
    data = BYTES
    held = np.array([1, 4], "<i4").tobytes()
    assert data.count(held) == 1
    with pytest.raises(PriorError, match="not ascending"):
        Prior.from_bytes(data.replace(held, np.array(layers, "<i4").tobytes()))
