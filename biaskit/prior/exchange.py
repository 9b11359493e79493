"""Import maps of other tools as priors, and export priors as plain arrays.

Published maps come in two forms: the bias itself, or a *weight*, the reciprocal, which attention is multiplied by. They have no attention
mass and no number of images: an import is normalised to mean 1 and has `kind = imported`.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from biaskit.errors import PriorError
from biaskit.files import VERSION, write_file
from biaskit.prior.array_file import decode_array, exported_layers, read_array_file
from biaskit.prior.format import SCHEMA
from biaskit.prior.layers import Layers, read_layers
from biaskit.prior.value import PlaneStats, Prior


def import_prior(
    path: str | os.PathLike[str],
    *,
    as_: Literal["bias", "weight"],
    model_type: str,
    layer: Layers | None = None,
    rows: int | None = None,
    cols: int | None = None,
    model: str = "",
    revision: str = "",
    plane: str = "image",
    key: str | None = None,
    note: str = "",
) -> Prior:
    """Read a map of another tool as a Prior.

    The result is normalised to mean 1 at every layer, and `visual_mass` is 1: such a file does not contain the share of attention on
    visual tokens, so only the shape of the map, not its level, can be compared with calibrated priors.

    Args:
        path: a `.npy`, `.npz`, `.pt` (tensor, dict of tensors) or `.json` file: [N], [rows, cols], [layers, N] or [layers, rows, cols].
        as_: `bias`: the values are A_bias up to a factor. `weight`: they are reciprocals, a_bias = 1 / weight.
        model_type: the architecture, `config.model_type`.
        layer: the 0-based decoder layer whose attention was read (for a paper's K that is K−1), or one for each entry of the first axis (1,
            (1, 4), "0-7"). What `export_prior` wrote as `.npz`, `.pt` or `.json` names its layers: then those wanted of them, or all.
        rows, cols: size of the grid; may be left out if the array is two-dimensional or N is a square.
        model, revision, note: provenance, if known. plane: name of the map's plane.
        key: which array of an `.npz`, a dict or a JSON object; by default the plane's mean of what `export_prior` wrote.

    Raises:
        PriorError: unreadable, pickled or truncated file; NaN, infinity or negative values; a weight of 0; a size that does not fit.
    """
    _check_words(as_, model_type)
    wanted, path = read_layers(layer), Path(path)
    data = read_array_file(path)
    held = None if key is not None else exported_layers(path, data)
    layers = wanted if held is None else held
    if layers is None or isinstance(layers, str):
        raise PriorError(f"layer is {layer!r}: {path} does not say which layers its maps are of", "name them, such as 1,4 or 0-7")
    raw = decode_array(path, data, key if held is None else f"{plane}.mean")
    values = _as_bias(_as_maps(raw, layers, rows, cols, path), as_, path)
    meta = {
        "kind": "imported",
        "version": VERSION,
        "model_type": model_type,
        "model": model,
        "revision": revision,
        "n_images": "0",
        "source": path.name + (f":{key}" if key else ""),
        "source_fingerprint": f"sha256:{hashlib.sha256(data).hexdigest()}",
        "reduction": f"imported as {as_}{', a_bias = 1 / weight' if as_ == 'weight' else ''}, mean 1 per layer",
        "note": note,
    }
    mass = np.ones(len(layers), dtype=np.float32)
    prior = Prior({plane: PlaneStats(values)}, layers, mass, {name: text for name, text in meta.items() if text})
    return prior if held is None else narrow(prior, wanted, None)


def _check_words(as_: str, model_type: str) -> None:
    if as_ not in ("bias", "weight"):
        raise PriorError(f"values cannot be read as {as_!r}", "choose bias, or weight for factors that divide the bias away")
    if not model_type:
        raise PriorError("the model type is empty", "give the config.model_type of the model, such as llava or qwen2_5_vl")


def _as_maps(values: NDArray[np.float64], layers: tuple[int, ...], rows: int | None, cols: int | None, path: Path) -> NDArray[np.float64]:
    """Bring values to [layers, rows, cols]."""
    shape = values.shape
    if len(layers) > 1 or (values.ndim > 1 and shape[0] == 1):
        if not shape or shape[0] != len(layers):
            raise PriorError(f"{path} has shape {list(shape)}, but {len(layers)} layers are named", _name_all(shape))
        shape = shape[1:]
    if len(shape) not in (1, 2) or 0 in shape:
        form = "a map is [N] or [rows, cols], with an axis in front for several layers"
        raise PriorError(f"{path} has shape {list(values.shape)}, which is not a map", _name_all(shape) if len(shape) == 3 else form)
    if len(shape) == 1:
        rows, cols = _grid(shape[0], rows, cols, path)
    elif (wanted := (rows or shape[0], cols or shape[1])) != shape:
        hint = _name_all(shape) if shape[1] == wanted[0] * wanted[1] else "check rows and cols"
        raise PriorError(f"{path} has shape {list(values.shape)}, which is not {wanted[0]} rows x {wanted[1]} cols", hint)
    else:
        rows, cols = shape
    return values.reshape(len(layers), rows, cols)


def _name_all(shape: tuple[int, ...]) -> str:
    """Return the hint for an array of several maps, whose layers the user must name."""
    return (
        f"name one layer for each of the {shape[0]} maps, 0-{shape[0] - 1} if they are the first {shape[0]} layers: a prior of several "
        "layers serves each of them"
    )


def _grid(n: int, rows: int | None, cols: int | None, path: Path) -> tuple[int, int]:
    """Find rows x cols for N values."""
    if rows is None and cols is None:
        side = math.isqrt(n)
        if side * side != n:
            raise PriorError(f"{path} has {n} values, which is not a square", "give the grid: --grid ROWSxCOLS")
        return side, side
    known = max(1, rows or cols or 1)
    rows, cols = rows or n // known, cols or n // known
    if rows * cols != n or rows < 1:
        raise PriorError(
            f"{path} has {n} values, which do not fill {rows} rows x {cols} cols",
            "check the grid (--grid ROWSxCOLS), and that no text tokens are in it",
        )
    return rows, cols


def _as_bias(values: NDArray[np.float64], as_: str, path: Path) -> NDArray[np.float32]:
    """Turn values [layers, rows, cols] into A_bias with mean 1 at every layer."""
    if not np.isfinite(values).all():
        raise PriorError(
            f"{path} has {int((~np.isfinite(values)).sum())} values that are not finite", "a bias is finite everywhere; fix the file"
        )
    if values.min() < 0:
        raise PriorError(
            f"{path} has negative values, down to {values.min():.4g}",
            "attention is not negative: take logarithms and differences back first",
        )
    if as_ == "weight":
        if values.min() == 0:
            raise PriorError(f"{path} has weights of 0, whose bias would be infinite", "is it a bias, not a weight? then import it as bias")
        # Scaled before and after, so that neither the reciprocal nor the sum overflows.
        values = values.min(axis=(1, 2), keepdims=True) / values
    top = values.max(axis=(1, 2), keepdims=True)
    if not top.all():
        raise PriorError(f"{path} is 0 everywhere at a layer", "fix the file")
    values = values / top
    bias: NDArray[np.float32] = (values / values.mean(axis=(1, 2), keepdims=True)).astype(np.float32)
    return bias


def export_prior(
    prior: Prior, path: str | os.PathLike[str], *, layer: Layers | None = None, plane: str | None = None, force: bool = False
) -> None:
    """Write a prior as `.npy`, `.npz`, `.pt` or `.json`, whole or for one layer or plane. All but `.npy` come back with `import_prior`.

    `.npy`: one plane's mean (the primary one unless named), [L, rows, cols], or [rows, cols] for one layer. `.npz` and `.pt`: arrays with
    the names and shapes of the prior file. `.json`: everything, also the metadata; every number reads back as the same float32.

    Raises:
        PriorError: no such layer or plane, or another ending.
        FileError: the file exists and `force` is not set, or it cannot be written.

    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> prior = Prior({"image": PlaneStats(np.ones((1, 2, 2), np.float32))}, (1,), np.ones(1, np.float32), {"model_type": "llava"})
    >>> path = Path(mkdtemp()) / "map.npy"
    >>> export_prior(prior, path, layer=1)
    >>> import_prior(path, as_="bias", model_type="llava", layer=1)
    Prior(llava, imported, layer 1; image 2×2)
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".npy":
        name = plane or prior.primary
        chosen = read_layers(layer)
        mean = narrow(prior, chosen, name).planes[name].mean
        buffer = io.BytesIO()
        np.save(buffer, mean[0] if chosen not in (None, "all") and len(mean) == 1 else mean, allow_pickle=False)
        data = buffer.getvalue()
    elif suffix == ".npz":
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **narrow(prior, layer, plane).tensors())
        data = buffer.getvalue()
    elif suffix == ".pt":
        data = _torch_bytes(narrow(prior, layer, plane))
    elif suffix == ".json":
        data = (json.dumps(_as_json(narrow(prior, layer, plane)), ensure_ascii=False) + "\n").encode()
    else:
        raise PriorError(
            f"a prior cannot be written as {path.suffix or path.name!r}", "choose a name that ends in .npy, .npz, .pt or .json"
        )
    write_file(path, data, force)


