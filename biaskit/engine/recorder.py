"""Record readings of the decoder while a stock model runs its prefill, by intercepting the attention function and by hooks on layers.

Attention readings are computed when the layer calls its attention function, from queries and keys as the kernel gets them, in float32,
block by block, and only for the wanted queries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biaskit.device import upload
from biaskit.engine.attention import logit_rows
from biaskit.engine.calls import Call, Stop, watch_calls
from biaskit.engine.layer_masks import LayerMasks
from biaskit.engine.memory import Pass, Prompt, Recorded
from biaskit.engine.narrowing import Narrowing
from biaskit.engine.per_thread import PerThread
from biaskit.errors import ModelError
from biaskit.families.checkpoints.decoder import layer_kind
from biaskit.pruners.readings import Heads, Reading

_CELLS = {"cpu": 1 << 21}  # entries of an attention map that are computed at once: on a CPU what its caches hold
_MOST_CELLS = 1 << 24


class Recorder:
    """Records the readings of the decoder that are wanted at each stage.

    Args:
        stack: the language model. layers: K of each stage. readings: recorded at every stage at which they exist.
        forward: returns the running forward pass, or None. narrowing: returns the narrowing at a decoder layer of it.
        masks: the attention masks of the layers.
    """

    probing: PerThread[tuple[int, Narrowing | None] | None] = PerThread(lambda: None)

    def __init__(
        self,
        stack: Any,
        layers: Sequence[int],
        readings: frozenset[Reading],
        forward: Callable[[], Pass | None],
        narrowing: Callable[[int], Narrowing | None],
        masks: LayerMasks,
    ) -> None:
        self.stack, self.forward, self.narrowing, self.masks = stack, forward, narrowing, masks
        self.calls: dict[int, list[tuple[int, Reading]]] = {}
        self.inputs: dict[int, list[tuple[int, Reading]]] = {}
        self.upcoming: dict[int, list[Reading]] = {}
        self.turned: list[tuple[int, Reading]] = []
        for stage, start in enumerate(layers):
            for reading in sorted(readings, key=str):
                if reading.at != "decoder" or not reading.exists(start):
                    continue
                if reading.what == "rotations":
                    self.turned.append((stage, reading))
                elif reading.layer == 0:
                    self.upcoming.setdefault(stage, []).append(reading)
                elif reading.what != "hidden":
                    self.calls.setdefault(start + reading.layer, []).append((stage, reading))
                elif reading.layer < -1:  # the output of K − 1 is the input of K, which the decision sees
                    self.inputs.setdefault(start + reading.layer + 1, []).append((stage, reading))
        self.starts = tuple(layers)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Register the hooks. Attach after those that drop tokens, so that these see a layer's input after dropping."""
        watched = {*self.calls, *(self.starts[stage] for stage in self.upcoming)}
        with ExitStack() as handles:
            if self.turned:
                handles.callback(self.stack.rotary_emb.register_forward_pre_hook(self._turning, with_kwargs=True).remove)
            for layer in self.inputs:
                hook = partial(self._entered, layer)
                handles.callback(self.stack.layers[layer].register_forward_pre_hook(hook, with_kwargs=True).remove)
            if watched:
                modules = {self.stack.layers[layer].self_attn: layer for layer in watched}
                handles.enter_context(watch_calls(self.stack.config._attn_implementation, modules, self._called, everywhere=True))
            yield

    def probe(self, stage: int, hidden: Tensor, kwargs: dict[str, Any], narrowing: Narrowing | None) -> None:
        """Record what layer K of a stage will compute: run its attention on the layer's input until queries and keys are computed.

        Args:
            stage: one of `upcoming`. hidden: [B, M, d] input of the layer.
            kwargs: the layer's other arguments, masks and rotary embeddings of these rows. narrowing: which positions the rows hold.

        Raises:
            ModelError: the layer has no norm before its attention.
        """
        layer = self.stack.layers[self.starts[stage]]
        if not hasattr(layer, "input_layernorm"):
            raise ModelError(f"{type(layer).__name__} has no input_layernorm", "readings with layer=0 need it: use layer=-1")
        self.probing = stage, narrowing
        try:
            with suppress(Stop):
                layer.self_attn(hidden_states=layer.input_layernorm(hidden), **{**kwargs, "past_key_values": None})
        finally:
            self.probing = None

    def _called(self, layer: int, call: Call) -> None:
        forward = self.forward()
        if forward is None or not forward.prefill or not forward.prompt.active:
            return
        if self.probing is not None:
            stage, narrowing = self.probing
            self._record(forward, [(stage, reading) for reading in self.upcoming[stage]], layer, call, narrowing)
            raise Stop
        self._record(forward, self.calls.get(layer, ()), layer, call, self.narrowing(layer))

    def _record(self, forward: Pass, wanted: Sequence[tuple[int, Reading]], layer: int, call: Call, narrowing: Narrowing | None) -> None:
        done: dict[Reading, Tensor] = {}  # readings of one layer that differ in `of`, or in the layer relative to K, are computed once
        for stage, reading in wanted:
            kind = Reading(reading.what, queries=reading.queries, heads=reading.heads)
            if kind not in done:
                done[kind] = self._value(forward, kind, layer, call, narrowing)
            forward.recorded[stage, reading] = Recorded(done[kind], narrowing)

    def _value(self, forward: Pass, reading: Reading, layer: int, call: Call, narrowing: Narrowing | None) -> Tensor:
        if reading.what == "keys":
            return call.key[:, :, : call.query.shape[2]]
        if reading.queries == "last":
            logits = logit_rows(call)[:, :, 0]
            return join_heads(logits.softmax(-1) if reading.what == "attention" else logits, reading.heads)
        if narrowing is None and forward.prompt.padding is None:  # the processor's mask did not come through: a layer's tells
            forward.prompt.padding = self.masks.valid(forward.prompt, layer, call.mask, forward.cache)
        chosen = _chosen(forward.prompt, reading.queries, narrowing)
        rows = np.flatnonzero(chosen.any(0))
        weight = upload(chosen[:, rows], call.query.device)
        return mean_of_rows(call, reading, upload(rows, call.query.device), weight)

    def _turning(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        forward = self.forward()
        if forward is None or not forward.prefill or not forward.prompt.active:
            return
        kind = kwargs["layer_type"] if "layer_type" in kwargs else args[2] if len(args) > 2 else None
        frequencies = getattr(module, "inv_freq" if kind is None else f"{kind}_inv_freq", None)
        if frequencies is None:
            raise ModelError(
                f"{type(module).__name__} has no inv_freq", "a method that reads rotations needs the rotary table of its layer"
            )
        positions = kwargs["position_ids"] if "position_ids" in kwargs else args[1]
        found = mean_rotations(positions, frequencies)
        for stage, reading in self.turned:
            if kind not in (None, layer_kind(self.stack, self.starts[stage])):
                continue
            forward.recorded[stage, reading] = Recorded(found.expand(forward.prompt.rows, -1, -1), None)

    def _entered(self, layer: int, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        forward = self.forward()
        if forward is None or not forward.prefill or not forward.prompt.active:
            return
        hidden: Tensor = args[0] if args else kwargs["hidden_states"]
        for stage, reading in self.inputs[layer]:
            forward.recorded[stage, reading] = Recorded(hidden, self.narrowing(layer))


def mean_rotations(positions: Tensor, frequencies: Tensor) -> Tensor:
    """The mean cosine and sine of the angles by which rotary embedding rotates each token: [B, S, 2] float32.

    Args:
        positions: [B, S], or [axes, B, S] for multi-axis embeddings: each axis with all frequencies, as in IVC-Prune. frequencies: [f].

    Example:
        >>> mean_rotations(torch.tensor([[0, 2]]), torch.tensor([1.0, 0.0])).mul(1000).round().tolist()
        [[[1000.0, 0.0], [292.0, 455.0]]]
    """
    angles = positions[..., None].float() * frequencies.float()
    found = torch.stack([angles.cos().mean(-1), angles.sin().mean(-1)], -1)
    return found if found.ndim == 3 else found.mean(0)


def _chosen(prompt: Prompt, queries: str, narrowing: Narrowing | None) -> NDArray[np.bool_]:
    """Which rows of the sequence the queries of each sample are: [B, M] bool.

    Args:
        queries: one of `Reading.queries` except `last`. narrowing: which positions the rows hold; None: all.

    Raises:
        ModelError: a sample with images has no such row.
    """
    assert prompt.visual is not None
    if narrowing is None:
        assert prompt.padding is not None
        valid, visual = prompt.padding, prompt.visual
    else:
        valid, visual = narrowing.valid, np.take_along_axis(prompt.visual, narrowing.positions, 1)
    return query_rows(valid, visual, queries, np.asarray(prompt.visual.any(1)))


def query_rows(
    valid: NDArray[np.bool_], visual: NDArray[np.bool_], queries: str, pictured: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Which rows of a sequence the queries of each sample are: [B, M] bool.

    Args:
        valid: [B, M] bool, False for padding. visual: [B, M] bool. queries: one of `Reading.queries` except `last`.
        pictured: [B], samples that must have such rows; by default those with visual tokens among the M.

    Raises:
        ModelError: a sample with images has no such row.

    Example:
        >>> valid, visual = np.array([[False, True, True, True, True]]), np.array([[False, True, False, False, False]])
        >>> [query_rows(valid, visual, queries)[0].astype(int).tolist() for queries in ("question", "null")]
        [[0, 0, 1, 1, 1], [0, 0, 1, 0, 0]]
    """
    if queries in ("mean", "visual"):
        return valid if queries == "mean" else valid & visual
    found: NDArray[np.bool_] = valid & ~visual
    if queries != "text":
        found &= np.cumsum(visual[:, ::-1], 1)[:, ::-1] == 0
    without = np.flatnonzero((visual.any(1) if pictured is None else pictured) & ~found.any(1))
    if len(without):
        what = "has no text" if queries == "text" else "ends with its image"
        raise ModelError(
            f"the prompt of sample {without[0]} of the batch {what}, so it has no rows for queries={queries!r}",
            "put the question after the image, or read the last row: queries='last', a pruner's rows='last'",
        )
    return found & (np.cumsum(found, 1) == 1) if queries == "null" else found


def join_heads(values: Tensor, heads: Heads, dim: int = 1) -> Tensor:
    """Join the heads, dimension `dim`, as a reading says.

    Example:
        >>> join_heads(torch.tensor([[[1.0, 2.0], [5.0, 0.0]]]), "max").tolist()
        [[5.0, 2.0]]
    """
    if heads == "mean":
        return values.mean(dim)
    if heads == "sum":
        return values.sum(dim)
    return values if heads == "each" else values.amax(dim)


def _reached(call: Call, rows: Tensor) -> Call:
    """The call without the keys after its last query, which causal queries do not attend to; on a CPU, where looking costs nothing."""
    whole = call.mask is not None and getattr(call.mask, "ndim", 4) == 4
    if not call.causal or whole or call.query.device.type != "cpu" or call.query.shape[2] == 1:
        return call
    end = int(rows.max()) + 1
    return replace(call, key=call.key[:, :, :end], mask=None if call.mask is None else call.mask[:, :end])


def mean_of_rows(call: Call, reading: Reading, rows: Tensor, weight: Tensor | None = None) -> Tensor:
    """The mean over several rows of an attention map, heads joined: [B, keys], or [B, heads, keys] for `each`.

    Args:
        call: the arguments of the attention function. reading: attention or logits, and how heads are joined.
        rows: [q] queries. weight: [B, q] bool, those to average; all by default.

    Returns:
        Attention: the mean over the queries. Logits: the mean over queries that may attend to a key; −inf if none may.
    """
    (heads, length), keys = call.query.shape[1:3], call.key.shape[2]
    wide = min(keys, length) if length > 1 else keys
    cells = _CELLS.get(call.query.device.type, _MOST_CELLS)
    block = max(1, cells // (len(call.query) * heads * keys))
    total: Tensor | None = None
    counts: Tensor | None = None
    for start in range(0, len(rows), block):
        some = rows[start : start + block]
        logits = logit_rows(_reached(call, some), some)
        values = join_heads(logits.softmax(-1) if reading.what == "attention" else logits, reading.heads)
        counted = torch.ones_like(values, dtype=torch.bool)
        if weight is not None:
            mine = weight[:, start : start + block]
            counted &= mine.reshape(len(mine), *[1] * (values.ndim - 3), -1, 1)
        if reading.what == "logits":
            counted &= values > float("-inf")
        part, here = values.masked_fill(~counted, 0).sum(-2), counted.sum(-2)
        if total is None or counts is None:
            total, counts = part.new_zeros(*part.shape[:-1], wide), here.new_zeros(*here.shape[:-1], wide)
        total[..., : part.shape[-1]] += part
        if reading.what == "attention":
            counts += here[..., :1]  # a key that a query may not attend to has 0, which counts
        else:
            counts[..., : here.shape[-1]] += here
    assert total is not None and counts is not None
    if reading.what == "attention":
        return total / counts.clamp(min=1)
    return (total / counts.clamp(min=1)).masked_fill(counts == 0, float("-inf"))
