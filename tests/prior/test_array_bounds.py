"""Arrays of others that are damaged, or far larger than their files: refused before they are unpacked."""

from __future__ import annotations

import io
import os
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from biaskit.errors import PriorError
from biaskit.prior import array_file
from biaskit.prior.exchange import import_prior

BIAS = np.arange(1.0, 13.0).reshape(3, 4)


def bring(path: Path, key: str | None = None) -> np.ndarray:
    return import_prior(path, as_="bias", model_type="llava", layer=1, key=key).map("image", 1)


def npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def torch_file(value: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def zipped(**parts: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(f"{name}.npy", data)
    return buffer.getvalue()


def swapped(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) == 1
    return data.replace(old, new)


HUGE = npy(np.zeros((1000, 1000, 30), dtype=np.float32))
REFUSED = {
    "shape that is smaller.npy": (swapped(npy(BIAS), b"(3, 4)", b"(3, 3)"), "96 bytes of values, where its header says 72"),
    "shape that is larger.npy": (swapped(npy(BIAS), b"(3, 4)", b"(4, 4)"), "where its header says 128"),
    "other type.npy": (swapped(npy(BIAS), b"<f8", b"<f4"), "where its header says 48"),
    "bytes behind.npy": (npy(BIAS) + b"\0", "97 bytes of values"),
    "claims.npy": (swapped(npy(BIAS), b"(3, 4)", b"(9999999, 4)"), "claims 39999996 values"),
    "negative.npy": (swapped(npy(BIAS), b"(3, 4)", b"(-3,-4)"), "where its header|not a readable|claims"),
    "an archive.npy": (zipped(a=npy(BIAS)), r"is an \.npz archive"),
    "bomb.npz": (zipped(a=npy(BIAS), b=HUGE, c=HUGE, d=HUGE), "unpacks to 360"),
    "wanted bomb.npz": (zipped(a=HUGE), "claims 30000000 values"),
    "expanded.pt": (torch_file({"a": torch.ones(1, 1).expand(20_000, 10_000)}), "a has 200000000 values"),
    "byte array.pt": (torch_file(BIAS.tolist()), "content is a list"),
    "legacy.pt": (torch_file(torch.ones(3, 4), _use_new_zipfile_serialization=False), "no zip"),
    "module.pt": (torch_file(torch.nn.Linear(2, 2)), "asks for torch.nn"),
    "names no texts.pt": (torch_file({1: torch.ones(3, 4)}), "keys are not texts"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_refused_before_it_is_unpacked(tmp_path: Path, name: str) -> None:
    data, says = REFUSED[name]
    path = tmp_path / name
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(PriorError, match=says) as caught:
            bring(path)
        assert caught.value.hint
        assert tracemalloc.get_traced_memory()[1] < 3 * len(data) + 2**20 + (4 * len(HUGE) if name == "wanted bomb.npz" else 0)
    finally:
        tracemalloc.stop()


def test_many_parts_are_read_in_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of many tensors is opened as often as a small one; one of too many is refused before any is unpacked."""
    opened: list[object] = []

    class Counted(zipfile.ZipFile):
        def __init__(self, *args: object, **options: object) -> None:
            opened.append(args)
            super().__init__(*args, **options)

    path = tmp_path / "many.pt"
    path.write_bytes(torch_file({str(n): torch.ones(3, 4) for n in range(200)}))
    monkeypatch.setattr(zipfile, "ZipFile", Counted)
    np.testing.assert_allclose(bring(path, "7"), np.ones((3, 4)))
    assert len(opened) == 1
    monkeypatch.setattr(array_file, "MAX_PARTS", 200)
    with pytest.raises(PriorError, match=r"has 20\d parts, over the limit of 200"):
        bring(path, "7")


def test_only_the_member_that_is_meant_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "two.npz"
    path.write_bytes(zipped(a=npy(BIAS), b=HUGE))
    tracemalloc.start()
    np.testing.assert_allclose(bring(path, "a"), BIAS / 6.5, rtol=1e-6)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


@pytest.mark.parametrize("kind", ["npz", "pt"])
def test_every_flipped_bit_of_a_value_is_noticed(tmp_path: Path, kind: str) -> None:
    """The checksums of the zip are verified, also by a reader whose header was shortened."""
    buffer = io.BytesIO()
    np.savez(buffer, a=BIAS)
    data = buffer.getvalue() if kind == "npz" else torch_file(torch.from_numpy(BIAS))
    start = data.index(np.float64(1).tobytes() + np.float64(2).tobytes())
    path = tmp_path / f"map.{kind}"
    for place in range(start, start + BIAS.nbytes, 5):
        broken = bytearray(data)
        broken[place] ^= 1 << place % 8
        path.write_bytes(bytes(broken))
        with pytest.raises(PriorError, match="not a readable"):
            bring(path)
    path.write_bytes(data)
    np.testing.assert_allclose(bring(path), BIAS / 6.5, rtol=1e-6)


class Large:
    def __reduce__(self) -> object:
        return bytearray, (8 << 30,)


def test_a_pickle_in_a_torch_file_may_not_make_memory(tmp_path: Path) -> None:
    """PyTorch's own restricted reader allows bytearray, of any length."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Large(), protocol=2))
        archive.writestr("archive/version", "3\n")
    path = tmp_path / "x.pt"
    path.write_bytes(buffer.getvalue())
    with pytest.raises(PriorError, match=r"asks for (__builtin__|builtins) bytearray"):
        bring(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipes_and_huge_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.npy")
    with pytest.raises(PriorError, match="not a regular file"):
        bring(tmp_path / "a.npy")
    with (tmp_path / "b.npy").open("wb") as file:
        file.truncate(300 << 20)
    with pytest.raises(PriorError, match="over the limit of"):
        bring(tmp_path / "b.npy")
