"""What the hooks remember: a batch of prompts from its prefill on, and one forward pass over it; and whom they ask what to drop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from biaskit.engine.narrowing import Narrowing


@dataclass(frozen=True, eq=False)
class View:
    """A batch at the moment of decision, before decoder layer K.

    Attributes:
        stage: number of the stage, from 0. layer: K.
        narrowing: which positions of the prompt the M rows hold.
        hidden: [B, M, d] input of layer K. embeds: [B, S, d] input embeddings of the whole prompt.
        attention: [B, M] row of the last prompt token at layer K − 1, mean over heads; None where it was not recorded.
        keys: [B, key heads, M, head_dim] of layer K − 1; None where they were not recorded.
    """

    stage: int
    layer: int
    narrowing: Narrowing
    hidden: Tensor
    embeds: Tensor
    attention: Tensor | None = None
    keys: Tensor | None = None


class Decider(Protocol):
    """Who decides. Called at prefill only."""

    def idle(self) -> None:
        """A prefill without images begins; nothing else will be asked about it."""

    def begin(self, inputs: Mapping[str, Any], copies: int, ids: Tensor, embeds: Tensor) -> None:
        """Look at a new batch of prompts with images.

        Args:
            inputs: what the processor gave for the samples, all but pixels on the host. copies: rows of the batch that each sample takes.
            ids: [B, S] tokens. embeds: [B, S, d] their embeddings, visual ones included.
        """

    def decide(self, view: View) -> NDArray[np.bool_] | None:
        """Return [B, S] bool, the positions to drop now, or None for none."""

    def finish(self, cache: Any) -> None:
        """The prefill is over; `cache` holds it, or is None."""


@dataclass(eq=False)
class Prompt:
    """A batch of prompts, from its prefill on.

    Attributes:
        rows: B. size: S, positions of the prompt, padding included.
        length: tokens seen so far: S, and those that followed.
        active: it has visual tokens; otherwise nothing is done to it.
        stages: how each stage narrowed it; None: not at all, yet.
        embeds: [B, S, d] input embeddings, until the prefill is over.
        valid: [B, S] bool, tokens that are not padding; known from the first decision on.
        padding: the same as the processor's attention mask has it, if there was one.
    """

    rows: int
    size: int
    length: int
    active: bool
    stages: list[Narrowing | None]
    embeds: Tensor | None
    valid: NDArray[np.bool_] | None = None
    padding: NDArray[np.bool_] | None = None


@dataclass(eq=False)
class Pass:
    """One forward pass: a prompt's prefill, or some tokens after it.

    Attributes:
        fresh: tokens of this pass.
        cache: the key-value cache it fills, if any.
        tail: [B, tokens after the prompt] bool, those that are not padding; None if none is.
        seen: layer K → attention [B, M] and keys of layer K − 1.
        made: masks and rotary embeddings, which the layers of a stage share.
    """

    prompt: Prompt
    fresh: int
    cache: Any
    prefill: bool
    tail: Tensor | None = None
    seen: dict[int, tuple[Tensor, Tensor | None]] = field(default_factory=dict)
    made: dict[Any, Any] = field(default_factory=dict)
