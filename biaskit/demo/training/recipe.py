"""The settings that the embedded model's weights depend on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Everything the weights depend on, apart from the library versions."""

    architecture: str = "llava"
    seed: int = 0
    scenes: int = 30_000
    vision_steps: int = 600
    language_steps: int = 3000
    scaffold: bool = True
    held_out: int = 2000

    @property
    def scene_seed(self) -> int:
        """The seed of the training scenes; every model seed has other scenes, none of them held out."""
        return 1 + self.seed
