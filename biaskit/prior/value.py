"""The Prior value: A_bias maps per plane and layer with their provenance, validation, save and load.

The file format is described for readers in `priors/README.md`. The same Prior gives the same bytes, so a file is its own fingerprint.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from biaskit.errors import PriorError
from biaskit.files import write_file
from biaskit.grid import Layout
from biaskit.prior.format import REBUILD, pack, read_file, read_metadata, unpack
from biaskit.prior.picture import SHOWN, html, png
from biaskit.prior.planes import Floats, PlaneStats, check_plane, check_values, primary_first
from biaskit.prior.resample import resample
from biaskit.prior.revision import revision_warning, settings_warning

__all__ = ["KINDS", "ROWS", "PlaneStats", "Prior", "Rows"]

KINDS = ("calibrated", "imported")

Rows = Literal["last", "question", "null"]
"""Rows of attention: the last prompt token's; the mean of the question's (the text after the image); the null row (that text's first)."""
ROWS: tuple[Rows, ...] = ("last", "question", "null")

_PARTS = ("mean", "var", "group_mean", "group_count", "head_mean")


@dataclass(frozen=True, eq=False)
class Prior:
    """A calibrated map A_bias (D2Pruner, section 3) for one model, prompt template and set of layers.

    Attributes:
        planes: `image`, or `base`, `canvas`, `thumbnail`, `newline` … → statistics.
        layers: 0-based decoder layers whose attention was read, ascending: the index into axis L (the paper's K needs K−1).
        visual_mass: [L] float32, mean over images of the attention mass on all visual tokens; the maps average to about this.
        meta: provenance, flat strings, without the file's `biaskit.` prefix; without `schema` and `count.*`, which are added on save.

    Raises:
        PriorError: the parts contradict each other or have impossible values.

    >>> values = np.linspace(0.5, 1.5, 16, dtype=np.float32).reshape(1, 4, 4)
    >>> prior = Prior({"image": PlaneStats(values)}, (1,), np.ones(1, dtype=np.float32), {"model": "org/name", "model_type": "llava"})
    >>> prior.map("image", 1)[0]
    array([0.5       , 0.56666666, 0.63333333, 0.69999999])
    >>> Prior.from_bytes(prior.to_bytes())
    Prior(org/name, imported, layer 1; image 4×4)
    """

    planes: Mapping[str, PlaneStats]
    layers: tuple[int, ...]
    visual_mass: Floats
    meta: Mapping[str, str]

    def __post_init__(self) -> None:
        _check(self)

    @property
    def model(self) -> str:
        """The model's id or folder, "" if unknown."""
        return self.meta.get("model", "")

    @property
    def model_type(self) -> str:
        """The architecture (`config.model_type`), "" if unknown."""
        return self.meta.get("model_type", "")

    @property
    def revision(self) -> str:
        """The checkpoint's commit, "" if unknown."""
        return self.meta.get("revision", "")

    @property
    def n_images(self) -> int:
        """Images that were averaged; 0 if unknown."""
        return int(self.meta.get("n_images", "0"))

    @property
    def rows(self) -> Rows | None:
        """Which rows of attention were averaged; None if unknown. Calibrated priors without this entry have "last"."""
        found = self.meta.get("rows", None if self.meta.get("kind") == "imported" else "last")
        return cast("Rows | None", found)

    @property
    def primary(self) -> str:
        """The plane for figures and verdicts: the first of image, canvas, base, else the largest."""
        return primary_first(self.planes)[0]

    def layer(self, k: int) -> int:
        """Return the index of decoder layer k on axis L.

        Raises:
            PriorError: the prior does not have that layer.
        """
        if k not in self.layers:
            held = ", ".join(map(str, self.layers))
            raise PriorError(f"this prior has no layer {k}, only {held}", f"choose one of {held}, or calibrate with `--layers {k}`")
        return self.layers.index(k)

    def map(self, plane: str, layer: int) -> NDArray[np.float64]:
        """Return a copy of one plane's mean at decoder layer `layer`: [rows, cols] float64, in attention × N.

        Raises:
            PriorError: no such plane or layer.
        """
        if plane not in self.planes:
            held = ", ".join(sorted(self.planes))
            hint = "use the prior of the same model and image setting, or calibrate one"
            raise PriorError(f"this prior has no plane {plane!r}, only {held}", hint)
        mean: NDArray[np.float64] = self.planes[plane].mean[self.layer(layer)].astype(np.float64)
        return mean

    def for_layout(self, layout: Layout, layer: int) -> NDArray[np.float64]:
        """Return a_bias for every visual token of one sample: [N] float64, in attention × N.

        Each plane's map is resampled (bilinear, `align_corners=False`) to that plane's size in the sample; the relative level of the planes
        is kept.

        Raises:
            PriorError: no such layer, or the sample has a plane that the prior lacks.
        """
        if not layout.planes:
            return np.zeros(0)
        values: NDArray[np.float64] = layout.unfold([resample(self.map(p.name, layer), p.rows, p.cols) for p in layout.planes])
        return values

    def check_model(
        self, model_type: str, revision: str | None = None, model: str | None = None, processor: Mapping[str, Any] | None = None
    ) -> None:
        """Refuse a prior of another architecture; warn about another model id, revision or processor setting.

        Args:
            model_type, revision, model: of the checkpoint it is used with.
            processor: its processor's settings (`Loaded.processor_settings`), if known.

        Raises:
            PriorError: the prior belongs to another `model_type`, or does not name one.
        """
        if self.model_type != model_type:
            raise PriorError(
                f"this prior is for model type {self.model_type or 'unknown'!r}, not {model_type!r}",
                "a prior holds for the model it was calibrated on: run `biaskit calibrate --model …` for this one",
            )
        if self.model and model and self.model != model:
            warnings.warn(f"this prior was calibrated on model {self.model!r}, and is used with {model!r}", stacklevel=2)
        if text := revision_warning(self.revision, revision or ""):
            warnings.warn(text, stacklevel=2)
        if text := settings_warning(self.meta.get("processor", ""), processor or {}):
            warnings.warn(text, stacklevel=2)

    def __repr__(self) -> str:
        """One line: model, images, layers and planes."""
        return f"Prior({self._words()})"

    def _words(self) -> str:
        images = f"{self.n_images} images of {self.meta.get('source') or 'unknown source'}" if self.n_images else "imported"
        layers = f"layer{'s' * (len(self.layers) > 1)} {', '.join(map(str, self.layers))}"
        planes = ", ".join(f"{name} {stats.mean.shape[1]}×{stats.mean.shape[2]}" for name, stats in self.planes.items())
        return f"{self.model or self.model_type or 'unknown model'}, {images}, {layers}; {planes}"

    def _repr_html_(self) -> str:
        """For notebooks: the line of `repr`, and the primary plane of the first layers as small pictures."""
        return html(self._words(), {layer: self.map(self.primary, layer) for layer in self.layers[:SHOWN]}, len(self.layers))

    def _repr_png_(self) -> bytes:
        """The primary plane at the first layer as a small picture."""
        return png(self.map(self.primary, self.layers[0]))

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the file's tensors by name: `visual_mass`, `layer_index` [L] int32, and PLANE.PART for the parts of `PlaneStats`.

        >>> values = np.ones((1, 4, 4), dtype=np.float32)
        >>> {name: found.shape for name, found in Prior({"image": PlaneStats(values)}, (1,), np.ones(1, np.float32), {}).tensors().items()}
        {'visual_mass': (1,), 'layer_index': (1,), 'image.mean': (1, 4, 4)}
        """
        held = {f"{plane}.{part}": getattr(stats, part) for plane, stats in self.planes.items() for part in _PARTS}
        layers = np.asarray(self.layers, dtype=np.int32)
        return {"visual_mass": self.visual_mass, "layer_index": layers, **{key: part for key, part in held.items() if part is not None}}

    def to_bytes(self) -> bytes:
        """Return the file: safetensors with a canonical header (sorted keys, no dates), so that equal priors are equal bytes."""
        return pack(self.tensors(), {**self.meta, **{f"count.{plane}": str(stats.count) for plane, stats in self.planes.items()}})

    def save(self, path: str | os.PathLike[str], force: bool = False) -> None:
        """Write the file atomically: readers see the old file or the complete new one.

        Raises:
            FileError: the file exists and `force` is not set, or cannot be written.
        """
        write_file(Path(path), self.to_bytes(), force)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Prior:
        """Read and validate a prior file.

        Raises:
            PriorError: missing, unreadable, not a prior, too new, or broken; the hint says what to do.
        """
        path = Path(path)
        return cls.from_bytes(read_file(path), str(path))

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "prior") -> Prior:
        """Read and validate the bytes of a prior file; errors call it `name`.

        Raises:
            PriorError: not a prior, too new, or broken.
        """
        if read_metadata(data, name).get("kind") == "schedule":
            raise PriorError(f"{name} is a schedule of FitPrune, not a prior", "a method takes it: fitprune@schedule=FILE")
        tensors, meta = unpack(data, name)
        try:
            return _assemble(tensors, meta)
        except PriorError as error:
            raise PriorError(f"{name}: {error.message}", error.hint) from None


def flat_prior(sizes: Mapping[str, tuple[int, int]], layers: Iterable[int], meta: Mapping[str, str]) -> Prior:
    """Return a prior without bias, 1 everywhere, from plane → (rows, cols) as of a family's `canonical`, decoder layers and provenance.

    >>> flat_prior({"image": (24, 24)}, [4, 1], {"model_type": "llava"}).layers
    (1, 4)
    """
    wanted = tuple(sorted(set(layers)))
    planes = {name: PlaneStats(np.ones((len(wanted), *size), dtype=np.float32)) for name, size in sizes.items()}
    return Prior(planes, wanted, np.ones(len(wanted), dtype=np.float32), {"kind": "imported", **meta})


def _assemble(tensors: dict[str, NDArray[Any]], meta: dict[str, str]) -> Prior:
    """Make a Prior of a file's tensors and counts; unknown tensors are refused."""
    for key in ("visual_mass", "layer_index"):
        if key not in tensors:
            raise PriorError(f"tensor {key} is missing", REBUILD)
    layers, mass = tensors.pop("layer_index"), tensors.pop("visual_mass")
    if layers.dtype != np.int32 or layers.ndim != 1:
        raise PriorError(f"layer_index is {layers.dtype} {list(layers.shape)}, not int32 [layers]", REBUILD)
    parts: dict[str, dict[str, Any]] = {}
    for key, values in tensors.items():
        plane, _, part = key.rpartition(".")
        if not plane or part not in _PARTS:
            raise PriorError(f"unknown tensor {key!r}", REBUILD)
        parts.setdefault(plane, {})[part] = values
    for plane, held in parts.items():
        if "mean" not in held:
            raise PriorError(f"tensor {f'{plane}.mean'!r} is missing", REBUILD)
        held["count"] = _whole(f"count.{plane}", meta.pop(f"count.{plane}", ""))
    for key in meta:
        if key.startswith("count."):
            raise PriorError(f"biaskit.{key} counts a plane that has no tensors", REBUILD)
    planes = {plane: PlaneStats(**parts[plane]) for plane in sorted(parts)}
    return Prior(planes, tuple(layers.tolist()), mass, dict(sorted(meta.items())))


def _whole(key: str, text: str) -> int:
    if not re.fullmatch("[0-9]{1,18}", text):
        raise PriorError(f"biaskit.{key} is {text[:40]!r}, not a whole number", REBUILD)
    return int(text)


def _check(prior: Prior) -> None:
    """Check that the parts of a prior are consistent. Raises PriorError."""
    layers = prior.layers
    if not layers or min(layers) < 0 or any(b <= a for a, b in pairwise(layers)):
        raise PriorError(f"layers {list(layers)} are not ascending, unique and from 0", REBUILD)
    check_values("visual_mass", prior.visual_mass, (len(layers),))
    if prior.visual_mass.max() > 1.01:  # half-precision softmax rows may sum to slightly more than 1
        raise PriorError(f"visual_mass reaches {prior.visual_mass.max():.4g}, but attention sums to 1", REBUILD)
    if not prior.planes:
        raise PriorError("there is no plane", REBUILD)
    for name, stats in prior.planes.items():
        if not re.fullmatch("[A-Za-z0-9_-]+", name):
            raise PriorError(f"plane name {name!r} is not made of letters, digits, - and _", "planes are called image, base, canvas, …")
        check_plane(name, stats, len(layers))
    for key, text in prior.meta.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise PriorError(f"metadata {key!r}: {text!r} is not text", "write every value as a string, lists as JSON")
        if not key or key == "schema" or key.startswith("count."):
            raise PriorError(f"metadata key {key!r} belongs to the file", "leave it out: it is written on save")
        try:
            (key + text).encode()
        except UnicodeEncodeError:
            raise PriorError(f"metadata {key!r} is not valid Unicode", "remove the lone surrogates from the text") from None
    _whole("n_images", prior.meta.get("n_images", "0"))
    if prior.meta.get("kind", KINDS[0]) not in KINDS:
        raise PriorError(f"kind is {prior.meta['kind']!r}, not {' or '.join(KINDS)}", REBUILD)
    if prior.meta.get("rows", ROWS[0]) not in ROWS:
        raise PriorError(f"rows is {prior.meta['rows']!r}, not {' or '.join(ROWS)}", REBUILD)
