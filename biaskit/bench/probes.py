"""Time marks inside a forward pass: the end of encoding, begin and end of the language model, and the parts of the pruning decision.

The decision is everything that pruning adds: reading the prompt's layout, the attention row, the signals, the method itself, dropping rows,
and the masks and rotary embeddings of pruned layers. Probes are hooks before and after those of pruning, so that the stock model's own
work is not counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from biaskit.bench.clock import Clock
from biaskit.engine.calls import attention_door
from biaskit.families.checkpoints.decoder import decoder

DECISION = ("layout", "row", "narrow", "report")
"""Parts of the decision; each is the time between the marks NAME and NAME.end."""


class Probes:
    """Marks for one model; `outer` is entered before pruning, `inner` inside it."""

    def __init__(self, model: PreTrainedModel, clock: Clock, layers: Sequence[int]) -> None:
        self.model, self.clock, self.layers = model, clock, [layer for layer in layers if layer < len(decoder(model).layers)]
        self.stack = decoder(model)
        self.name: str = self.stack.config._attn_implementation
        self.read = {self.stack.layers[layer - 1].self_attn for layer in self.layers if layer > 0}
        self.prefill = False

    def _mark(self, name: str) -> Any:
        def hook(*_: Any, **__: Any) -> None:
            if self.prefill:
                self.clock.mark(name)

        return hook

    @contextmanager
    def outer(self) -> Iterator[None]:
        """Hooks that run before those of pruning at the start of a module, and before them at its end."""
        with ExitStack() as hooks:
            hooks.callback(self.model.base_model.register_forward_pre_hook(self._mark("encode")).remove)
            hooks.callback(self.stack.register_forward_pre_hook(self._mark("layout")).remove)
            hooks.callback(self.stack.register_forward_hook(self._mark("report")).remove)
            for layer in self.layers:
                hooks.callback(self.stack.layers[layer].register_forward_pre_hook(self._mark("narrow")).remove)
            hooks.enter_context(self._attention("row.end"))
            yield

    @contextmanager
    def inner(self) -> Iterator[None]:
        """Hooks that run after those of pruning."""
        with ExitStack() as hooks:
            hooks.callback(self.stack.register_forward_pre_hook(self._mark("layout.end")).remove)
            hooks.callback(self.stack.register_forward_hook(self._mark("report.end")).remove)
            for layer in self.layers:
                hooks.callback(self.stack.layers[layer].register_forward_pre_hook(self._mark("narrow.end")).remove)
            hooks.enter_context(self._attention("row"))
            yield

    @contextmanager
    def _attention(self, name: str) -> Iterator[None]:
        """Mark each call of the attention function at the layers that are read. Eager attention is not in the registry: no marks."""
        if self.name == "eager" or not self.read:
            yield
            return
        mark, read = self._mark(name), self.read

        def marked(module: nn.Module, *_: Any) -> None:
            if module in read:
                mark()

        with attention_door(self.name, marked):
            yield

    def times(self) -> dict[str, float]:
        """Return the milliseconds of one forward pass, by name."""
        clock = self.clock
        parts = {name: clock.between(name, f"{name}.end") for name in DECISION}
        return {
            "encode_ms": clock.between("encode", "layout"),
            "prefill_ms": clock.between("layout", "report.end"),
            "first_token_ms": clock.between("start", "end"),
            "decision_ms": sum(parts.values()),
            **{f"decision_{name}_ms": value for name, value in parts.items()},
        }
