"""Find out which images a prompt was made of: pixels, sizes, grids.

The language model does not need them any more, and newer releases of the host encode the images in `generate()`, ahead of the model's
forward pass, and throw them away. So the model's public method `get_image_features`, through which every path goes, is watched for the
time of the block; it is no module, so a hook cannot do it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from biaskit.errors import ModelError

_METHOD = "get_image_features"


class EncodedImages:
    """What the images of the next prefill were, as far as it is known."""

    def __init__(self) -> None:
        self.given: Mapping[str, Any] = {}
        self.output: Any = None
        self.features = 0

    @contextmanager
    def attached(self, base: Any) -> Iterator[None]:
        """Watch the base model's image encoder. Afterwards the model has its own method again."""

        def watched(stock: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            output = stock(*args, **kwargs)
            self.given = dict(inspect.signature(stock).bind(*args, **kwargs).arguments)
            self.output, self.features = output, sum(part.shape[:-1].numel() for part in getattr(output, "pooler_output", ()))
            return output

        with _around(base, watched):
            yield

    def forget(self) -> None:
        """Drop the images: their prefill is over."""
        self.given, self.output = {}, None

    def describe(self, inputs: Mapping[str, Any], image_token_id: int) -> tuple[dict[str, Any], int]:
        """Return what the processor gave for the images of this prefill, and how often each sample stands in the batch.

        Rows are repeated for beams and returned sequences after the images were encoded; then `input_ids` are those of the samples.

        Args:
            inputs: what the base model received.

        Raises:
            ModelError: the images were encoded outside the block.
        """
        ids: Tensor = inputs["input_ids"]
        encoded = (inputs.get("mm_encoder_outputs") or {}).get("image")
        if self.output is None or (inputs.get("pixel_values") is None and not _same(encoded, self.output)):
            raise ModelError("the images of this prompt were encoded elsewhere", "pass pixel_values to the model inside the block")
        wanted = int((ids == image_token_id).sum())
        copies = wanted // self.features if self.features and wanted % self.features == 0 else 1
        return {**inputs, **self.given, "input_ids": ids[::copies]}, copies


@contextmanager
def encode_once(model: PreTrainedModel) -> Iterator[None]:
    """Encode images only once if the model is called with the same ones again and again inside the block; the last batch is remembered.

    `with prune(...)` blocks may stand inside. The features are those that the model would compute again, to the bit.

    Raises:
        ModelError: the model has no image encoder.
    """
    last: list[tuple[Mapping[str, Any], Any]] = []

    def remembered(stock: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        given = dict(inspect.signature(stock).bind(*args, **kwargs).arguments)
        if not last or not _alike(last[0][0], given):
            last.clear()
            last.append((given, stock(*args, **kwargs)))
        return last[0][1]

    with _around(model.base_model, remembered):
        yield


@contextmanager
def _around(base: Any, called: Callable[..., Any]) -> Iterator[None]:
    """Have `called(stock, …)` called in place of a base model's image encoder; afterwards the model has its own method again."""
    stock, own = getattr(base, _METHOD, None), vars(base).get(_METHOD)
    if stock is None:
        raise ModelError(f"{type(base).__name__} has no image encoder", "biaskit models list names what is supported")

    @wraps(stock)
    def instead(*args: Any, **kwargs: Any) -> Any:
        return called(stock, *args, **kwargs)

    setattr(base, _METHOD, instead)
    try:
        yield
    finally:
        if own is None:
            delattr(base, _METHOD)
        else:
            setattr(base, _METHOD, own)


def _alike(a: Any, b: Any) -> bool:
    """Tell whether two calls were given the same."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return a is b or (type(a) is type(b) and a.device == b.device and a.dtype == b.dtype and torch.equal(a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_alike(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_alike, a, b))
    return bool(a == b)


def _same(a: Any, b: Any) -> bool:
    """Tell whether two outputs of the encoder hold the same features; dispatched models hand copies on."""
    if a is b or a is None:
        return a is b
    mine, theirs = list(a.pooler_output), list(b.pooler_output)
    return len(mine) == len(theirs) and all(torch.equal(x, y.to(x.device)) for x, y in zip(mine, theirs, strict=True))
