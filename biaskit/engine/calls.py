"""Intercept calls of the attention function: what a layer passes to the kernel, before it computes.

Transformers keeps attention functions in one registry, which all models of a process share. So we register one function per implementation
while there are watchers, which may begin and end in any order. Afterwards the registry is as before, and nothing in it references a model.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from biaskit.errors import ModelError

M = TypeVar("M")

Watcher = Callable[[nn.Module, Tensor, Tensor, Any, Mapping[str, Any]], Any]
"""Called with module, query, key, mask and further arguments; returns None, or what the call returns instead of the stock function."""


class Stop(Exception):
    """Ends the forward pass after the last wanted layer."""


@dataclass(frozen=True, eq=False)
class Call:
    """The arguments of one call of the attention function.

    Attributes:
        query: [B, heads, S, head_dim]. key: [B, key heads, keys, head_dim]; grouped queries are handled.
        mask: None, 4-D bool or additive, or 2-D padding. causal: queries attend to earlier keys only, beside what the mask says.
        scaling: factor on the logits; 1/√head_dim by default. softcap: tanh soft cap of the logits.
        lengths: cumulative lengths of packed sequences, which do not attend to each other; None: one sequence.
    """

    query: Tensor
    key: Tensor
    mask: Any = None
    causal: bool = True
    scaling: float | None = None
    softcap: float | None = None
    lengths: Tensor | None = None


def unreadable(mask: Any) -> ModelError:
    """The error about a mask of an unknown type."""
    return ModelError(f"attention masks of type {type(mask).__name__} cannot be read", "load the model with sdpa or flash_attention_2")


class _Entry:
    """Our entry in the registry for one implementation. It reads `watchers` once a call: the tuple is replaced, never changed."""

    def __init__(self, implementation: str) -> None:
        self.implementation = implementation
        self.local = ALL_ATTENTION_FUNCTIONS._local_mapping.get(implementation)
        self.watchers: tuple[Watcher, ...] = ()
        registered = ALL_ATTENTION_FUNCTIONS[implementation] if implementation != "eager" else self.local

        def watched(
            module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any = None, *args: Any, **kwargs: Any
        ) -> Any:
            for watcher in self.watchers:
                answer = watcher(module, query, key, attention_mask, kwargs)
                if answer is not None:
                    return answer
            stock = registered or _eager(type(module).__mro__)
            return stock(module, query, key, value, attention_mask, *args, **kwargs)

        self.function = watched
        ALL_ATTENTION_FUNCTIONS[implementation] = watched

    def stands(self) -> bool:
        """True if models call this entry; other libraries may have replaced or wrapped it."""
        return ALL_ATTENTION_FUNCTIONS._local_mapping.get(self.implementation) is self.function

    def remove(self) -> None:
        if not self.stands():
            return
        if self.local is None:
            del ALL_ATTENTION_FUNCTIONS[self.implementation]
        else:
            ALL_ATTENTION_FUNCTIONS[self.implementation] = self.local


_lock = threading.Lock()
_entries: dict[str, _Entry] = {}


@contextmanager
def watch_attention(implementation: str, watcher: Watcher) -> Iterator[None]:
    """Call `watcher` at every call of an attention implementation inside the block, in any thread and of any model.

    Eager attention has no entry in the registry: each modelling file has its own function, so a temporary entry is made.

    Args:
        implementation: as in the config: sdpa, eager, a flash attention. watcher: the one added last is called first.
    """
    with _lock:
        entry = _entries.get(implementation)
        if entry is None or not entry.stands():
            entry = _entries[implementation] = _Entry(implementation)
        entry.watchers = (watcher, *entry.watchers)
    try:
        yield
    finally:
        with _lock:
            entry.watchers = tuple(other for other in entry.watchers if other is not watcher)
            if not entry.watchers:
                entry.remove()
                if _entries.get(implementation) is entry:
                    del _entries[implementation]


@contextmanager
def watch_calls(
    implementation: str, modules: Mapping[nn.Module, M], callback: Callable[[M, Call], None], *, everywhere: bool = False
) -> Iterator[None]:
    """Call `callback` each time one of the modules calls the attention function inside the block, before it computes.

    Args:
        implementation: as in the config. modules: module → the key that `callback` gets for it.
        callback: called with key and arguments; may raise to end the forward pass.
        everywhere: in all threads; otherwise only in the one that opened the block.

    Raises:
        ModelError: while the model runs: learned attention sinks, or eager attention of an unknown form.
    """
    mine = None if everywhere else threading.get_ident()

    def watcher(module: nn.Module, query: Tensor, key: Tensor, mask: Any, kwargs: Mapping[str, Any]) -> None:
        if module not in modules or mine not in (None, threading.get_ident()):
            return
        if kwargs.get("s_aux") is not None:
            raise ModelError("this model uses learned attention sinks, which the recorder does not know", "use a supported family")
        causal, scaling, softcap = bool(getattr(module, "is_causal", True)), kwargs.get("scaling"), kwargs.get("softcap")
        callback(modules[module], Call(query, key, mask, causal, scaling, softcap, kwargs.get("cu_seq_lens_q")))

    with watch_attention(implementation, watcher):
        yield


@cache
def _eager(classes: tuple[type, ...]) -> Callable[..., Any]:
    """Return the eager attention function of the file that defines an attention class or one of its bases."""
    for cls in classes:
        found: Callable[..., Any] | None = getattr(sys.modules.get(cls.__module__), "eager_attention_forward", None)
        if found is not None:
            return found
    raise ModelError(f"the eager attention of {classes[0].__name__} cannot be watched", "load the model with sdpa attention")
