"""Interfaces of what differs between calibrations: the statistics that are counted, and the result made of them."""

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
    """Sums over images that do not depend on their order, and can be saved, restored and merged.

    Attributes:
        count: images so far.
    """

    count: int

    def add(self, slot: int, layout: Layout, values: Floats) -> None:
        """Add image number `slot`: the recorded values of its N visual tokens, [L, …, N]."""

    def alike(self) -> Self:
        """Return empty statistics of the same shape."""

    def merge(self, other: Any) -> None:
        """Add the statistics of other images of the same calibration."""

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return everything as arrays, for the state on disk."""

    def restore(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """Set everything from `tensors()`."""


class Stored(Protocol):
    """A result on disk: a prior, or a schedule."""

    @property
    def meta(self) -> Mapping[str, str]:
        """Its provenance."""

    def save(self, path: Path, force: bool = False) -> None:
        """Write it atomically."""


R = TypeVar("R", bound=Stored)


class Quantity(ABC, Generic[R]):
    """A quantity that can be calibrated.

    Attributes:
        layers: 0-based decoder layers that are read. settings: further settings that its result depends on, as JSON values.
    """

    layers: tuple[int, ...]
    settings: Mapping[str, Any]

    @abstractmethod
    def statistics(self, samples: int) -> Statistics:
        """Return empty statistics for n images."""

    @abstractmethod
    def take(self, model: PreTrainedModel, prepared: Prepared, moved: Mapping[str, Tensor]) -> Tensor:
        """Run the model on a batch, given as prepared and on the model's device, and return the values to count: [L, B, …, S]."""

    @abstractmethod
    def result(self, counted: Any, meta: Mapping[str, str]) -> R:
        """Make the result from the statistics."""

    @abstractmethod
    def finished(self, path: Path, model: str, settings: Mapping[str, Any]) -> R:
        """Return the result on disk if a calibration of this model with these settings wrote it; else raise CalibrationError."""
