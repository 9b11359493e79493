"""DeepStack (Qwen3-VL) on a narrowed sequence: visual features of the tower are added to the visual tokens after the first decoder layers.

The language model adds them itself, at the positions of the whole prompt. Where the sequence is narrowed before the last addition, these
hooks take the features away from the model and add them to the rows that are kept.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from biaskit.engine.narrowing import Narrowing
from biaskit.engine.per_thread import PerThread


class DeepStack:
    """Adds the features of one forward pass.

    Args:
        first: the first decoder layer whose input is narrowed; nothing is done where all additions come before it.
    """

    place: PerThread[Tensor | None] = PerThread(lambda: None)
    features: PerThread[Sequence[Tensor]] = PerThread(tuple)

    def __init__(self, first: int) -> None:
        self.first = first

    @contextmanager
    def attached(self, stack: Any, narrowing: Callable[[int], Narrowing | None]) -> Iterator[None]:
        """Register a hook after each decoder layer of a language model that knows DeepStack; `narrowing` tells a layer's rows."""
        with ExitStack() as handles:
            if "deepstack_visual_embeds" in inspect.signature(type(stack).forward).parameters:
                for number, layer in enumerate(stack.layers):
                    handles.callback(layer.register_forward_hook(partial(self._add, number, narrowing)).remove)
            yield

    def forget(self) -> None:
        """Forget the features of an earlier pass."""
        self.place, self.features = None, ()

    def take_over(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Take the features out of what the language model receives.

        `visual_pos_masks`: [B, S] bool, with V True; `deepstack_visual_embeds`: for each of the first layers, [V, d].
        """
        features, visual = kwargs.get("deepstack_visual_embeds"), kwargs.get("visual_pos_masks")
        if visual is None or not features or self.first >= len(features):
            return dict(kwargs)
        self.features = features
        self.place = torch.full(visual.shape, -1, dtype=torch.int64, device=visual.device)
        self.place[visual] = torch.arange(int(visual.sum()), device=visual.device)
        return {**kwargs, "deepstack_visual_embeds": None, "visual_pos_masks": None}

    def _add(self, number: int, narrowing: Callable[[int], Narrowing | None], _layer: Any, _args: Any, hidden: Tensor) -> Tensor | None:
        if self.place is None or number >= len(self.features):
            return None
        place, narrowed = self.place.to(hidden.device), narrowing(number)
        if narrowed is not None:
            place = place.gather(1, narrowed.index.to(place.device))
        at = place >= 0
        added = hidden.clone()
        added[at] = hidden[at] + self.features[number].to(hidden.device, hidden.dtype)[place[at]]
        return added
