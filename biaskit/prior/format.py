"""The bytes of a prior file, schema 1: named float32 and int32 tensors with flat `biaskit.*` strings, in canonical safetensors.

This module handles tensors and strings; `value.py` interprets and validates them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray

from biaskit.errors import PriorError

SCHEMA = 1
REBUILD = "calibrate it again with `biaskit calibrate`, or fetch the file again"

_PREFIX = "biaskit."
_DTYPES = {"F32": np.dtype("<f4"), "I32": np.dtype("<i4")}
_DOUBLE = {"F64": np.dtype("<f8")}
_SHORT_HEADER = 4 << 20
_HEADER_LIMIT = 100_000_000  # the safetensors format's own limit


def pack(tensors: Mapping[str, NDArray[Any]], meta: Mapping[str, str], *, double: bool = False) -> bytes:
    """Write float and int tensors and metadata as a prior file: sorted keys, no dates, so that equal contents are equal bytes.

    With `double` float tensors are float64, as FitPrune's schedules are.

    Not `safetensors.numpy.save`, which writes the metadata in random order.

    >>> data = pack({"visual_mass": np.ones(1, dtype=np.float32)}, {"model": "org/name"})
    >>> len(data), unpack(data, "prior")[1]
    (148, {'model': 'org/name'})
    """
    header: dict[str, object] = {"__metadata__": {_PREFIX + key: value for key, value in meta.items()} | {_PREFIX + "schema": str(SCHEMA)}}
    blobs, end = [], 0
    for name in sorted(tensors):
        code = ("F64" if double else "F32") if tensors[name].dtype.kind == "f" else "I32"
        blob = tensors[name].astype((_DTYPES | _DOUBLE)[code]).tobytes()
        header[name] = {"dtype": code, "shape": list(tensors[name].shape), "data_offsets": [end, end + len(blob)]}
        blobs.append(blob)
        end += len(blob)
    text = json.dumps(header, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *blobs])


def unpack(data: bytes, name: str, *, double: bool = False) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read a prior file's tensors (read-only) and metadata (prefix and schema removed); errors call the file `name`.

    Raises:
        PriorError: not safetensors, not a prior, too new, or tensors of another dtype.
    """
    meta = read_metadata(data, name)
    deserialize: Callable[[bytes], list[tuple[str, dict[str, Any]]]] = safetensors.deserialize
    try:
        entries = deserialize(data)
    except safetensors.SafetensorError as error:
        raise PriorError(f"{name} is damaged: {error}", REBUILD) from None
    tensors, known = {}, _DOUBLE if double else _DTYPES
    for key, entry in entries:
        if entry["dtype"] not in known:
            raise PriorError(f"{name}: tensor {key!r} is {entry['dtype']}, not {' or '.join(known)}", REBUILD)
        tensors[key] = np.frombuffer(bytes(entry["data"]), dtype=known[entry["dtype"]]).reshape(entry["shape"])
    return tensors, meta


def is_prior(path: Path) -> bool:
    """True if a file's header declares a prior; the contents are not checked."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
            size = int.from_bytes(start, "little")
            if size > _SHORT_HEADER:
                return False
            read_metadata(start + file.read(size), str(path))
    except (OSError, PriorError):
        return False
    return True


def read_metadata(data: bytes, name: str) -> dict[str, str]:
    """Read the `biaskit.*` strings of a file of which `data` is at least the header, and check the schema.

    Raises:
        PriorError: not safetensors, no biaskit schema, or a newer one.
    """
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(_HEADER_LIMIT, len(data) - 8):
        what = f"{name} is not a safetensors file, or is cut short" if data else f"{name} is empty"
        raise PriorError(what, f"{REBUILD}; NumPy and PyTorch files come in by `biaskit priors import`")
    try:
        header = json.loads(data[8 : 8 + size].decode())
        meta = header.get("__metadata__", {}) if isinstance(header, dict) else None
    except (ValueError, RecursionError):
        meta = None
    if not isinstance(meta, dict) or not all(isinstance(value, str) for value in meta.values()):
        raise PriorError(f"{name} has no readable safetensors header", REBUILD)
    found = {key.removeprefix(_PREFIX): value for key, value in meta.items() if key.startswith(_PREFIX)}
    schema = found.pop("schema", None)
    if schema is None:
        raise PriorError(f"{name} is not a biaskit prior: it has no biaskit.schema", "bring other arrays in with `biaskit priors import`")
    if not re.fullmatch("[1-9][0-9]{0,8}", schema):
        raise PriorError(f"{name} has schema {schema!r}, which is not a whole number from 1", REBUILD)
    if int(schema) > SCHEMA:
        raise PriorError(f"{name} has schema {schema}, this biaskit reads up to {SCHEMA}", "upgrade it: pip install -U biaskit")
    return found


def read_file(path: Path) -> bytes:
    """Read a prior file, its header first, so that a model checkpoint of many gigabytes is refused before it is read.

    Raises:
        PriorError: missing, unreadable, or its header is not a prior's.
    """
    try:
        with path.open("rb") as file:
            head = file.read(8)
            head += file.read(min(int.from_bytes(head, "little"), _HEADER_LIMIT))
            read_metadata(head, str(path))
            return head + file.read()
    except IsADirectoryError:
        raise PriorError(f"{path} is a folder", f"name a file in it: {path}/NAME.safetensors") from None
    except FileNotFoundError:
        raise PriorError(f"{path} does not exist", "`biaskit priors list` shows the priors that are here") from None
    except OSError as error:
        raise PriorError(f"{path} cannot be read: {error.strerror or error}", "check its permissions and the disk") from None
