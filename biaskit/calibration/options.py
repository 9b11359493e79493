"""The options of a calibration, and the layers and number of samples that follow for a model and a source."""

from __future__ import annotations

from dataclasses import dataclass

from biaskit.calibration.moments import GROUPS
from biaskit.calibration.prompts import PROMPT
from biaskit.errors import CalibrationError
from biaskit.families.checkpoints.decoder import chosen_layers, decoder_config
from biaskit.families.checkpoints.load import Loaded
from biaskit.images import ImageSource
from biaskit.prior.value import ROWS, Rows
from biaskit.registry import did_you_mean

SAMPLES = 1000


@dataclass(frozen=True)
class Options:
    """How to calibrate; see `biaskit.calibrate`."""

    samples: int | None = None
    prompts: tuple[str, ...] = (PROMPT,)
    layers: tuple[int, ...] | str | None = None
    per_head: bool = False
    rows: Rows = "last"
    groups: int = GROUPS
    seed: int = 0
    batch_size: int | None = None
    workers: int | None = None
    max_skips: int | None = None
    save_every: float = 10.0
    force: bool = False
    restart: bool = False

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            CalibrationError: one is too small.
        """
        if self.rows not in ROWS:
            raise CalibrationError(f"rows is {self.rows!r}", did_you_mean(str(self.rows), ROWS))
        least = {"groups": 1, "batch_size": 1, "seed": 0, "workers": 0, "max_skips": 0, "save_every": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise CalibrationError(f"{name} is {value}", f"give a number from {low}")

    def layers_of(self, loaded: Loaded) -> tuple[int, ...]:
        """Return the decoder layers to read: the wanted ones, or those the family's presets need.

        Raises:
            ModelError: the model has no such layers.
        """
        config = loaded.model.config
        return chosen_layers(self.layers, loaded.family.default_layers(config), decoder_config(loaded.model).num_hidden_layers)

    def samples_of(self, source: ImageSource) -> int:
        """Return n: the wanted number, or the source's size up to 1,000.

        Raises:
            CalibrationError: the source has fewer images.
        """
        if self.samples is None:
            return min(SAMPLES, len(source))
        if not 1 <= self.samples <= len(source):
            raise CalibrationError(
                f"{self.samples} samples of a source with {len(source)} images", f"use --samples between 1 and {len(source)}"
            )
        return self.samples
