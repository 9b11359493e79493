"""Attention masks of a pruned sequence: read the one that the model made, and make the one that each pruned layer needs.

Masks of pruned layers are made from two facts, which rows are valid and that attention is causal, in the form that the attention
implementation expects. The model's own mask is read once per prompt, to check that it contains nothing beyond these two facts.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biaskit.device import expect, fetch, on_device, upload
from biaskit.errors import ModelError

Form = Literal["padding", "bool", "additive"]
"""[B, keys] padding (flash attention); [B, 1, queries, keys] bool, True = may attend (sdpa); the same, additive (eager)."""


def mask_form(implementation: str) -> Form:
    """Return the form of mask that an attention implementation takes.

    Raises:
        ModelError: the mask format of this attention implementation is unknown.
    """
    if implementation in ("sdpa", "eager"):
        return "bool" if implementation == "sdpa" else "additive"
    if "flash" in implementation:
        return "padding"
    raise ModelError(f"pruning under {implementation!r} attention is not supported", "load the model with sdpa, flash_attention_2 or eager")


def read_mask(
    mask: Any, batch: int, length: int, known: NDArray[np.bool_] | None = None, pattern: Tensor | None = None
) -> NDArray[np.bool_] | None:
    """Return which positions of the prompts are tokens, not padding: [B, S] bool, or None if all are.

    Args:
        mask: what a decoder layer received at prefill: None, [B, S], or [B or 1, 1, S, ≥ S] bool or additive.
        batch: B. length: S.
        known: the expected answer, from the processor's mask. A mask on a device is compared with it there, without synchronisation.
        pattern: [B or 1, S, S] bool, the keys that a query attends to; by default the earlier ones and itself.

    Raises:
        ModelError: the mask is of another type, or hides or shows other tokens; inside `deferred`, once results are read.
    """
    if mask is None and pattern is None:
        return None
    if not isinstance(mask, Tensor) or mask.ndim not in (2, 4):
        raise ModelError(
            f"attention masks of type {type(mask).__name__} cannot be narrowed", "load the model with sdpa, flash_attention_2 or eager"
        )
    if known is None or known.shape != (batch, length) or not on_device(mask):
        return _looked_at(mask, batch, length, known, pattern)
    told = upload(known, mask.device)
    same = mask[:, -length:].to(torch.bool) == told if mask.ndim == 2 else _plain(mask, told, length, pattern) | ~told
    expect(same.all(), partial(_complain, mask, known, pattern))
    return known


def padding_told(given: Any, rows: int, length: int | None, kind: str | None = None) -> Tensor | None:
    """Return which of the tokens so far a continued sequence's mask takes for tokens, not padding: [B, ≥ S] bool; None if it does not say.

    Args:
        given: what the model was called with: [B, S]; [B or 1, 1, queries, ≥ S] or several of these by kind of layer, as `generate()` makes
            them for static caches; or None.
        rows: B. length: S, if layer 0 holds all these tokens; None: some were dropped before it, so a 4-D mask has other keys.
        kind: of layer 0. Masks of other kinds may be made for the length of a pruned layer.
    """
    if isinstance(given, Mapping):
        given = given.get(kind)
    if not isinstance(given, Tensor) or given.ndim not in (2, 4):
        return None
    if given.ndim == 2:
        return given.to(torch.bool)
    return None if length is None else _allowed(given, rows)[:, -1, :length]


def _looked_at(
    mask: Tensor, batch: int, length: int, known: NDArray[np.bool_] | None = None, pattern: Tensor | None = None
) -> NDArray[np.bool_]:
    """Read a mask from the device. Without a window, the last query attends to all tokens that are not padding."""
    if mask.ndim == 2:
        return np.asarray(fetch([mask[:, -length:].to(torch.bool)])[0])
    valid = _allowed(mask, batch)[:, -1, :length]
    if pattern is not None and known is not None:
        valid = torch.from_numpy(known).to(mask.device)
    found, plain = fetch([valid, (_plain(mask, valid, length, pattern) | ~valid).all()])
    if not plain:
        form = "plainly causal" if pattern is None else "that of its architecture, with sliding windows or images seen in both directions"
        raise ModelError(
            f"this model's attention mask is not {form}: dropping tokens could change which others are attended to",
            "pass the processor's whole output and no mask of your own" if pattern is None else "pass token_type_ids with the other inputs",
        )
    return np.asarray(found)


def _complain(mask: Tensor, known: NDArray[np.bool_], pattern: Tensor | None, same: NDArray[Any]) -> None:
    """Raise ModelError if a mask differs from the expected one."""
    if not same:
        batch, length = known.shape
        _looked_at(mask, batch, length, known, pattern)
        raise ModelError("the model's attention mask hides other tokens than the padding", "pass the processor's attention_mask unchanged")


def _allowed(mask: Tensor, batch: int) -> Tensor:
    """Which keys each query may attend to: [B, S, ≥ S] bool."""
    allowed = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    return allowed[:, 0].expand(batch, -1, -1)


def _plain(mask: Tensor, valid: Tensor, length: int, pattern: Tensor | None) -> Tensor:
    """Which queries attend to exactly the tokens of the pattern that are not padding: [B, S] bool."""
    allowed = _allowed(mask, len(valid))
    seen = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril() if pattern is None else pattern.to(mask.device)
    causal = seen & valid[:, None, :]
    return (allowed[:, :, :length] == causal).all(-1) & ~allowed[:, :, length:].any(-1)


def make_mask(
    form: Form, valid: Tensor, queries: int, *, whole: bool, width: int | None, dtype: torch.dtype, pattern: Tensor | None = None
) -> Tensor | None:
    """Make the mask of a pruned layer.

    Args:
        form: mask format of the attention implementation.
        valid: [B, keys] bool, False for padding rows. queries: number of queries; they are the last rows of the keys.
        whole: True if no key is a padding row.
        width: length of a static cache, whose unused end is masked; None if the keys are just those of `valid`.
        dtype: of an additive mask.
        pattern: [B or 1, queries, keys] bool, the keys that a query attends to; by default the earlier ones and itself.

    Returns:
        The mask, or None if the implementation computes the same without one, and faster.

    Example:
        >>> make_mask("bool", torch.tensor([[False, True, True]]), 2, whole=False, width=None, dtype=torch.float32).int().tolist()
        [[[[0, 1, 0], [0, 1, 1]]]]
    """
    keys = valid.shape[1]
    if form == "padding":
        return None if whole else valid
    if form == "bool" and whole and pattern is None and (queries == keys or (queries == 1 and width is None)):
        return None
    rows = torch.arange(keys - queries, keys, device=valid.device)[:, None]
    columns = torch.arange(keys, device=valid.device)
    allowed = (columns <= rows if pattern is None else pattern) & valid[:, None, :]
    allowed |= columns == rows  # a padding row attends to itself: rows without any key give NaN in some kernels
    allowed = torch.nn.functional.pad(allowed, (0, (width or keys) - keys))[:, None]
    if form == "bool":
        return allowed
    return torch.where(allowed, torch.zeros((), dtype=dtype, device=valid.device), torch.finfo(dtype).min)
