"""Narrow the sequence inside a language model: from decoder layer K on, or before the model (K = 0), in one stage or several.

Only public hooks are used: one on the base model, which shows the inputs, one on the language model, which tells prefill from decode, and
one on each decoder layer from the first K on. At prefill the hook of layer K asks what to drop and hands the layer the rest of the hidden
states; it and every later layer get the rotary embeddings of these rows and a mask of their own. Kept tokens keep their positions, and the
model goes on counting from the whole prompt, so that `generate()` needs to know nothing.

What the sequence looks like is a matter of the key-value cache: it is remembered for each cache that was filled inside the block.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from biaskit.device import deferred, fetch, upload
from biaskit.engine.attention import watch_attention
from biaskit.engine.deepstack import DeepStack
from biaskit.engine.image_encoder import EncodedImages
from biaskit.engine.limits import check_no_images, check_padding, check_stages, check_window
from biaskit.engine.masks import Form, make_mask, mask_form, read_mask
from biaskit.engine.memory import Decider, Pass, Prompt, View
from biaskit.engine.narrowing import Narrowing, compact_positions, take
from biaskit.errors import ModelError
from biaskit.families.checkpoints.decoder import decoder


class Narrower:
    """Hooks that narrow one model; see `narrow`."""

    def __init__(self, model: PreTrainedModel, layers: Sequence[int], decider: Decider, *, compact: bool) -> None:
        self.model, self.layers, self.decider, self.compact = model, check_stages(model, layers), decider, compact
        self.stack = decoder(model)
        self.form: Form = mask_form(self.stack.config._attn_implementation)
        self.deepstack = DeepStack(self.layers[0])
        self.images = EncodedImages()
        self.inputs: dict[str, Any] = {}
        self.now: Pass | None = None
        self.prompts: WeakKeyDictionary[Any, Prompt] = WeakKeyDictionary()

    @contextmanager
    def attached(self, record: bool) -> Iterator[None]:
        """Register every hook; `record`: attention rows and keys as well."""
        with ExitStack() as held:
            held.enter_context(self.images.attached(self.model.base_model))
            held.callback(self.model.base_model.register_forward_pre_hook(self._inputs, with_kwargs=True).remove)
            held.callback(self.stack.register_forward_pre_hook(self._enter, with_kwargs=True).remove)
            held.callback(self.stack.register_forward_hook(self._leave).remove)
            for number in range(self.layers[0], len(self.stack.layers)):
                hook = _Layer(self, number)
                held.callback(self.stack.layers[number].register_forward_pre_hook(hook, with_kwargs=True).remove)
            held.enter_context(self.deepstack.attached(self.stack, self._narrowing))
            read = [layer - 1 for layer in self.layers if layer > 0]
            if record and read:
                held.enter_context(watch_attention(self.model, read, self._seen, when=self._deciding))
            yield

    def _narrowing(self, layer: int) -> Narrowing | None:
        """How the sequence is narrowed at a decoder layer of this pass."""
        if self.now is None or self.stage(layer) < 0:
            return None
        return self.now.prompt.stages[self.stage(layer)]

    def stage(self, layer: int) -> int:
        """The stage that a decoder layer belongs to; −1 before the first."""
        return sum(start <= layer for start in self.layers) - 1

    def _deciding(self) -> bool:
        return self.now is not None and self.now.prefill and self.now.prompt.active

    def _seen(self, layer: int, row: Tensor, keys: Tensor | None) -> None:
        assert self.now is not None
        self.now.seen[layer + 1] = (row.mean(1), keys)

    def _inputs(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        names = list(inspect.signature(type(module).forward).parameters)[1:]
        self.inputs = {**dict(zip(names, args, strict=False)), **kwargs}

    def _enter(self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        self.now = None
        self.deepstack.forget()
        cache, embeds = kwargs.get("past_key_values"), kwargs["inputs_embeds"]
        past = 0 if cache is None else int(cache.get_seq_length())
        if past:
            self.images.forget()  # without a cache, each step is a prefill and needs them again
            self.now = self._continue(cache, past, embeds.shape, kwargs)
            return args, kwargs
        active = self._begin(embeds)
        rows, size, _ = embeds.shape
        mask = self.inputs.get("attention_mask")
        padding = None
        if active and isinstance(mask, Tensor) and mask.shape == (rows, size) and mask.device.type == "cpu":
            padding = mask.numpy().astype(bool)
        prompt = Prompt(rows, size, size, active, [None] * len(self.layers), embeds, padding=padding)
        self.now = Pass(prompt, size, cache, prefill=True)
        if active:
            kwargs = self.deepstack.take_over(kwargs)
        return args, kwargs

    def _begin(self, embeds: Tensor) -> bool:
        """Tell the decider about a new batch of prompts; False if there is nothing to prune."""
        ids, token = self.inputs.get("input_ids"), self.model.config.image_token_id
        if ids is None:
            raise ModelError("the model was called with inputs_embeds alone", "pass input_ids: they tell which tokens are visual")
        encoded = self.inputs.get("mm_encoder_outputs") or {}  # where newer releases put what generate() has encoded
        if self.inputs.get("pixel_values_videos") is not None or encoded.get("video") is not None:
            raise ModelError("the prompt has a video, and pruning video tokens is not supported", "pass its frames as images")
        self.inputs = self._on_the_host()  # the one time that a GPU is waited for before the decision
        seen = self.inputs["input_ids"]
        if not bool((seen == token).any()):
            self.decider.idle()
            return False
        inputs, copies = self.images.describe(self.inputs, token)
        self.decider.begin(inputs, copies, seen, embeds)
        return True

    def _on_the_host(self) -> dict[str, Any]:
        """Bring tokens, padding, sizes and grids to the host, those of the images too, and leave pixels where they are."""
        both: list[dict[str, Any]] = [dict(self.inputs), dict(self.images.given)]
        moved = {id(value): value for given in both for name, value in given.items() if _is_wanted(name, value)}
        found = dict(zip(moved, map(torch.from_numpy, fetch(list(moved.values()))), strict=True))
        inputs, self.images.given = ({name: found.get(id(value), value) for name, value in given.items()} for given in both)
        return inputs

    def _continue(self, cache: Any, past: int, shape: tuple[int, ...], kwargs: Mapping[str, Any]) -> Pass:
        """Check that a pass with a filled cache goes on where the cache ends.

        Raises:
            ModelError: it does not, or brings images along.
        """
        prompt, (rows, fresh, _) = self.prompts.get(cache), shape
        if prompt is None:
            raise ModelError(
                "the key-value cache was not filled inside this block", "run the prompt's prefill in the same `with prune(...)` block"
            )
        if not prompt.active:
            check_no_images(self.model, self.inputs, fresh)
            return Pass(prompt, fresh, cache, prefill=False)
        first = prompt.stages[0] if self.layers[0] == 0 else None
        expected = prompt.length - (0 if first is None else prompt.size - len(first))
        mask = kwargs.get("attention_mask")
        padding = mask if isinstance(mask, Tensor) and mask.ndim == 2 else None
        fits = rows == prompt.rows and (padding is None or padding.shape[1] == prompt.length + fresh)
        if first is not None and ((fresh > 1 and padding is None) or self.inputs.get("position_ids") is None):
            fits = False
        if past != expected or not fits:
            raise ModelError(
                f"{rows} × {fresh} new tokens do not follow the {prompt.rows} × {prompt.length} that this cache has seen "
                f"({past} are held at layer 0)",
                "a pruned cache can be extended, not cropped (assisted decoding); after pruning at layer 0 continue by generate() without "
                "past_key_values, or pass one token at a time with position_ids",
            )
        check_no_images(self.model, self.inputs, fresh)
        check_window(self.stack, self.layers[0], prompt.length + fresh)
        prompt.length += fresh
        tail = None if padding is None else padding[:, prompt.size :].to(torch.bool)
        return Pass(prompt, fresh, cache, prefill=False, tail=None if tail is None or bool(tail.all()) else tail)

    def _leave(self, _module: Any, _args: tuple[Any, ...], output: Any) -> None:
        now, self.now = self.now, None
        if now is None or not now.prefill:
            return
        cache = getattr(output, "past_key_values", None)
        now.prompt.embeds = None
        if cache is not None:
            self.prompts[cache] = now.prompt
        if now.prompt.active:
            self.decider.finish(cache)


def _is_wanted(name: str, value: Any) -> bool:
    """Tell what layouts are read from, tokens, padding, sizes and grids, from pixels and positions."""
    if not isinstance(value, Tensor) or value.is_floating_point():
        return False
    return name == "input_ids" or (name == "attention_mask" and value.ndim == 2) or value.numel() < 1 << 12


class _Layer:
    """The hook before one decoder layer."""

    def __init__(self, narrower: Narrower, number: int) -> None:
        self.narrower, self.number, self.stage = narrower, number, narrower.stage(number)
        self.begins = narrower.layers[self.stage] == number

    def __call__(self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        now = self.narrower.now
        if now is None or not now.prompt.active:
            return None
        hidden: Tensor = args[0] if args else kwargs["hidden_states"]
        if now.prefill and self.begins:
            hidden = self._narrow(now, hidden, kwargs.get("attention_mask"))
        narrowing = now.prompt.stages[self.stage]
        if narrowing is None:
            return None
        rotary = kwargs["position_embeddings"]
        if now.prefill or self.narrower.compact:
            rotary = self._rotary(now, narrowing, hidden, rotary, kwargs.get("position_ids"))
        # gaps in position ids look like packed sequences to flash attention: narrowed layers get none
        kwargs = {**kwargs, "attention_mask": self._mask(now, narrowing, hidden), "position_ids": None, "position_embeddings": rotary}
        if args:
            return (hidden, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": hidden}

    def _narrow(self, now: Pass, hidden: Tensor, mask: Any) -> Tensor:
        """Ask for the decision and carry it out on the hidden states."""
        prompt, stage = now.prompt, self.stage
        assert prompt.embeds is not None
        with deferred():
            if prompt.valid is None:
                prompt.valid = self._valid(prompt, mask)
            before = prompt.stages[stage - 1] if stage else None
            current = Narrowing.unchanged(prompt.valid, hidden.device) if before is None else before
            attention, keys = now.seen.pop(self.number, (None, None))
            drop = self.narrower.decider.decide(View(stage, self.number, current, hidden, prompt.embeds, attention, keys))
        prompt.stages[stage] = before
        if drop is None:
            return hidden
        after = Narrowing.of(current.stays & ~drop, hidden.device)
        prompt.stages[stage] = after
        return take(hidden, after.index if before is None else before.rows_of(after.held))

    def _valid(self, prompt: Prompt, mask: Any) -> NDArray[np.bool_]:
        """Which tokens are not padding, [B, S], by the mask that the model made for this layer."""
        check_window(self.narrower.stack, self.number, prompt.size)
        valid = read_mask(mask, prompt.rows, prompt.size, prompt.padding)
        if valid is None:
            return np.ones((prompt.rows, prompt.size), bool)
        check_padding(valid)
        return valid

    def _mask(self, now: Pass, narrowing: Narrowing, hidden: Tensor) -> Tensor | None:
        """Return this layer's mask; layers of one stage on one device share it."""
        form = self.narrower.form
        static = now.cache is not None and bool(getattr(now.cache, "is_compileable", False))
        if static and form == "padding":
            raise ModelError("static caches cannot be pruned under flash attention", "use sdpa attention, or a dynamic cache")
        width = now.cache.layers[self.number].max_cache_len if static else None
        key = ("mask", self.stage, hidden.device, width)
        if key not in now.made:
            alive, whole = narrowing.alive.to(hidden.device), narrowing.whole
            if not now.prefill:
                tail = alive.new_ones(len(alive), now.prompt.length - now.prompt.size) if now.tail is None else now.tail.to(alive.device)
                alive, whole = torch.cat([alive, tail], dim=1), whole and now.tail is None
            queries = len(narrowing) if now.prefill else now.fresh
            now.made[key] = make_mask(form, alive, queries, whole=whole, width=width, dtype=hidden.dtype)
        made: Tensor | None = now.made[key]
        return made

    def _rotary(self, now: Pass, narrowing: Narrowing, hidden: Tensor, own: tuple[Tensor, ...], positions: Any) -> tuple[Tensor, ...]:
        """Return the rotary embeddings (cos, sin), [B, rows, head_dim] each, of the rows of this layer.

        Args:
            own: those that the model made for the whole prompt, or for the fresh tokens. positions: [B or 1, fresh] their position ids.
        """
        key = ("rotary", self.stage, own[0].device)
        if key not in now.made:
            assert now.prompt.valid is not None
            if now.prefill:
                index = compact_positions(now.prompt.valid, narrowing) if self.narrower.compact else narrowing.index
                now.made[key] = tuple(take(part, index) for part in own)
            else:
                gone = upload((now.prompt.valid.sum(1) - narrowing.counts())[:, None], positions.device)
                now.made[key] = self.narrower.stack.rotary_emb(hidden, positions - gone)
        made: tuple[Tensor, ...] = now.made[key]
        return made
