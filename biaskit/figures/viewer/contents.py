"""What the interactive page holds: plain values, packed for its script. Runs no model."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.colors import to_hex
from numpy.typing import NDArray
from PIL.Image import Image

from biaskit.errors import BiaskitError
from biaskit.figures.colours import FAINTEST, HEADROOM, RATIO, RELATIVE, ROBUST, STRONGEST, colours
from biaskit.figures.panels import caption, shown_planes
from biaskit.figures.patches import EDGE, PADDING, VEIL, VEIL_OPAQUE
from biaskit.grid import Layout
from biaskit.prior.bias.report import report
from biaskit.prior.value import Prior

SIDE = 1024  # pixels of the longer side of the picture in the page
Kept = Mapping[tuple[int | None, float, float | None], NDArray[np.int64]]
"""(K, or None if it is fixed; retention; strength τ, or None if not debiased) → [n] ascending indices."""


@dataclass(frozen=True, eq=False)
class Choices:
    """What one method keeps.

    Attributes:
        label: in the methods' notation. title: for display. colour: its colour in every figure. kept: the kept indices at every setting.
    """

    label: str
    title: str
    colour: str
    kept: Kept


@dataclass(frozen=True, eq=False)
class Sample:
    """A prompt about the picture, a model's attention, and what methods keep.

    Attributes:
        model, prompt: which. layout: the visual tokens, with their places in the picture.
        attention: K → [N] attention of the last prompt token at layer K − 1. choices: of the methods.
        retentions, strengths: the settings that the choices have, in the order of the sliders.
    """

    model: str
    prompt: str
    layout: Layout
    attention: Mapping[int, NDArray[np.float32]]
    choices: Sequence[Choices]
    retentions: Sequence[float]
    strengths: Sequence[float]


@dataclass(frozen=True, eq=False)
class Contents:
    """Everything of a page.

    Attributes:
        priors: by name, at least one. layers: those to show, None for all.
        picture: drawn beneath the maps; None for maps only. name: of the picture. sample: None if no model was run.
    """

    priors: Mapping[str, Prior]
    layers: Sequence[int] | None = None
    picture: Image | None = None
    name: str = ""
    sample: Sample | None = None
    title: str = "Positional bias"

    def packed(self) -> dict[str, Any]:
        """Return what the page's script reads: JSON values; arrays as base64 of little-endian float32, sets of tokens as base64 of bits.

        Raises:
            BiaskitError: no prior. PriorError: a prior has none of the layers.
        """
        if not self.priors:
            raise BiaskitError("no prior to show", "give at least one prior")
        return {
            "title": self.title,
            "priors": [_prior(name, prior, self.layers) for name, prior in self.priors.items()],
            "picture": None if self.picture is None else _picture(self.picture, self.name),
            "sample": None if self.sample is None else _sample(self.sample),
            "colours": {"relative": _shades(RELATIVE), "ratio": _shades(RATIO), "edge": EDGE},
            "veil": [VEIL, VEIL_OPAQUE, PADDING],
            "scale": {"robust": ROBUST, "headroom": HEADROOM, "faintest": FAINTEST, "strongest": STRONGEST},
        }


def _floats(values: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode("ascii")


def _bits(indices: NDArray[np.int64], n: int) -> str:
    mask = np.zeros(n, dtype=np.uint8)
    mask[indices] = 1
    return base64.b64encode(np.packbits(mask, bitorder="little").tobytes()).decode("ascii")


def _shades(name: str) -> dict[str, Any]:
    shades = colours(default=name)
    return {
        "steps": [to_hex(shades(step)) for step in range(shades.N)],
        "under": to_hex(shades(-0.1)),
        "over": to_hex(shades(1.1)),
    }


def _prior(name: str, prior: Prior, layers: Sequence[int] | None) -> dict[str, Any]:
    """Maps in multiples of uniform: over their mean over all visual tokens of the layer; heads over the same mean."""
    wanted = prior.layers if layers is None else tuple(layers)
    at = [prior.layer(layer) for layer in wanted]
    sizes = sum(stats.mean[0].size for stats in prior.planes.values())
    level = sum(stats.mean[at].astype(np.float64).sum(axis=(1, 2)) for stats in prior.planes.values()) / sizes
    names = shown_planes(prior)
    planes = []
    for plane in names:
        stats = prior.planes[plane]
        heads = None if stats.head_mean is None else stats.head_mean[at] / level[:, None, None, None]
        planes.append(
            {
                "name": plane, "rows": stats.mean.shape[1], "cols": stats.mean.shape[2],
                "maps": _floats(stats.mean[at] / level[:, None, None]),
                "heads": None if heads is None else _floats(heads), "n_heads": 0 if heads is None else heads.shape[1],
            }
        )  # fmt: skip
    found = report(prior, layers=wanted, planes=names[:1])
    verdicts = [entry.verdict if (entry := found.get(layer, names[0])) else "" for layer in wanted]
    mass = [float(prior.visual_mass[index]) for index in at]
    return {
        "name": name, "model": prior.model, "note": caption(prior), "layers": list(wanted), "verdicts": verdicts, "mass": mass,
        "planes": planes,
    }  # fmt: skip


def _picture(picture: Image, name: str) -> dict[str, Any]:
    small = picture.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    written = io.BytesIO()
    small.save(written, format="JPEG", quality=88)
    source = "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode("ascii")
    return {"src": source, "width": small.width, "height": small.height, "full": list(picture.size), "name": name}


def _sample(sample: Sample) -> dict[str, Any]:
    layout, n = sample.layout, len(sample.layout)
    planes = [{"name": p.name, "rows": p.rows, "cols": p.cols, "box": None if p.box is None else list(p.box)} for p in layout.planes]
    shares = {share: number for number, share in enumerate(sample.retentions)}
    strengths: dict[float | None, int | None] = {None: None} | {tau: number for number, tau in enumerate(sample.strengths)}
    choices = [
        {
            "label": one.label, "title": one.title, "colour": one.colour,
            "kept": {_key(k, shares[share], strengths[tau]): _bits(indices, n) for (k, share, tau), indices in one.kept.items()},
        }
        for one in sample.choices
    ]  # fmt: skip
    return {
        "model": sample.model, "prompt": sample.prompt, "n": n, "planes": planes,
        "plane": layout.plane.tolist(), "row": layout.row.tolist(), "col": layout.col.tolist(),
        "attention": {str(k): _floats(values) for k, values in sample.attention.items()},
        "choices": choices, "retentions": list(sample.retentions), "strengths": list(sample.strengths),
    }  # fmt: skip


def _key(k: int | None, retention: int, strength: int | None) -> str:
    """K, and the numbers of the settings; the script writes the same, see `keyOf` there.

    Example:
        >>> _key(2, 0, None)
        '2|0|'
    """
    return "|".join("" if part is None else str(part) for part in (k, retention, strength))
