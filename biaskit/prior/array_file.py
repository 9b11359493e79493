"""Read one array from other tools' files: `.npy`, `.npz`, `.pt`, `.json`. Files are untrusted: pickled objects are never loaded."""

from __future__ import annotations

import io
import json
import math
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biaskit.errors import PriorError

FORMATS = (".npy", ".npz", ".pt", ".json")

MAX_BYTES = 256 << 20
"""Largest size in bytes of a file, and of its unpacked parts together."""
MAX_PARTS = 10_000
"""Most parts of an archive: a checkpoint of a large model has about a thousand."""
MAX_VALUES = 16_000_000
"""Most values of an array: 80 layers of 447 × 447 tokens, a hundred times those of a prior of the largest grids in use."""

_PLAIN = "save it again as a plain float array: numpy.save(path, values)"
_TENSOR = "other pickled objects are never loaded; save the tensor alone"

# What `torch.save` writes for tensors and dicts of them; anything else that a pickle names is refused before PyTorch sees it.
_TORCH_NAMES = frozenset({
    "collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter",
    *(f"torch {kind}Storage" for kind in ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool",
                                           "ComplexFloat", "ComplexDouble")),
})  # fmt: skip
_MOST_STEPS = 1_000_000


def read_array_file(path: Path) -> bytes:
    """Read the bytes of a `.npy`, `.npz`, `.pt` or `.json` file.

    Raises:
        PriorError: another ending, missing or unreadable.
    """
    if path.suffix.lower() not in FORMATS:
        raise PriorError(f"{path} is not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file", _PLAIN)
    try:
        if not path.is_file():
            path.stat()
            raise PriorError(f"{path} cannot be read: it is not a regular file", "give the path of a file")
        if path.stat().st_size > MAX_BYTES:
            raise PriorError(f"{path} has {path.stat().st_size} bytes, over the limit of {MAX_BYTES}", "save the map alone")
        return path.read_bytes()
    except OSError as error:
        raise PriorError(f"{path} cannot be read: {error.strerror or error}", "check the path and its permissions") from None


def decode_array(path: Path, data: bytes, key: str | None) -> NDArray[np.float64]:
    """Read one array as float64, without executing anything from the file.

    Args:
        path: where the bytes are from; its ending gives the format.
        data: the file.
        key: which array of an `.npz`, of a dict of tensors or of a JSON object; None if there is only one.

    Raises:
        PriorError: damaged or pickled content, no such array, several and no key, or values that are not real numbers.
    """
    held = {".pt": _decode_torch, ".npz": _decode_npz, ".npy": _decode_npy, ".json": _decode_json}[path.suffix.lower()](path, data, key)
    if isinstance(held, Mapping):
        held = held[_chosen(path, list(held), key)]
    elif key is not None:
        raise PriorError(f"{path} holds a single array, there is no {key!r} in it", "leave the key out")
    array = np.asarray(held)
    if array.dtype.kind not in "fiu":
        raise PriorError(f"{path} holds {array.dtype} values, not real numbers", _PLAIN)
    return array.astype(np.float64)


def _chosen(path: Path, names: list[str], key: str | None) -> str:
    """Return the name of the array to read: `key`, or the only one."""
    shown = ", ".join(map(str, names))[:300] or "nothing"
    if key is None and len(names) == 1:
        return names[0]
    if key is None:
        raise PriorError(f"{path} holds several arrays: {shown}", "say which with --key")
    if key not in names:
        raise PriorError(f"{path} holds no {key!r}, only {shown}", "say which with --key")
    return key


def exported_layers(path: Path, data: bytes) -> tuple[int, ...] | None:
    """Return the decoder layers of a file that `export_prior` wrote, which names them in `layer_index`; None for any other file."""
    try:
        values = decode_array(path, data, "layer_index")
    except PriorError:
        return None
    return tuple(int(value) for value in values) if values.ndim == 1 and len(values) else None


def _decode_json(path: Path, data: bytes, key: str | None) -> NDArray[Any] | Mapping[str, NDArray[Any]]:
    """Return a list of lists as an array, or an object as named arrays; files of `export_prior` by the names of the prior's tensors."""
    try:
        held = json.loads(data)
        if isinstance(held, dict) and isinstance(held.get("planes"), dict) and "layers" in held:
            means = {f"{name}.mean": plane["mean"] for name, plane in held["planes"].items()}
            held = {"layer_index": held["layers"], "visual_mass": held.get("visual_mass"), **means}
        if isinstance(held, dict):
            chosen = _chosen(path, list(held), key)
            return {chosen: np.asarray(held[chosen])}
        return np.asarray(held)
    except PriorError:
        raise
    except Exception as error:  # rows of several lengths, too deep nesting, not JSON
        why = str(error).split("\n", 1)[0][:300]
        raise PriorError(
            f"{path} is not a readable JSON file of numbers: {why}", "write lists of lists of one length: [rows, cols]"
        ) from None


def _decode_npy(path: Path, data: bytes, key: str | None) -> NDArray[Any]:
    if data[:4] in (b"PK\3\4", b"PK\5\6"):
        raise PriorError(f"{path} is an .npz archive by its content", "name it .npz")
    return _npy(path, data)


