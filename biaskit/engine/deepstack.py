"""DeepStack (Qwen3-VL) on a pruned sequence: visual features of the tower are added to the visual tokens after the first decoder layers.

The language model adds them itself, at the positions of the whole prompt. If the sequence is pruned before the last addition, these hooks
take the features from the model's arguments and add them to the rows that are kept. The row indices are computed on the host.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from biaskit.device import upload
from biaskit.engine.narrowing import Narrowing
from biaskit.engine.per_thread import PerThread
from biaskit.errors import ModelError


class DeepStack:
    """Adds the features of one forward pass.

    Args:
        model: a stock model. first: the first decoder layer whose input is pruned; if all additions come before it, nothing is done.
    """

    features: PerThread[Sequence[Tensor]] = PerThread(tuple)
    visual: PerThread[NDArray[np.bool_]] = PerThread(lambda: np.zeros((0, 0), bool))
    rows: PerThread[dict[tuple[int, torch.device], tuple[Tensor, Tensor]]] = PerThread(dict)

    def __init__(self, model: PreTrainedModel, first: int) -> None:
        self.first = first
        added_after = getattr(getattr(model.config, "vision_config", None), "deepstack_visual_indexes", None)
        self.depth = None if added_after is None else len(added_after)

    @contextmanager
    def attached(self, stack: Any, narrowing: Callable[[int], Narrowing | None]) -> Iterator[None]:
        """Register a hook after each layer that features are added to; `narrowing` returns the rows of a layer."""
        with ExitStack() as handles:
            if "deepstack_visual_embeds" in inspect.signature(type(stack).forward).parameters:
                for number, layer in enumerate(stack.layers[: self.depth]):
                    handles.callback(layer.register_forward_hook(partial(self._add, number, narrowing)).remove)
            yield

    def forget(self) -> None:
        """Forget the features of an earlier pass."""
        if self.features:
            self.features, self.rows = (), {}

    def take_over(self, kwargs: dict[str, Any], visual: NDArray[np.bool_]) -> dict[str, Any]:
        """Take the features out of the language model's arguments.

        Args:
            kwargs: its arguments; `deepstack_visual_embeds` has, for each of the first layers, the features [V, d] of V visual tokens.
            visual: [B, S] bool, the positions of these tokens.

        Raises:
            ModelError: there are not as many visual tokens as features.
        """
        features = kwargs.get("deepstack_visual_embeds")
        if not features or self.first >= len(features):
            return kwargs
        if any(len(each) != np.count_nonzero(visual) for each in features):
            raise ModelError(
                f"{np.count_nonzero(visual)} image placeholders, but DeepStack features of {len(features[0])}",
                "pass the processor's input_ids unchanged",
            )
        self.features, self.visual, self.rows = features, visual, {}
        return {**kwargs, "deepstack_visual_embeds": None, "visual_pos_masks": None}

    def _add(self, number: int, narrowing: Callable[[int], Narrowing | None], _layer: Any, _args: Any, hidden: Tensor) -> Tensor | None:
        if number >= len(self.features):
            return None
        rows, which = self._rows(narrowing(number), hidden.device)
        flat, features = hidden.flatten(0, 1), self.features[number].to(hidden.device, hidden.dtype)
        return flat.index_copy(0, rows, flat.index_select(0, rows) + features.index_select(0, which)).view_as(hidden)

    def _rows(self, narrowed: Narrowing | None, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the rows of the flattened batch that get features, [v], and the features' indices, [v]; cached per narrowing."""
        key = (id(narrowed), device)
        if key not in self.rows:
            place = np.where(self.visual, np.cumsum(self.visual).reshape(self.visual.shape) - 1, -1)
            if narrowed is not None:
                place = np.where(narrowed.valid, np.take_along_axis(place, narrowed.positions, 1), -1)
            rows = np.flatnonzero(place >= 0)
            self.rows[key] = upload(rows, device), upload(place.ravel()[rows], device)
        return self.rows[key]
