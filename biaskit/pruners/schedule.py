"""FitPrune's calibrated schedule: how many tokens each layer deletes at every α, its file, and the α of a budget or a saving."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biaskit.errors import BiaskitError, PriorError
from biaskit.files import write_file
from biaskit.prior.format import pack, read_file, unpack
from biaskit.prior.revision import revision_warning, settings_warning
from biaskit.select.fitprune import gated_cost, smallest_alpha

Floats = NDArray[np.float64]

TOLERANCE = 0.01
"""Width of the last bracket of α in the paper's code."""
ALPHAS: tuple[float, ...] = tuple(number / 128 for number in range(1, 129))
"""Every α at which a bisection of 0 … 1 down to brackets of 0.01 can end."""
KIND = "schedule"
_AGAIN = "make it again with `biaskit calibrate --schedule`"


@dataclass(frozen=True, eq=False)
class Schedule:
    """Means over the calibration's images, at every α of `ALPHAS` (A of them) and every one of L decoder layers.

    Attributes:
        share: [A, L] share of a sample's N visual tokens that the layer deletes.
        entering: [A, L] visual tokens that the layer sees. squares: [A, L] mean of their squares; both give FLOPs.
        meta: provenance, as of a prior; `hidden_size` and `intermediate_size` of the model for FLOPs.

    Raises:
        PriorError: the parts contradict each other.
    """

    share: Floats
    entering: Floats
    squares: Floats
    meta: Mapping[str, str]

    def __post_init__(self) -> None:
        """Check shapes, ranges and metadata."""
        for name in ("share", "entering", "squares"):
            values = getattr(self, name)
            if values.ndim != 2 or values.shape != (len(ALPHAS), self.layers) or not self.layers or not np.isfinite(values).all():
                raise PriorError(f"{name} of a schedule is {list(values.shape)}, not finite [{len(ALPHAS)}, layers]", _AGAIN)
        if self.share.min() < 0 or self.share.sum(1).max() > 1 + 1e-9 or self.entering.min() < 0:
            raise PriorError("a schedule deletes less than nothing, or more than all", _AGAIN)
        for name in ("model_type", "hidden_size", "intermediate_size"):
            if name not in self.meta:
                raise PriorError(f"a schedule does not say its {name}", _AGAIN)

    @property
    def layers(self) -> int:
        """L, decoder layers of its model."""
        return int(self.share.shape[1])

    @property
    def n_tokens(self) -> float:
        """Visual tokens of an image of its calibration, on average."""
        return float(self.entering[0, 0])

    def counts(self, index: int, n_tokens: int) -> list[int]:
        """Visual tokens of N that remain after each layer, [L], at α number `index`: mean deletions, rounded down, at least 1 remains.

        Example:
            >>> share = np.tile([0.5, 0.25], (128, 1))
            >>> meta = {"model_type": "llava", "hidden_size": "8", "intermediate_size": "16"}
            >>> Schedule(share, 1 - share, 1 - share, meta).counts(0, 10)
            [5, 3]
        """
        deleted = np.floor((self.share[index] * n_tokens).round(9)).astype(np.int64)
        return np.maximum(n_tokens - np.cumsum(deleted), min(1, n_tokens)).tolist()  # type: ignore[no-any-return]

    def left(self, index: int) -> float:
        """Share of the visual tokens that the last layer sees at α number `index`; its own deletions have no effect."""
        return float(1 - self.share[index, :-1].sum())

    def cost(self, index: int) -> float:
        """FLOPs of the visual tokens at α number `index`, as a share of those without pruning: 4nd² + 2n²d + 3ndm for n entering tokens."""
        width, inner = int(self.meta["hidden_size"]), int(self.meta["intermediate_size"])
        linear, square = 4 * width**2 + 3 * width * inner, 2 * width
        assert gated_cost(width, inner)(1.0) == linear + square
        spent = linear * self.entering[index] + square * self.squares[index]
        return float(spent.sum() / (self.layers * (linear * self.entering[index, 0] + square * self.squares[index, 0])))

    def for_share(self, share: float) -> int:
        """Return the number of the smallest α that keeps at most a share of the tokens; of the largest α if none does."""
        return next((index for index in range(len(ALPHAS)) if self.left(index) <= share + 1e-12), len(ALPHAS) - 1)

    def for_saving(self, saving: float) -> int:
        """Return the number of the α that the paper's bisection finds for a saving ρ of the visual tokens' FLOPs.

        Raises:
            BiaskitError: ρ outside 0 ≤ ρ < 1, or one that no α reaches.
        """
        if not 0 <= saving < 1:
            raise BiaskitError(f"saving is {saving}, not in 0 ≤ ρ < 1", "ρ is the share of the visual tokens' FLOPs that is saved")
        return ALPHAS.index(smallest_alpha(lambda alpha: self.cost(ALPHAS.index(alpha)), saving, TOLERANCE))

    def check_model(
        self,
        model_type: str,
        depth: int,
        revision: str | None = None,
        model: str | None = None,
        processor: Mapping[str, Any] | None = None,
    ) -> None:
        """Refuse another architecture or depth; warn about another model id, revision or processor setting.

        Raises:
            PriorError: the schedule is for another `model_type` or number of layers.
        """
        if (self.meta["model_type"], self.layers) != (model_type, depth):
            raise PriorError(
                f"this schedule is for model type {self.meta['model_type']!r} with {self.layers} layers, not {model_type!r} with {depth}",
                "a schedule holds for the model it was calibrated on: run `biaskit calibrate --schedule` for this one",
            )
        mine = self.meta.get("model", "")
        if mine and model and mine != model:
            warnings.warn(f"this schedule was calibrated on model {mine!r}, and is used with {model!r}", stacklevel=2)
        for text in (
            revision_warning(self.meta.get("revision", ""), revision or "", "schedule"),
            settings_warning(self.meta.get("processor", ""), processor or {}, "schedule"),
        ):
            if text:
                warnings.warn(text, stacklevel=2)

    def save(self, path: str | os.PathLike[str], force: bool = False) -> None:
        """Write the file atomically; equal schedules give equal bytes.

        Raises:
            FileError: the file exists and `force` is not set, or cannot be written.
        """
        parts = {"share": self.share, "entering": self.entering, "squares": self.squares}
        write_file(Path(path), pack(parts, {**self.meta, "kind": KIND}, double=True), force)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Schedule:
        """Read and check a schedule.

        Raises:
            PriorError: missing, unreadable, a prior, or broken.
        """
        path = Path(path).expanduser()
        tensors, meta = unpack(read_file(path), str(path), double=True)
        if meta.get("kind") != KIND:
            raise PriorError(f"{path} is a prior, not a schedule", _AGAIN)
        if set(tensors) != {"share", "entering", "squares"}:
            raise PriorError(f"{path} holds {', '.join(sorted(tensors))}, not share, entering and squares", _AGAIN)
        try:
            return cls(**{name: values.astype(np.float64) for name, values in tensors.items()}, meta=meta)
        except PriorError as error:
            raise PriorError(f"{path}: {error.message}", error.hint) from None