def _npy(path: Path, data: bytes) -> NDArray[Any]:
    """Return the array of a `.npy` file, whose length must be what its header says."""
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
        if dtype.hasobject:
            raise ValueError("it holds pickled objects")
        if dtype.kind in "US":
            raise PriorError(f"{path} holds {dtype} values, not real numbers", _PLAIN)
        count = math.prod(shape)
        if not 0 <= count <= MAX_VALUES:
            raise ValueError(f"it claims {count} values, over the limit of {MAX_VALUES}")
        if len(data) - file.tell() != count * dtype.itemsize:
            raise ValueError(f"{len(data) - file.tell()} bytes of values, where its header says {count * dtype.itemsize}")
        flat = np.frombuffer(data, dtype, count, file.tell())
        return flat.reshape(shape, order="F" if fortran else "C")
    except PriorError:
        raise
    except Exception as error:  # a hostile header makes NumPy raise nearly anything
        raise _unreadable(path, error) from None


def _decode_npz(path: Path, data: bytes, key: str | None) -> Mapping[str, NDArray[Any]]:
    """Return the wanted array of a `.npz` archive; no other is unpacked."""
    with _opened(path, data) as archive:
        names = {name.removesuffix(".npy"): name for name in archive.namelist()}
        chosen = _chosen(path, list(names), key)
        return {chosen: _npy(path, _member(path, archive, names[chosen]))}


def _opened(path: Path, data: bytes) -> zipfile.ZipFile:
    """Open a zip of at most `MAX_PARTS` parts, each with a name of its own, that unpacks to no more than `MAX_BYTES`."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except _BAD_ZIP as error:
        raise _unreadable(path, error) from None
    infos = archive.infolist()
    size = sum(info.file_size for info in infos)
    if len(infos) > MAX_PARTS:
        raise PriorError(f"{path} has {len(infos)} parts, over the limit of {MAX_PARTS}", "save the map alone")
    if len(set(archive.namelist())) < len(infos):
        raise _unreadable(path, "two of its parts have one name")
    if size > MAX_BYTES:
        raise PriorError(f"{path} unpacks to {size} bytes, over the limit of {MAX_BYTES}", "save the map alone")
    return archive


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    """Return a part of a zip, its checksum verified."""
    try:
        return archive.read(name)
    except _BAD_ZIP as error:
        raise _unreadable(path, error) from None


# What zipfile raises on broken archives; RuntimeError: an encrypted part, NotImplementedError: an unknown compression.
_BAD_ZIP = (OSError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, struct.error, RuntimeError, OverflowError, MemoryError)


def _unreadable(path: Path, why: object) -> PriorError:
    return PriorError(f"{path} is not a readable NumPy file: {str(why)[:300]}", f"pickled objects are never loaded; {_PLAIN}")


def _decode_torch(path: Path, data: bytes, key: str | None) -> NDArray[Any] | Mapping[str, NDArray[Any]]:
    try:
        import torch
    except ImportError:
        raise PriorError(f"{path} needs PyTorch to be read", "pip install torch, or save it as .npy where PyTorch is installed") from None

    def plain(value: object, name: str) -> NDArray[Any]:
        if not isinstance(value, torch.Tensor):
            raise PriorError(f"{path}: {name} is a {type(value).__name__}, not a tensor", "save a tensor, or a dict of tensors")
        if value.numel() > MAX_VALUES:
            raise PriorError(f"{path}: {name} has {value.numel()} values, over the limit of {MAX_VALUES}", "save the map alone")
        array: NDArray[Any] = (value if value.is_complex() else value.to(torch.float64)).detach().numpy()
        return array

    try:
        _check_torch(path, data)
        loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        if isinstance(loaded, dict):
            if not all(isinstance(name, str) for name in loaded):
                raise PriorError(f"{path} is a dict whose keys are not texts", "save a tensor, or a dict of tensors by name")
            name = _chosen(path, list(loaded), key)
            return {name: plain(loaded[name], name)}
        return plain(loaded, "the content")
    except PriorError:
        raise
    except Exception as error:  # torch.load raises nearly anything on a damaged file
        why = str(error).split("\n", 1)[0][:300]
        raise PriorError(f"{path} is not a readable file of tensors: {why}", _TENSOR) from None


def _check_torch(path: Path, data: bytes) -> None:
    """Verify every checksum, and that the pickle inside refers only to functions that build tensors.

    Raises:
        PriorError: the file has the format from before PyTorch 1.6, is damaged, or holds something else.
    """
    if not data.startswith(b"PK"):
        raise PriorError(f"{path} is not a readable file of tensors: no zip", f"{_TENSOR}, with PyTorch 1.6 or newer")
    with _opened(path, data) as archive:
        programs = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
        if len(programs) != 1:
            raise PriorError(f"{path} is not a readable file of tensors: {len(programs)} data.pkl in it", _TENSOR)
        parts = {name: _member(path, archive, name) for name in archive.namelist()}  # verifies the checksums, which PyTorch does not
    for steps, (code, argument, _) in enumerate(pickletools.genops(parts[programs[0]])):
        if (
            code.name in ("GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4", "BYTEARRAY8", "NEXT_BUFFER")
            and argument not in _TORCH_NAMES
        ):
            raise PriorError(f"{path} is not a readable file of tensors: it asks for {str(argument or code.name)[:100]}", _TENSOR)
        if steps > _MOST_STEPS:
            raise PriorError(f"{path} is not a readable file of tensors: it holds too many", _TENSOR)
