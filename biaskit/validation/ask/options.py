"""The options of a validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from biaskit.engine.decisions import Observe
from biaskit.engine.greedy import check_generation
from biaskit.errors import BiaskitError
from biaskit.validation.report.recognise import check_published_as


@dataclass(frozen=True)
class Options:
    """How to validate; see `biaskit.validate`."""

    limit: int | None = None
    seed: int = 0
    batch_size: int | None = None
    workers: int | None = None
    keep_indices: bool = False
    observe: Observe | None = None
    generation: Mapping[str, Any] | None = None
    published_as: str | None = None
    force: bool = False
    command: str = ""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            BiaskitError: a number is too small; `generate()` has no such setting; the published tables do not have the model.
        """
        least = {"limit": 1, "seed": 0, "batch_size": 1, "workers": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise BiaskitError(f"{name} is {value}", f"give a number from {low}")
        check_generation(self.generation)
        check_published_as(self.published_as)
