"""The key-value caches that were filled inside a block: how the prompt of each, and of its copies, was narrowed."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary, ref

from biaskit.engine.memory import Prompt
from biaskit.errors import ModelError


class Filled:
    """Prompts by the cache that holds them. Copies of a cache (`copy.deepcopy`: one image, many questions) go on from where it was."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.prompts: WeakKeyDictionary[Any, Prompt] = WeakKeyDictionary()

    def remember(self, cache: Any, prompt: Prompt) -> None:
        """A prompt's prefill has filled a cache."""
        with self.lock:
            self.prompts[cache] = prompt
        cache._filled = _Mark(self, cache)

    def find(self, cache: Any) -> Prompt | None:
        """Return the prompt that a cache holds; None if it was not filled here."""
        with self.lock:
            return self.prompts.get(cache)

    def close(self) -> None:
        """The block is over: a cache that lacks tokens takes no more, as a model without the block would miscount them."""
        with self.lock:
            left = list(self.prompts.items())
        for cache, prompt in left:
            vars(cache).pop("_filled", None)
            if any(stage is not None for stage in prompt.stages):
                cache.update = _Ended(cache)


class _Mark:
    """Travels with a cache, so that a copy of it is known as well."""

    def __init__(self, filled: Filled | None = None, cache: Any = None) -> None:
        self.filled, self.cache = filled, None if cache is None else ref(cache)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Mark:
        cache = None if self.cache is None else self.cache()
        copied, prompt = memo.get(id(cache)), None if self.filled is None else self.filled.find(cache)
        if copied is None or prompt is None or self.filled is None:
            return _Mark()
        self.filled.remember(copied, replace(prompt, stages=list(prompt.stages)))
        return _Mark(self.filled, copied)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Mark, ()


class _Ended:
    """Stands in place of `update` of a cache whose block is over, until the cache is emptied and used again."""

    def __init__(self, cache: Any = None) -> None:
        self.cache = None if cache is None else ref(cache)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        cache = None if self.cache is None else self.cache()
        if cache is None or bool(cache.get_seq_length()):
            raise ModelError(
                "this key-value cache was pruned inside a `with prune(...)` block that has ended",
                "end the block after the last token (join threads that still generate), or prefill the prompt anew",
            )
        vars(cache).pop("update", None)
        return cache.update(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Ended:
        return _Ended(memo.get(id(None if self.cache is None else self.cache())))

    def __reduce__(self) -> tuple[Any, ...]:
        return _Ended, ()
