"""State of the hooks: a batch of prompts from its prefill on, one forward pass over it, and the interface of deciders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from biaskit.device import Fetch
from biaskit.engine.narrowing import Narrowing
from biaskit.pruners.readings import Reading


@dataclass(frozen=True, eq=False)
class Recorded:
    """A reading of a batch.

    Attributes:
        values: [B, M, …], or [B, heads, M, …]: attention rows, hidden states, or keys.
        narrowing: which positions of the prompt the M rows hold; None: all of them.
    """

    values: Tensor
    narrowing: Narrowing | None


@dataclass(frozen=True, eq=False)
class View:
    """A batch at the moment of decision, before decoder layer K.

    Attributes:
        stage: number of the stage, from 0. layer: K.
        narrowing: which positions of the prompt the M rows hold.
        hidden: [B, M, d] input of layer K. embeds: [B, S, d] input embeddings of the whole prompt.
        recorded: the readings of the decoder and of the projector that exist at this stage.
    """

    stage: int
    layer: int
    narrowing: Narrowing
    hidden: Tensor
    embeds: Tensor
    recorded: Mapping[Reading, Recorded] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Cut:
    """A decision about a batch.

    Attributes:
        keep_mask: [B, S] bool, the positions of the prompt that are kept; padding and text are.
        values: row of the batch → (positions [n] of its kept visual tokens, [n, d] their new hidden states).
    """

    keep_mask: NDArray[np.bool_]
    values: Mapping[int, tuple[NDArray[np.int64], Tensor]] = field(default_factory=dict)


class Decider(Protocol):
    """Decides which visual tokens are kept. Called at prefill only."""

    def idle(self) -> None:
        """Called when a prefill without images begins; no other method is called for it."""

    def begin(
        self, inputs: Mapping[str, Any], copies: int, ids: Tensor, embeds: Tensor, tower: Mapping[Reading, Tensor] | None = None
    ) -> None:
        """Called with a new batch of prompts with images.

        Args:
            inputs: the processor's output for the samples, all but pixels on the host. copies: rows of the batch per sample.
            ids: [B, S] tokens. embeds: [B, S, d] their embeddings, visual ones included.
            tower: readings of the vision tower, for the patches of all images.
        """

    def decide(self, view: View) -> Cut | None:
        """Return what is kept from now on, or None if nothing was dropped and nothing changes."""

    def finish(self, cache: Any) -> None:
        """Called after the prefill, with the cache it filled or None."""


@dataclass(eq=False)
class Prompt:
    """A batch of prompts, from its prefill on.

    Attributes:
        rows: B. size: S, positions of the prompt, padding included.
        length: tokens seen so far: S, and those that followed.
        active: True if it has visual tokens; otherwise it is not pruned.
        stages: the narrowing of each stage; None: none so far.
        embeds: [B, S, d] input embeddings, until the prefill is over.
        valid: [B, S] bool, tokens that are not padding; known from the first decision on.
        padding: the same from the processor's attention mask or, if the model did not get one, from the first layer's mask that was read.
        visual: [B, S] bool, the image placeholders.
    """

    rows: int
    size: int
    length: int
    active: bool
    stages: list[Narrowing | None]
    embeds: Tensor | None
    valid: NDArray[np.bool_] | None = None
    padding: NDArray[np.bool_] | None = None
    visual: NDArray[np.bool_] | None = None


@dataclass(eq=False)
class Pass:
    """One forward pass: a prompt's prefill, or some tokens after it.

    Attributes:
        fresh: tokens of this pass.
        cache: the key-value cache it fills, if any.
        tail: [B, tokens after the prompt] bool, False for padding; None if none is padding.
        tail_valid: whether none is padding, a bool that is being copied to the host.
        recorded: (stage, reading) → its recorded values.
        made: masks and rotary embeddings shared by the layers of a stage.
    """

    prompt: Prompt
    fresh: int
    cache: Any
    prefill: bool
    tail: Tensor | None = None
    tail_valid: Fetch | None = None
    recorded: dict[tuple[int, Reading], Recorded] = field(default_factory=dict)
    made: dict[Any, Any] = field(default_factory=dict)

    def padded_tail(self) -> Tensor | None:
        """Return `tail`, or None if it has no padding. It waits for the copy of `tail_valid`, not for work queued later."""
        if self.tail_valid is not None:
            self.tail, self.tail_valid = None if self.tail_valid.read()[0] else self.tail, None
        return self.tail
