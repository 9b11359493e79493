"""What a calibration counts, and of what it makes its result: the two things in which calibrations differ."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from biaskit.calibration.sums import Floats
from biaskit.families import Prepared
from biaskit.grid import Layout

if TYPE_CHECKING:
    from typing import Self


class Statistics(Protocol):
    """Sums over images that come out the same in any order: they can be saved, restored and merged.

    Attributes:
        count: images so far.
    """

    count: int

    def add(self, slot: int, layout: Layout, values: Floats) -> None:
        """Count image number `slot`: what was recorded of its N visual tokens, [L, …, N]."""

    def alike(self) -> Self:
        """Return statistics of no images yet, of the same shape."""

    def merge(self, other: Any) -> None:
        """Take in the statistics of other images of the same calibration."""

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return everything as arrays, for the state on disk."""

    def restore(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """Set everything from `tensors()`."""


class Stored(Protocol):
    """A result on disk: a prior, or a schedule."""

    @property
    def meta(self) -> Mapping[str, str]:
        """What it says of where it is from."""

    def save(self, path: Path, force: bool = False) -> None:
        """Write it in one step."""


R = TypeVar("R", bound=Stored)


class Quantity(ABC, Generic[R]):
    """What is calibrated.

    Attributes:
        layers: 0-based decoder layers that are read. settings: what its result depends on beside the images and the model, as JSON values.
    """

    layers: tuple[int, ...]
    settings: Mapping[str, Any]

    @abstractmethod
    def statistics(self, samples: int) -> Statistics:
        """Return statistics of no images yet, for n of them."""

    @abstractmethod
    def take(self, model: PreTrainedModel, prepared: Prepared, moved: Mapping[str, Tensor]) -> Tensor:
        """Run the model on a batch, as it was prepared and on the model's device, and return what is counted: [L, B, …, S]."""

    @abstractmethod
    def result(self, counted: Any, meta: Mapping[str, str]) -> R:
        """Make the result of what was counted."""

    @abstractmethod
    def finished(self, path: Path, model: str, settings: Mapping[str, Any]) -> R:
        """Return the result on disk if a calibration of this model with these settings wrote it; else raise CalibrationError."""
