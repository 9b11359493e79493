"""Answer batches of requests by the pruned stock model, or compute the likelihood of given answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from biaskit.device import cast_inputs
from biaskit.engine.decisions import Pruning
from biaskit.engine.greedy import greedy_settings, put_aside
from biaskit.engine.prune import prune
from biaskit.errors import BiaskitError
from biaskit.families.checkpoints.device import input_device
from biaskit.validation.lmms.conversation import Conversation
from biaskit.validation.lmms.options import Options, Until, cut
from biaskit.validation.lmms.settings import PrunedModel


@dataclass(frozen=True, eq=False)
class Request:
    """One request: `read` loads its turns and pictures when needed; `name` is for messages; `options` are its generation settings."""

    name: str
    read: Callable[[], Conversation]
    options: Options


@dataclass
class Costs:
    """Cost of a run so far: number of prompts with images, their sums of visual tokens, kept tokens and layer means, and new tokens."""

    prompts: int = 0
    visual: int = 0
    kept: int = 0
    layer_mean: float = 0.0
    new_tokens: int = 0

    def means(self) -> dict[str, float]:
        """Return the averages over the prompts with images."""
        n = max(1, self.prompts)
        return {"visual_tokens": self.visual / n, "kept_tokens": self.kept / n, "layer_mean_tokens": self.layer_mean / n}


@dataclass(eq=False)
class Answers:
    """Answers requests in batches of `batch_size`, in their order; a batch has requests with equal options.

    Attributes:
        pruned: the model with its pruner and prior. seed: for pruners that draw random numbers; the same for every call.
        say: called with each warning, once. costs: of the answers so far.
    """

    pruned: PrunedModel
    batch_size: int
    seed: int
    say: Callable[[str], None]
    costs: Costs = field(default_factory=Costs)
    _said: set[str] = field(default_factory=set)

    def answer(self, requests: Sequence[Request], done: Callable[[int], Any] = lambda n: None) -> list[str]:
        """Return the answer to each request; `done` is called with the number of each batch.

        Raises:
            BiaskitError: a request cannot be answered; a note names it.
        """
        found = [""] * len(requests)
        self._unused(requests)
        with torch.inference_mode(), self._pruning(requests) as pruning:
            for rows, talks in self._batches(requests):
                options = requests[rows[0]].options
                with _named([requests[row].name for row in rows]):
                    texts = self._generate(talks, options, pruning)
                for row, text in zip(rows, texts, strict=True):
                    found[row] = cut(text, options.until)
                done(len(rows))
        return found

    def losses(
        self, requests: Sequence[Request], endings: Sequence[str], done: Callable[[int], Any] = lambda n: None
    ) -> list[tuple[float, bool]]:
        """Return, for each request and given answer, (loss, whether greedy decoding gives just this answer).

        The loss is the mean negative log-likelihood of the answer's tokens, in nats: what lmms-eval's own models return and its scorers
        take, the smallest being the best. The prompt is pruned exactly as before a generated answer: the given answer takes no part.

        Raises:
            BiaskitError: an answer is empty, or a request cannot be answered; a note names it.
        """
        found = [(0.0, False)] * len(requests)
        with torch.inference_mode(), self._pruning(requests) as pruning:
            for rows, talks in self._batches(requests):
                with _named([requests[row].name for row in rows]):
                    losses = self._score(talks, [endings[row] for row in rows], pruning)
                for row, loss in zip(rows, losses, strict=True):
                    found[row] = loss
                done(len(rows))
        return found

    def _batches(self, requests: Sequence[Request]) -> Iterator[tuple[list[int], list[Conversation]]]:
        """Yield (rows, conversations) of requests with equal options; those with and without images are separate batches."""
        alike: dict[str, list[int]] = {}
        for row, one in enumerate(requests):
            alike.setdefault(repr(one.options), []).append(row)
        for rows in alike.values():
            for start in range(0, len(rows), self.batch_size):
                talks = {}
                for row in rows[start : start + self.batch_size]:
                    with _named([requests[row].name]):
                        talks[row] = requests[row].read()
                for seen in (True, False):
                    mine = [row for row, talk in talks.items() if bool(talk.images) == seen]
                    if mine:
                        yield mine, [talks[row] for row in mine]

    def _pruning(self, requests: Sequence[Request]) -> Any:
        """Return the block in which the model is pruned, or one in which nothing happens."""
        pruned = self.pruned
        if pruned.pruner is None or not requests:
            return nullcontext(Pruning())
        return prune(pruned.loaded, pruned.pruner, prior=pruned.prior, seed=self.seed, say=self._once)

    def _once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self.say(line)

    def _unused(self, requests: Sequence[Request]) -> None:
        for name in sorted({name for one in requests for name in one.options.unused}):
            self._once(f"the task's generation setting {name} is not used: generate() has none of that name")

    def _encode(self, talks: Sequence[Conversation]) -> tuple[list[str], dict[str, Tensor], int]:
        """Return (templated texts, inputs on the model's device, length of the padded prompts)."""
        loaded = self.pruned.loaded
        texts = [loaded.processor.apply_chat_template(talk.messages, add_generation_prompt=True) for talk in talks]
        prepared = loaded.family.encode(loaded.processor, loaded.model.config, [talk.images for talk in talks], texts)
        if self.pruned.pruner is None:
            for layout in prepared.layouts:
                self._spend(len(layout), len(layout), len(layout))
        inputs = cast_inputs(prepared.inputs, loaded.model.dtype, input_device(loaded.model))
        return texts, inputs, inputs["input_ids"].shape[1]

    def _settings(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Plain greedy decoding but for what is wanted; what the checkpoint's own generation config sets beyond is said once."""
        model = self.pruned.loaded.model
        settings = greedy_settings(model, wanted)
        unused = put_aside(model, settings)
        if unused is not None:
            self._once(unused)
        return settings

    def _generate(self, talks: Sequence[Conversation], options: Options, pruning: Pruning) -> list[str]:
        loaded = self.pruned.loaded
        tokenizer = loaded.processor.tokenizer
        _, inputs, prompt = self._encode(talks)
        stopping = [Until(tokenizer, options.until, prompt)] if options.until else []
        settings = {**self._settings(dict(options.more)), "max_new_tokens": options.max_new_tokens}
        output = loaded.model.generate(**inputs, stopping_criteria=stopping, **settings)
        self._account(pruning)
        fresh = output[:: len(output) // len(talks), prompt:]
        self.costs.new_tokens += int((fresh != tokenizer.pad_token_id).sum())
        texts: list[str] = tokenizer.batch_decode(fresh, skip_special_tokens=True)
        return texts

    def _score(self, talks: Sequence[Conversation], endings: Sequence[str], pruning: Pruning) -> list[tuple[float, bool]]:
        loaded = self.pruned.loaded
        texts, inputs, prompt = self._encode(talks)
        wanted = [_tokens(loaded.processor.tokenizer, text, ending) for text, ending in zip(texts, endings, strict=True)]
        longest = max(map(len, wanted))
        forced = {"logits_processor": [Forced(wanted, prompt)], "output_logits": True, "return_dict_in_generate": True}
        settings = self._settings({**forced, "min_new_tokens": longest, "max_new_tokens": longest})
        output = loaded.model.generate(**inputs, **settings)
        self._account(pruning)
        found = []
        for row, tokens in enumerate(wanted):
            logits = torch.stack([step[row] for step in output.logits[: len(tokens)]]).float()
            target = torch.tensor(tokens, device=logits.device)
            loss = torch.nn.functional.cross_entropy(logits, target)
            found.append((float(loss), bool((logits.argmax(dim=-1) == target).all())))
        return found

    def _account(self, pruning: Pruning) -> None:
        for sample in pruning.samples:
            self._spend(sample.n_visual, len(sample), sample.mean_tokens)

    def _spend(self, visual: int, kept: int, layer_mean: float) -> None:
        if visual:
            self.costs.prompts += 1
            self.costs.visual += visual
            self.costs.kept += kept
            self.costs.layer_mean += layer_mean


class Forced(LogitsProcessor):  # type: ignore[misc]
    """Forces each row to generate given tokens; `output_logits`, which are computed before, have the model's own predictions."""

    def __init__(self, wanted: Sequence[Sequence[int]], prompt: int) -> None:
        """`wanted`: tokens of each row, of which the last is repeated. `prompt`: length of the prompts."""
        self.wanted, self.prompt = wanted, prompt

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Return scores [B, vocabulary] in which one token is possible."""
        step = input_ids.shape[1] - self.prompt
        forced = torch.full_like(scores, -torch.inf)
        for row, tokens in enumerate(self.wanted):
            forced[row, tokens[min(step, len(tokens) - 1)]] = 0
        return forced  # type: ignore[return-value]


def _tokens(tokenizer: Any, text: str, ending: str) -> list[int]:
    """Return the tokens that `ending` adds to `text`; if appending would change tokens of the prompt, those of `ending` alone."""
    before, whole, alone = (tokenizer(words, add_special_tokens=False)["input_ids"] for words in (text, text + ending, ending))
    tokens: list[int] = whole[len(before) :] if whole[: len(before)] == before else alone
    if not tokens:
        raise BiaskitError(f"the given answer {ending!r} has no tokens", "a likelihood needs an answer of at least one token")
    return tokens


@contextmanager
def _named(names: Sequence[str]) -> Iterator[None]:
    """Add the requests' names to an error."""
    try:
        yield
    except BiaskitError as error:
        error.add_note(f"while answering {names[0]}" if len(names) == 1 else f"while answering {names[0]} … {names[-1]}")
        raise
