"""Drop tokens inside a language model: from decoder layer K on, or before the model (K = 0), in one stage or several.

Only public hooks are used: one on the base model, which sees the inputs, one on the language model, which tells prefill from decode, and
one on each decoder layer from the first K on. At prefill the hook of layer K asks what to drop and passes the rest of the hidden states to
the layer; it and every later layer get the rotary embeddings of these rows and a mask made for them. Kept tokens keep their position ids,
and new tokens are counted from the whole prompt, so that `generate()` works unchanged.

How a sequence was narrowed (which positions its rows hold) is stored for each key-value cache filled inside the block. The state of a
running pass is stored by thread, so that several threads may call one model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel

from biaskit.device import Fetch, deferred, upload
from biaskit.engine.deepstack import DeepStack
from biaskit.engine.detour import detour
from biaskit.engine.filled import Filled
from biaskit.engine.image_encoder import ImageEncoderWatch
from biaskit.engine.inputs import by_name, on_the_host
from biaskit.engine.layer_masks import LayerMasks
from biaskit.engine.limits import check_chunks, check_continues, check_eager, check_no_images, check_stages
from biaskit.engine.masks import padding_told
from biaskit.engine.memory import Decider, Pass, Prompt, Recorded, View
from biaskit.engine.narrowing import Narrowing, compact_positions, replace_rows, take
from biaskit.engine.per_thread import AtWork, PerThread
from biaskit.engine.recorder import Recorder
from biaskit.errors import ModelError
from biaskit.families.checkpoints.decoder import decoder, layer_kind, rotary
from biaskit.pruners.readings import Reading


class TokenDropper:
    """Hooks that drop visual tokens inside one model.

    Args:
        model: a stock model. layers: K of each stage. decider: decides what is kept. readings: what it needs recorded.
        compact: renumber kept tokens without gaps. merges: see `ImageEncoderWatch`.
    """

    inputs: PerThread[dict[str, Any]] = PerThread(dict)
    forward: PerThread[Pass | None] = PerThread(lambda: None)
    running: PerThread[bool] = PerThread(bool)

    def __init__(
        self,
        model: PreTrainedModel,
        layers: Sequence[int],
        decider: Decider,
        *,
        readings: frozenset[Reading] = frozenset(),
        compact: bool = False,
        merges: float | None = None,
    ) -> None:
        self.model, self.layers, self.decider, self.compact = model, check_stages(model, layers), decider, compact
        self.stack = decoder(model)
        self.masks = LayerMasks(model)
        self.deepstack = DeepStack(model, self.layers[0])
        self.images = ImageEncoderWatch(model, readings, merges)
        self.readings = readings
        self.recorder = Recorder(self.stack, self.layers, readings, lambda: self.forward, self._narrowing, self.masks)
        self.filled, self.at_work, self.called = Filled(), AtWork(), False

    @contextmanager
    def attached(self, say: Callable[[str], None]) -> Iterator[None]:
        """Register every hook. The end of the block waits for other threads that still generate; `say` is called if that takes long."""
        base, stack = self.model.base_model, self.stack
        with ExitStack() as handles:
            handles.callback(self.filled.close)
            handles.enter_context(detour(self.model, "generate", self._generate))
            handles.enter_context(self.images.attached())
            handles.callback(base.register_forward_pre_hook(self._inputs, with_kwargs=True).remove)
            handles.callback(stack.register_forward_pre_hook(self._enter, with_kwargs=True).remove)
            handles.callback(stack.register_forward_hook(self._leave, always_call=True).remove)
            for number in range(self.layers[0], len(stack.layers)):
                handles.callback(stack.layers[number].register_forward_pre_hook(_Layer(self, number), with_kwargs=True).remove)
            handles.enter_context(self.deepstack.attached(self.stack, self._narrowing))
            handles.enter_context(self.recorder.attached())
            handles.push(lambda kind, *_: self.at_work.close(say, failed=kind is not None))
            yield

    def _generate(self, stock: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        check_chunks(self.model, args, kwargs)
        with self.at_work.call():
            return stock(*args, **kwargs)

    def _narrowing(self, layer: int) -> Narrowing | None:
        """The narrowing of the sequence at a decoder layer of this pass."""
        if self.forward is None or self.stage(layer) < 0:
            return None
        return self.forward.prompt.stages[self.stage(layer)]

    def stage(self, layer: int) -> int:
        """The stage that a decoder layer belongs to; −1 before the first."""
        return sum(start <= layer for start in self.layers) - 1

    def _inputs(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.inputs, self.called = by_name(module, args, kwargs), True

    def _enter(self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        self.forward = None
        self.deepstack.forget()
        check_eager(self.stack)
        self.at_work.begin()
        self.running = True
        cache, embeds = kwargs.get("past_key_values"), kwargs["inputs_embeds"]
        past = 0 if cache is None else int(cache.get_seq_length())
        if past:
            self.images.forget()  # without a cache, each step is a prefill and needs them again
            self.forward = self._continue(cache, past, embeds.shape, kwargs)
            return args, kwargs
        active = self._begin(embeds)
        rows, size, _ = embeds.shape
        mask = self.inputs.get("attention_mask")
        padding = np.ones((rows, size), bool) if active and mask is None else None  # generate() omits a mask of ones
        if active and isinstance(mask, Tensor) and mask.shape == (rows, size) and mask.device.type == "cpu":
            padding = mask.numpy().astype(bool)
        prompt = Prompt(rows, size, size, active, [None] * len(self.layers), embeds, padding=padding)
        self.forward = Pass(prompt, size, cache, prefill=True)
        if active:
            prompt.visual = visual = (self.inputs["input_ids"] == self.model.config.image_token_id).numpy()
            kwargs = self.deepstack.take_over(kwargs, visual)
        return args, kwargs

    def _begin(self, embeds: Tensor) -> bool:
        """Pass a new batch of prompts to the decider; False if there is nothing to prune."""
        ids, token = self.inputs.get("input_ids"), self.model.config.image_token_id
        if ids is None:
            raise ModelError("the model was called with inputs_embeds only", "pass input_ids: they show which tokens are visual")
        encoded = self.inputs.get("mm_encoder_outputs") or {}  # images that generate() encoded, in newer releases
        if self.inputs.get("pixel_values_videos") is not None or encoded.get("video") is not None:
            raise ModelError("the prompt has a video, and pruning video tokens is not supported", "pass its frames as images")
        self.inputs, self.images.given = on_the_host(self.inputs, self.images.given)  # the only synchronisation before the decision
        seen = self.inputs["input_ids"]
        if not bool((seen == token).any()):
            self.decider.idle()
            return False
        inputs, copies = self.images.describe(self.inputs, token)
        self.decider.begin(inputs, copies, seen, embeds, self.images.readings)
        return True

    def _continue(self, cache: Any, past: int, shape: tuple[int, ...], kwargs: Mapping[str, Any]) -> Pass:
        """Check that a pass with a filled cache continues where the cache ends, without images; raise ModelError if not."""
        prompt, (rows, fresh, _) = self.filled.find(cache), shape
        if prompt is None:
            raise ModelError(
                "the key-value cache was not filled inside this block", "run the prompt's prefill in the same `with prune(...)` block"
            )
        if not prompt.active:
            check_no_images(self.model, self.inputs, fresh)
            return Pass(prompt, fresh, cache, prefill=False)
        given = self.inputs.get("attention_mask", kwargs.get("attention_mask"))  # Gemma 3 makes masks of it before its language model
        first = prompt.stages[0] if self.layers[0] == 0 else None
        padding = padding_told(given, rows, prompt.length + fresh if first is None else None, layer_kind(self.stack, 0))
        expected = prompt.length - (0 if first is None else prompt.size - len(first))
        placed = first is None or (self.inputs.get("position_ids") is not None and (fresh == 1 or padding is not None))
        fits = placed and (padding is None or padding.shape[1] == prompt.length + fresh)
        check_continues((rows, fresh), (prompt.rows, prompt.length), cached=past, expected=expected, fits=fits)
        check_no_images(self.model, self.inputs, fresh)
        self.masks.check_continued(self.layers[0], prompt.length + fresh, cache)
        prompt.length += fresh
        tail = None if padding is None else padding[:, prompt.size :]
        return Pass(prompt, fresh, cache, prefill=False, tail=tail, tail_valid=None if tail is None else Fetch(tail.all()))

    def _leave(self, _module: Any, _args: tuple[Any, ...], output: Any) -> None:
        forward, self.forward = self.forward, None
        if self.running:
            self.running = False
            self.at_work.end()
        if forward is None or not forward.prefill or output is None:  # None: an error ended the pass
            return
        cache = getattr(output, "past_key_values", None)
        forward.prompt.embeds = None
        if cache is not None:
            self.filled.remember(cache, forward.prompt)
        if forward.prompt.active:
            self.decider.finish(cache)


class _Layer:
    """The hook before one decoder layer."""

    def __init__(self, dropper: TokenDropper, number: int) -> None:
        self.dropper, self.number, self.stage = dropper, number, dropper.stage(number)
        self.begins = dropper.layers[self.stage] == number

    def __call__(self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        forward = self.dropper.forward
        if forward is None or not forward.prompt.active:
            return None
        hidden: Tensor = args[0] if args else kwargs["hidden_states"]
        if forward.prefill and self.begins:
            hidden = self._narrow(forward, hidden, kwargs)
        narrowing = forward.prompt.stages[self.stage]
        if narrowing is not None:
            kwargs = self._fitted(forward, narrowing, self.stage, hidden, kwargs)
        elif not (forward.prefill and self.begins):
            return None
        return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

    def _fitted(self, forward: Pass, narrowing: Narrowing, stage: int, hidden: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return a layer's arguments for the rows of a stage: their mask and rotary embeddings."""
        rotary = kwargs["position_embeddings"]
        if forward.prefill or self.dropper.compact:
            rotary = self._rotary(forward, narrowing, stage, hidden, rotary, kwargs.get("position_ids"))
        # flash attention takes gaps in position ids for packed sequences, so pruned layers get no position ids
        mask = self.dropper.masks.mask(forward, narrowing, stage, self.number, hidden)
        return {**kwargs, "attention_mask": mask, "position_ids": None, "position_embeddings": rotary}

    def _narrow(self, forward: Pass, hidden: Tensor, kwargs: dict[str, Any]) -> Tensor:
        """Ask for the decision and apply it to the hidden states."""
        prompt, stage, recorder = forward.prompt, self.stage, self.dropper.recorder
        with deferred():
            if prompt.valid is None:
                prompt.valid = self.dropper.masks.valid(prompt, self.number, kwargs.get("attention_mask"), forward.cache)
            before = prompt.stages[stage - 1] if stage else None
            if stage in recorder.upcoming:
                own = {name: value for name, value in kwargs.items() if name != "hidden_states"}
                recorder.probe(stage, hidden, own if before is None else self._fitted(forward, before, stage - 1, hidden, own), before)
            cut = self.dropper.decider.decide(self._view(forward, hidden, before))
        prompt.stages[stage] = before
        if cut is None:
            return hidden
        if not cut.keep_mask.all():
            current = Narrowing.unchanged(prompt.valid, hidden.device) if before is None else before
            after = Narrowing.of(current.keep_mask & cut.keep_mask, hidden.device)
            prompt.stages[stage] = after
            hidden = take(hidden, after.index if before is None else before.rows_of(after.positions))
        return replace_rows(hidden, cut.values, prompt.stages[stage])

    def _view(self, forward: Pass, hidden: Tensor, before: Narrowing | None) -> View:
        """The batch at this stage, for the decider."""
        prompt = forward.prompt
        assert prompt.embeds is not None and prompt.valid is not None
        whole = Narrowing.unchanged(prompt.valid, hidden.device)
        recorded: dict[Reading, Recorded] = {}
        for reading in self.dropper.readings:
            if reading.at == "projector":
                recorded[reading] = Recorded(prompt.embeds, whole)
            elif reading.at == "decoder" and reading.exists(self.number):
                hidden_here = reading.what == "hidden" and reading.layer == -1
                found = Recorded(hidden, before) if hidden_here else forward.recorded.pop((self.stage, reading))
                recorded[reading] = found if found.narrowing is not None else Recorded(found.values, whole)
        return View(self.stage, self.number, whole if before is None else before, hidden, prompt.embeds, recorded)

    def _rotary(
        self, forward: Pass, narrowing: Narrowing, stage: int, hidden: Tensor, own: tuple[Tensor, ...], positions: Any
    ) -> tuple[Tensor, ...]:
        """Return the rotary embeddings (cos, sin), [B, rows, head_dim] each, of a stage's rows.

        `own` are those that the model made for the whole prompt, or for the fresh tokens with position ids `positions` [B or 1, fresh].
        """
        kind = layer_kind(self.dropper.stack, self.number)  # Gemma 3 has rotary tables of two kinds
        key = ("rotary", stage, kind, own[0].device)
        if key not in forward.made:
            assert forward.prompt.valid is not None
            if forward.prefill:
                index = compact_positions(forward.prompt.valid, narrowing) if self.dropper.compact else narrowing.index
                forward.made[key] = tuple(take(part, index) for part in own)
            else:
                dropped = upload((forward.prompt.valid.sum(1) - narrowing.counts())[:, None], positions.device)
                forward.made[key] = rotary(self.dropper.stack, kind, hidden, positions - dropped)
        made: tuple[Tensor, ...] = forward.made[key]
        return made
