"""The generation settings of a task, and where its answers end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria

from biaskit.errors import BiaskitError

BLANK_LINE = "\n\n"
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "typical_p")
_OURS = frozenset({"until", "do_sample", "max_new_tokens", "max_gen_toks", *_SAMPLING})


@dataclass(frozen=True)
class Options:
    """Generation settings.

    Attributes:
        max_new_tokens: length of an answer. until: texts that end it, not included in the answer.
        more: (name, value) pairs for the stock `generate()`. unused: names that `generate()` does not have.
    """

    max_new_tokens: int
    until: tuple[str, ...]
    more: tuple[tuple[str, Any], ...]
    unused: tuple[str, ...]


def read_options(given: Mapping[str, Any], max_new_tokens: int = 1024, blank_line_stops: bool = False) -> Options:
    """Read a task's `generation_kwargs`.

    Args:
        given: `max_new_tokens` (or `max_gen_toks`), `until`, `temperature`, `do_sample`, `num_beams`, …
        max_new_tokens: for tasks without one.
        blank_line_stops: let a blank line end an answer if the task says so. lmms-eval says so for every task without a stop string, and
            most of its own models ignore it, since an answer with paragraphs would be cut.

    Raises:
        BiaskitError: an invalid value.
    """
    length = given.get("max_new_tokens", given.get("max_gen_toks"))
    length = max_new_tokens if length is None else length
    if isinstance(length, bool) or not isinstance(length, int) or length < 1:
        raise BiaskitError(
            f"max_new_tokens is {length!r}, not a whole number from 1", "correct the task, or give --gen_kwargs max_new_tokens=64"
        )
    until = given.get("until") or []
    until = [until] if isinstance(until, str) else until
    if not isinstance(until, list | tuple) or not all(isinstance(text, str) for text in until):
        raise BiaskitError(f"until is {until!r}, not texts that end an answer", "give a text or a list of texts")
    stops = tuple(text for text in until if text and (blank_line_stops or text != BLANK_LINE))
    more, unused = {"do_sample": _samples(given)}, []
    config = GenerationConfig()
    for name, value in given.items():
        if value is None or (name in _OURS and not (more["do_sample"] and name in _SAMPLING)):
            continue
        if hasattr(config, name):
            more[name] = value
        else:
            unused.append(name)
    return Options(length, stops, tuple(sorted(more.items())), tuple(sorted(unused)))


def _samples(given: Mapping[str, Any]) -> bool:
    """True for sampling: temperature 0 is greedy, regardless of other settings; without do_sample a temperature above 0 samples."""
    temperature = given.get("temperature")
    wanted = given.get("do_sample")
    return bool(temperature) if wanted is None else bool(wanted) and temperature != 0


def cut(text: str, stops: Sequence[str]) -> str:
    """Return `text` up to the first of `stops`."""
    return text[: min((at for at in map(text.find, stops) if at >= 0), default=len(text))]


class Until(StoppingCriteria):  # type: ignore[misc]
    """Ends a row of the batch once its answer has a stop string. It only saves time: `cut` decides where an answer ends."""

    def __init__(self, tokenizer: Any, stops: Sequence[str], prompt: int) -> None:
        """`prompt`: number of tokens of the prompt, which are not searched."""
        self.tokenizer, self.stops, self.prompt = tokenizer, stops, prompt
        self.window = 4 * max(map(len, stops)) + 8  # a character may take four byte tokens, and special tokens have no text

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any) -> torch.BoolTensor:
        """Return [B] bool: the rows that are done."""
        tail = input_ids[:, max(self.prompt, input_ids.shape[1] - self.window) :]
        texts = self.tokenizer.batch_decode(tail, skip_special_tokens=True)
        done = [any(stop in text for stop in self.stops) for text in texts]
        return torch.tensor(done, device=input_ids.device)  # type: ignore[return-value]
