"""Read one array from other tools' files: `.npy`, `.npz`, `.pt`. Hostile files may be offered: nothing pickled is ever loaded."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biaskit.errors import PriorError

FORMATS = (".npy", ".npz", ".pt")

_PLAIN = "save it again as a plain float array: numpy.save(path, values)"


def read_array_file(path: Path) -> bytes:
    """Read the bytes of a `.npy`, `.npz` or `.pt` file.

    Raises:
        PriorError: another ending, missing or unreadable.
    """
    if path.suffix.lower() not in FORMATS:
        raise PriorError(f"{path} is not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file", _PLAIN)
    try:
        return path.read_bytes()
    except OSError as error:
        raise PriorError(f"{path} cannot be read: {error.strerror or error}", "check the path and its permissions") from None


def decode_array(path: Path, data: bytes, key: str | None) -> NDArray[np.float64]:
    """Read the one array that is meant, as float64, without running anything that may hide in the file.

    Args:
        path: where the bytes are from; its ending says what they are.
        data: the file.
        key: which array of an `.npz` or of a dict of tensors; None where there is one.

    Raises:
        PriorError: damaged or pickled content, no such array, several and no key, or values that are not real numbers.
    """
    held = _decode_torch(path, data) if path.suffix.lower() == ".pt" else _decode_numpy(path, data)
    if isinstance(held, Mapping):
        names = ", ".join(map(str, held)) or "nothing"
        if key is None and len(held) == 1:
            (key,) = held
        if key is None:
            raise PriorError(f"{path} holds several arrays: {names}", "say which with --key")
        if key not in held:
            raise PriorError(f"{path} holds no {key!r}, only {names}", "say which with --key")
        held = held[key]
    elif key is not None:
        raise PriorError(f"{path} holds a single array, there is no {key!r} in it", "leave the key out")
    array = np.asarray(held)
    if array.dtype.kind not in "fiu":
        raise PriorError(f"{path} holds {array.dtype} values, not real numbers", _PLAIN)
    return array.astype(np.float64)


def _decode_numpy(path: Path, data: bytes) -> NDArray[Any] | Mapping[str, NDArray[Any]]:
    try:
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded:
                return {name: loaded[name] for name in loaded.files}
    except Exception as error:  # a hostile header makes NumPy raise nearly anything
        raise PriorError(f"{path} is not a readable NumPy file: {error}", f"pickled objects are never loaded; {_PLAIN}") from None
    array: NDArray[Any] = loaded
    return array


def _decode_torch(path: Path, data: bytes) -> NDArray[Any] | Mapping[str, NDArray[Any]]:
    try:
        import torch
    except ImportError:
        raise PriorError(f"{path} needs PyTorch to be read", "pip install torch, or save it as .npy where PyTorch is installed") from None

    def plain(value: object, name: str) -> NDArray[Any]:
        if not isinstance(value, torch.Tensor):
            raise PriorError(f"{path}: {name} is a {type(value).__name__}, not a tensor", "save a tensor, or a dict of tensors")
        array: NDArray[Any] = (value if value.is_complex() else value.to(torch.float64)).detach().numpy()
        return array

    try:
        loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        if isinstance(loaded, dict):
            return {str(name): plain(value, str(name)) for name, value in loaded.items()}
        return plain(loaded, "the content")
    except PriorError:
        raise
    except Exception as error:  # torch.load raises nearly anything on a damaged file
        why = str(error).split("\n", 1)[0]
        raise PriorError(
            f"{path} is not a readable file of tensors: {why}", "other pickled objects are never loaded; save the tensor alone"
        ) from None