def narrow(prior: Prior, layers: Layers | None, plane: str | None) -> Prior:
    """Return the prior of some decoder layers, one plane, or both; None keeps all.

    Raises:
        PriorError: no such layer or plane.

    >>> values = np.ones((2, 3, 3), dtype=np.float32)
    >>> prior = Prior({"image": PlaneStats(values)}, (1, 4), np.ones(2, dtype=np.float32), {})
    >>> narrow(prior, 4, None).layers
    (4,)
    """
    if plane is not None:
        prior.map(plane, prior.layers[0])
        prior = replace(prior, planes={plane: prior.planes[plane]})
    wanted = read_layers(layers)
    if wanted is None or wanted == "all":
        return prior
    chosen = sorted(set(wanted))
    at = [prior.layer(layer) for layer in chosen]

    def cut(stats: PlaneStats) -> PlaneStats:
        parts = {name: getattr(stats, name) for name in ("mean", "var", "head_mean")}
        kept = {name: values[at] for name, values in parts.items() if values is not None}
        groups = None if stats.group_mean is None else stats.group_mean[:, at]
        return replace(stats, group_mean=groups, **kept)

    planes = {name: cut(stats) for name, stats in prior.planes.items()}
    return replace(prior, planes=planes, layers=tuple(chosen), visual_mass=prior.visual_mass[at])


def _torch_bytes(prior: Prior) -> bytes:
    try:
        import torch
    except ImportError:
        raise PriorError("writing .pt needs PyTorch", "pip install torch, or choose .npy") from None
    buffer = io.BytesIO()
    torch.save({key: torch.from_numpy(values.copy()) for key, values in prior.tensors().items()}, buffer)
    return buffer.getvalue()


def _numbers(values: NDArray[Any]) -> Any:
    """Nested lists; a float32 becomes the shortest decimal that reads back as the same float32 (0.1, not 0.10000000149)."""
    return values.astype(str).astype(np.float64).tolist() if values.dtype.kind == "f" else values.tolist()


def _as_json(prior: Prior) -> dict[str, Any]:
    planes = {}
    for name, stats in prior.planes.items():
        held = {part.name: getattr(stats, part.name) for part in fields(stats)}
        planes[name] = {key: _numbers(value) if isinstance(value, np.ndarray) else value for key, value in held.items()}
    return {
        "schema": SCHEMA,
        "meta": dict(prior.meta),
        "layers": list(prior.layers),
        "visual_mass": _numbers(prior.visual_mass),
        "planes": planes,
    }
