"""The key-value caches filled inside a block, and how the prompt of each cache, or of a copy of it, was narrowed."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary, ref

from biaskit.engine.memory import Prompt
from biaskit.errors import ModelError


class Filled:
    """Cache → its prompt. A copy of a cache (`copy.deepcopy`: one image, many questions) has the prompt as it was when copied."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.prompts: WeakKeyDictionary[Any, Prompt] = WeakKeyDictionary()

    def remember(self, cache: Any, prompt: Prompt) -> None:
        """Store the prompt whose prefill filled a cache."""
        with self.lock:
            self.prompts[cache] = prompt
        cache._filled = _Mark(self, cache)

    def find(self, cache: Any) -> Prompt | None:
        """Return the prompt of a cache; None if the cache was not filled in this block."""
        with self.lock:
            return self.prompts.get(cache)

    def close(self) -> None:
        """End the block: pruned caches refuse further tokens, whose positions the unhooked model would count wrongly."""
        with self.lock:
            left = list(self.prompts.items())
        for cache, prompt in left:
            vars(cache).pop("_filled", None)
            if any(stage is not None for stage in prompt.stages):
                cache.update = _Ended(cache)


class _Mark:
    """An attribute put on a cache, so that copies of the cache are recognised."""

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
    """Replaces `update` of a cache whose block has ended, until the cache is reset."""

    def __init__(self, cache: Any = None) -> None:
        self.cache = None if cache is None else ref(cache)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        cache = None if self.cache is None else self.cache()
        if cache is None or bool(cache.get_seq_length()):
            raise ModelError(
                "this key-value cache was pruned inside a `with prune(...)` block that has ended",
                "end the block after the last token (join threads that still generate), or prefill the prompt again",
            )
        vars(cache).pop("update", None)
        return cache.update(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Ended:
        return _Ended(memo.get(id(None if self.cache is None else self.cache())))

    def __reduce__(self) -> tuple[Any, ...]:
        return _Ended, ()
