"""Intercept the image encoder to learn the pixels, sizes and grids of a prompt's images.

The language model does not receive them, and newer releases of transformers encode the images in `generate()`, before the model's forward
pass, and drop them. So the model's public method `get_image_features`, which every path calls, is wrapped inside the block; it is not a
module, so a hook cannot do it. What was seen is stored for the thread that encoded.
"""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from biaskit.engine.detour import detour
from biaskit.engine.per_thread import PerThread
from biaskit.engine.tower import check_tower, record_tower, tower_readings
from biaskit.engine.tower_merging import check_merging, merge_in_tower
from biaskit.errors import ModelError
from biaskit.families import families
from biaskit.families.checkpoints.tower import Tower
from biaskit.pruners.readings import MERGED, Reading

_METHOD = "get_image_features"


class ImageEncoderWatch:
    """The images of this thread's next prefill, if it has encoded any, and the readings of the vision tower recorded meanwhile.

    Args:
        model: a stock model. readings: needed readings; only those of the tower are recorded here.
        merges: share of each tile's patches that remains when the tower merges them; None: no merging.

    Raises:
        ModelError: the model's tower does not have a reading, or cannot merge.
    """

    given: PerThread[Mapping[str, Any]] = PerThread(dict)
    output: PerThread[Any] = PerThread(lambda: None)
    readings: PerThread[Mapping[Reading, Tensor]] = PerThread(dict)
    features: PerThread[int] = PerThread(int)

    def __init__(self, model: PreTrainedModel, readings: frozenset[Reading], merges: float | None = None) -> None:
        self.base, self.merges = model.base_model, merges
        self.needs = tower_readings(readings)
        self.tower = families.get(model.config.model_type).tower(model) if self.needs or merges is not None else None
        if self.tower is not None:
            check_tower(self.tower, self.needs)
        if self.tower is not None and merges is not None:
            check_merging(self.tower)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Watch the base model's image encoder. Afterwards the model has its own method again."""

        def watched(stock: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            if self.tower is not None and self.merges is not None:
                output, found = _merged(stock, self.tower, self.merges, self.needs, args, kwargs)
            else:
                output, found = _encoded(stock, self.tower, self.needs, args, kwargs)
            self.readings = {reading: value for reading, value in found.items() if reading in self.needs or reading == MERGED}
            self.given = dict(inspect.signature(stock).bind(*args, **kwargs).arguments)
            self.output, self.features = output, sum(part.shape[:-1].numel() for part in getattr(output, "pooler_output", ()))
            return output

        with detour(self.base, _METHOD, watched):
            yield

    def forget(self) -> None:
        """Drop the images after their prefill."""
        self.given, self.output, self.readings = {}, None, {}

    def describe(self, inputs: Mapping[str, Any], image_token_id: int) -> tuple[dict[str, Any], int]:
        """Return the processor's output for the images of this prefill, and how many rows of the batch each sample has.

        Rows are repeated for beams and returned sequences after the images were encoded; the returned `input_ids` are not repeated.

        Args:
            inputs: what the base model received.

        Raises:
            ModelError: the images were encoded outside the block.
        """
        ids: Tensor = inputs["input_ids"]
        encoded = (inputs.get("mm_encoder_outputs") or {}).get("image")
        if self.output is None or (inputs.get("pixel_values") is None and not _same(encoded, self.output)):
            raise ModelError("the images of this prompt were encoded elsewhere", "pass pixel_values to the model inside the block")
        placeholders = int((ids == image_token_id).sum())
        copies = placeholders // self.features if self.features and placeholders % self.features == 0 else 1
        return {**inputs, **self.given, "input_ids": ids[::copies]}, copies


def _encoded(
    stock: Callable[..., Any], tower: Tower | None, needs: frozenset[Reading], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Any, Mapping[Reading, Tensor]]:
    """Encode images and record the needed readings; an outer `encode_once` that has the same images is used instead."""
    memory: _Memory | None = getattr(stock, "way", None)
    if isinstance(memory, _Memory):
        return memory.encode(stock.stock, needs, args, kwargs)  # type: ignore[attr-defined]
    if tower is None or not needs:
        return stock(*args, **kwargs), {}
    with record_tower(tower, needs) as found:
        output = stock(*args, **kwargs)
    return output, found


def _merged(
    stock: Callable[..., Any], tower: Tower, share: float, needs: frozenset[Reading], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Any, Mapping[Reading, Tensor]]:
    """Encode images while the tower merges. An outer `encode_once` is bypassed: it stores features without merging."""
    memory = getattr(stock, "way", None)
    plain: Callable[..., Any] = stock.stock if isinstance(memory, _Memory) else stock  # type: ignore[attr-defined]
    with merge_in_tower(tower, share) as groups:
        output, found = _encoded(plain, tower, needs, args, kwargs)
    return output, {**found, MERGED: torch.cat([part.flatten() for part in groups])}


class _Memory:
    """The last encoded images, their features and the recorded readings of the tower. One thread at a time."""

    def __init__(self, tower: Tower | None, needs: frozenset[Reading]) -> None:
        self.tower, self.needs = tower, needs
        self.lock = threading.Lock()
        self.last: tuple[Mapping[str, Any], Any, Mapping[Reading, Tensor]] | None = None

    def __call__(self, stock: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return the encoder's output."""
        return self.encode(stock, frozenset(), args, kwargs)[0]

    def encode(
        self, stock: Callable[..., Any], needs: frozenset[Reading], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[Any, Mapping[Reading, Tensor]]:
        """Return the encoder's output and readings; the encoder runs if the images, or a reading, are new."""
        given = dict(inspect.signature(stock).bind(*args, **kwargs).arguments)
        with self.lock:
            if self.last is None or not _alike(self.last[0], given) or not needs <= self.last[2].keys():
                self.needs |= needs
                self.last = None
                self.last = (given, *_encoded(stock, self.tower, self.needs, args, kwargs))
            return copy.copy(self.last[1]), self.last[2]  # generate() repeats the features in their container, for beams


@contextmanager
def encode_once(model: PreTrainedModel, needs: Iterable[Reading] = ()) -> Iterator[None]:
    """Encode images only once if the model is called with the same ones repeatedly inside the block; the last batch is stored.

    `with prune(...)` blocks may be nested inside. The features are bit for bit those that the model would compute again.

    Args:
        model: a stock model.
        needs: readings that the pruners inside need. Those of the vision tower are recorded at once and stored beside the features; a
            reading that is needed later costs one more pass of the tower.

    Raises:
        ModelError: the model has no image encoder, or its tower lacks a reading.
    """
    family = families.get(model.config.model_type) if model.config.model_type in families.names() else None
    tower, of_tower = None if family is None else family.tower(model), tower_readings(needs)
    if tower is not None:
        check_tower(tower, of_tower)
    with detour(model.base_model, _METHOD, _Memory(tower, of_tower)):
        yield


def _alike(a: Any, b: Any) -> bool:
    """True if two calls have equal arguments."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return a is b or (type(a) is type(b) and a.device == b.device and a.dtype == b.dtype and torch.equal(a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_alike(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_alike, a, b))
    return bool(a == b)


def _same(a: Any, b: Any) -> bool:
    """True if two outputs of the encoder hold the same features; dispatched models pass copies on."""
    if a is b or a is None:
        return a is b
    mine, theirs = list(a.pooler_output), list(b.pooler_output)
    return len(mine) == len(theirs) and all(torch.equal(x, y.to(x.device)) for x, y in zip(mine, theirs, strict=True))
