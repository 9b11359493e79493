"""Find out which images a prompt was made of: pixels, sizes, grids.

The language model does not need them any more, and newer releases of the host encode the images in `generate()`, ahead of the model's
forward pass, and throw them away. So the model's public method `get_image_features`, through which every path goes, is watched for the
time of the block; it is no module, so a hook cannot do it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor

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
        stock, own = getattr(base, _METHOD, None), vars(base).get(_METHOD)
        if stock is None:
            raise ModelError(f"{type(base).__name__} has no image encoder", "biaskit models list names what is supported")

        @wraps(stock)
        def watched(*args: Any, **kwargs: Any) -> Any:
            output = stock(*args, **kwargs)
            self.given = dict(inspect.signature(stock).bind(*args, **kwargs).arguments)
            self.output, self.features = output, sum(part.shape[:-1].numel() for part in getattr(output, "pooler_output", ()))
            return output

        setattr(base, _METHOD, watched)
        try:
            yield
        finally:
            if own is None:
                delattr(base, _METHOD)
            else:
                setattr(base, _METHOD, own)

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


def _same(a: Any, b: Any) -> bool:
    """Tell whether two outputs of the encoder hold the same features; dispatched models hand copies on."""
    if a is b or a is None:
        return a is b
    mine, theirs = list(a.pooler_output), list(b.pooler_output)
    return len(mine) == len(theirs) and all(torch.equal(x, y.to(x.device)) for x, y in zip(mine, theirs, strict=True))
