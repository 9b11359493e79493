"""Which rows each decoder layer's queries may attend to, in the whole prompt and in a pruned one.

Plain causal attention depends only on which rows are valid. Two forms need more: sliding windows, in which a query attends to keys less
than a number of positions before it, and images whose tokens attend to one another in both directions. Both depend on *positions* of the
prompt, which kept tokens keep: a pruned layer's mask is that of the whole prompt without the dropped rows and columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from biaskit.device import upload
from biaskit.engine.limits import check_padding, check_window
from biaskit.engine.masks import Form, make_mask, mask_form, read_mask
from biaskit.engine.memory import Pass, Prompt
from biaskit.engine.narrowing import Narrowing
from biaskit.errors import ModelError
from biaskit.families import families
from biaskit.families.checkpoints.decoder import decoder, layer_kind, window_of

_KNOWN = ("full_attention", "sliding_attention")


class LayerMasks:
    """Masks of the layers of one model.

    Raises:
        ModelError: pruning under its attention implementation is not supported.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.stack = decoder(model)
        self.form: Form = mask_form(self.stack.config._attn_implementation)
        self.windows = [window_of(self.stack, layer) for layer in range(len(self.stack.layers))]
        name = model.config.model_type
        self.both_ways = name in families and families.get(name).bidirectional_images
        if self.both_ways and self.form == "padding":
            raise ModelError(
                f"image tokens of {type(model).__name__} attend to one another in both directions, which flash attention does not do here",
                "load the model with sdpa attention",
            )

    def valid(self, prompt: Prompt, layer: int, mask: Any, cache: Any) -> NDArray[np.bool_]:
        """Return which tokens are not padding, [B, S] bool, after checking that the model's mask of a layer is of a known form.

        Raises:
            ModelError: the mask has another form, the padding is on the right, or a sliding window is shorter than the prompt and the
                attention implementation or cache cannot be pruned with it.
        """
        self._check_window(layer, prompt.size, cache)
        pattern = self._pattern(layer, np.arange(prompt.size)[None], prompt.size, prompt.visual, "cpu")
        valid = read_mask(mask, prompt.rows, prompt.size, prompt.padding, pattern)
        if valid is None:
            return np.ones((prompt.rows, prompt.size), bool)
        check_padding(valid)
        return valid

    def _check_window(self, layer: int, length: int, cache: Any) -> None:
        if self.form == "padding" or _static(cache) or layer_kind(self.stack, layer) not in (None, *_KNOWN):
            check_window(self.stack, layer, length)

    def check_continued(self, first: int, length: int, cache: Any) -> None:
        """Refuse to continue a sequence of `length` tokens, pruned from layer `first` on, if a sliding window is shorter than it.

        Raises:
            ModelError: with a static cache or flash attention, which cannot be pruned with shorter windows.
        """
        self._check_window(first, length, cache)

    def mask(self, forward: Pass, narrowing: Narrowing, stage: int, layer: int, hidden: Tensor) -> Tensor | None:
        """Return the mask of a stage's rows at a layer; layers of one stage on one device share it, if their windows are the same."""
        static = _static(forward.cache)
        if static and self.form == "padding":
            raise ModelError("static caches cannot be pruned under flash attention", "use sdpa attention, or a dynamic cache")
        width = forward.cache.layers[layer].max_cache_len if static else None
        cached = self._cached_keys(forward, layer)
        key = ("mask", stage, hidden.device, width, self.windows[layer], cached)
        if key not in forward.made:
            valid, whole = narrowing.row_mask.to(hidden.device), narrowing.whole
            positions, queries, prompt = narrowing.positions, len(narrowing), forward.prompt
            if not forward.prefill:
                tail, whole, queries = forward.padded_tail(), whole and forward.padded_tail() is None, forward.fresh
                later = valid.new_ones(len(valid), prompt.length - prompt.size) if tail is None else tail.to(valid.device)
                valid = torch.cat([valid, later], dim=1)
                positions_after = np.broadcast_to(np.arange(prompt.size, prompt.length), (len(positions), prompt.length - prompt.size))
                positions = np.concatenate([positions, positions_after], 1)
            if cached is not None:
                valid, positions = valid[:, -cached:], positions[:, -cached:]
            pattern = self._pattern(layer, positions, queries, prompt.visual if forward.prefill else None, hidden.device)
            forward.made[key] = make_mask(self.form, valid, queries, whole=whole, width=width, dtype=hidden.dtype, pattern=pattern)
        made: Tensor | None = forward.made[key]
        return made

    def _cached_keys(self, forward: Pass, layer: int) -> int | None:
        """Return how many keys a layer attends to if its cache has only its window; None: all."""
        window = self.windows[layer]
        if forward.prefill or window is None or forward.cache is None or _static(forward.cache):
            return None
        layer_cache = forward.cache.layers[layer]
        return min(int(layer_cache.keys.shape[-2]), window - 1) + forward.fresh if getattr(layer_cache, "is_sliding", False) else None

    def _pattern(
        self, layer: int, positions: NDArray[np.int64], queries: int, visual: NDArray[np.bool_] | None, device: Any
    ) -> Tensor | None:
        """Return which keys each query may attend to: [B or 1, queries, keys] bool; None: all earlier ones.

        Args:
            positions: [B or 1, keys], in the prompt and after it. queries: their number; they are the last rows.
            visual: [B, S] bool, the image placeholders, if queries are among them.
        """
        window = self.windows[layer]
        cuts = window is not None and int(positions.max() - positions.min()) >= window
        if not cuts and (visual is None or not self.both_ways):
            return None
        uploaded = upload(np.ascontiguousarray(positions), torch.device(device))
        query, key = uploaded[:, -queries:, None], uploaded[:, None, :]
        allowed = key <= query
        if visual is not None and self.both_ways:
            image = np.take_along_axis(image_numbers(visual), np.broadcast_to(positions, (len(visual), positions.shape[1])), 1)
            number = upload(image, torch.device(device))
            allowed = allowed | ((number[:, -queries:, None] == number[:, None, :]) & (number[:, None, :] >= 0))
        return allowed & (query - key < window) if cuts and window is not None else allowed


def image_numbers(visual: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number the runs of visual tokens of each sample: [B, S] bool → [B, S] int64, −1 for other tokens.

    Example:
        >>> image_numbers(np.array([[True, True, False, True]])).tolist()
        [[0, 0, -1, 1]]
    """
    begins = visual & ~np.pad(visual, ((0, 0), (1, 0)))[:, :-1]
    return np.where(visual, begins.cumsum(1) - 1, -1)


def _static(cache: Any) -> bool:
    return cache is not None and bool(getattr(cache, "is_compileable", False))
