"""What the embedded models have in common, and what an architecture must define."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from biaskit.files import staged, write_file
from biaskit.images.scenes.vocabulary import VISUAL

LAYERS = 9
HIDDEN = 160
HEADS = 5
INNER = 432
VISION_LAYERS = 4
VISION_HIDDEN = 128
VISION_HEADS = 4
MEAN, STD = 0.5, 0.25
"""Pixels are scaled to 0 … 1, then (value − MEAN) / STD."""


class Architecture(ABC):
    """The differences between the stock classes: parts, prompt, positions. Stateless. All else of the training is one recipe.

    Attributes:
        name: of the embedded model's architecture on the command line. model_type: of its config and its family.
        words: the vocabulary in the order of ids. prefix: the ids that every prompt begins with; the question follows.
        template: the chat template.
        relative: whether the tower has no absolute positions. It then learns boxes relative to the patch.
        reads_at: the decoder layer at whose input stage 2 trains visual tokens to encode their object's box; 0: as they are projected.
        blocks: what the names of the tower's layers contain.
        described: what the model card says: `class`, `tower`, `decoder`, `image` in the prompt, what it adds
            about the `boxes` of stage 1, what the `reader` of stage 2 reads.
    """

    name: ClassVar[str]
    model_type: ClassVar[str]
    words: ClassVar[tuple[str, ...]]
    prefix: ClassVar[tuple[int, ...]]
    template: ClassVar[str]
    relative: ClassVar[bool]
    reads_at: ClassVar[int]
    blocks: ClassVar[str]
    described: ClassVar[Mapping[str, str]]

    @property
    def visual_start(self) -> int:
        """The place of the first visual token."""
        return next(i for i, token in enumerate(self.prefix) if self.prefix.count(token) == VISUAL)

    @abstractmethod
    def make_config(self, layers: int = LAYERS) -> Any:
        """Return the stock config, with `layers` decoder layers."""

    @abstractmethod
    def processor_files(self) -> tuple[Any, Mapping[str, Mapping[str, Any]]]:
        """Return the stock image processor, and other JSON files of the checkpoint: name → contents."""

    @abstractmethod
    def make_tokenizer(self) -> Any:
        """Return the stock tokenizer."""

    @abstractmethod
    def tower(self, model: Any) -> nn.Module:
        """Return the vision tower of a stock model; what projects its output may be a part of it."""

    @abstractmethod
    def projector(self, model: Any) -> nn.Module:
        """Return the part of a stock model that turns the tower's output into visual tokens."""

    @abstractmethod
    def see(self, tower: Any, values: Tensor) -> Tensor:
        """[B, 3, 168, 168] pixel values → [B, 144, 128], the tower's output before the projector, row-major."""

    @abstractmethod
    def positions(self, length: int) -> Tensor:
        """Return the position ids of a prompt of `length` tokens as the language model's rotary embedding takes them, batch of one."""

    def make_model(self, layers: int = LAYERS) -> Any:
        """Return an untrained stock model."""
        from transformers import AutoModelForImageTextToText

        return AutoModelForImageTextToText.from_config(self.make_config(layers))

    def project(self, model: Any, features: Tensor) -> Tensor:
        """[..., 128] of the tower → [..., hidden] visual tokens."""
        visual: Tensor = self.projector(model)(features)
        return visual.view(*features.shape[:-1], -1)  # Qwen's merger returns a flat list of tokens

    def save_processor(self, directory: Path) -> None:
        """Write image processor, tokenizer, processor settings and chat template as in hub repositories."""
        images, files = self.processor_files()
        with staged(directory) as stage:
            images.save_pretrained(stage)
            self.make_tokenizer().save_pretrained(stage)
        for name, contents in files.items():
            write_file(directory / name, json.dumps(contents, indent=2, sort_keys=True) + "\n")
        write_file(directory / "chat_template.jinja", self.template)
