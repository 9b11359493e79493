"""The two model classes that lmms-eval loads: chat, its default, and simple (`--force_simple`). Only lmms-eval imports this module."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, NoReturn

from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from loguru import logger
from tqdm import tqdm

from biaskit.errors import BiaskitError
from biaskit.validation.lmms.answers import Answers, Request
from biaskit.validation.lmms.conversation import Conversation, from_messages, from_visuals
from biaskit.validation.lmms.options import Options, read_options
from biaskit.validation.lmms.settings import open_model


class Adapter(lmms):  # type: ignore[misc]
    """A stock model with a pruner and a prior, in lmms-eval's terms."""

    def __init__(
        self,
        pretrained: str | None = None,
        *,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        max_new_tokens: int = 1024,
        blank_line_stops: bool = False,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        """Load what `--model_args` says.

        Args:
            pretrained: short name, hub id or directory. settings: see `biaskit.validation.lmms.settings.open_model`.
            batch_size: requests per batch. max_batch_size: of automatic batch sizes, which are not supported.
            max_new_tokens, blank_line_stops: see `biaskit.validation.lmms.options.read_options`.
            seed: of pruners that draw random numbers.

        Raises:
            BiaskitError: invalid arguments; the error's note, which tracebacks show, says what to do.
        """
        super().__init__()
        if not str(batch_size).isdecimal() or int(batch_size) < 1:
            raise BiaskitError(f"batch size {batch_size!r} is not a whole number from 1", "give --batch_size 8")
        if max_batch_size is not None:
            raise BiaskitError("--max_batch_size has no effect: batches are of --batch_size", "leave it out")
        opened = open_model(pretrained, say=logger.info, **settings)
        self.options = partial(read_options, max_new_tokens=max_new_tokens, blank_line_stops=blank_line_stops)
        self.options({})
        self.answers: Answers | None = Answers(opened, int(batch_size), seed, logger.warning)
        self.accelerator = Accelerator()
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        self.device = opened.loaded.model.device

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answer requests, in their order."""
        return self._run("answering", requests, lambda answers, ours, done: answers.answer(ours, done))

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Refuse conversations whose later turns depend on earlier answers."""
        _refuse(requests, "asks in several rounds", "choose a task of the type generate_until")

    def clean(self) -> None:
        """Release the model after all requests are answered."""
        self.answers = None
        super().clean()

    def _run(
        self, title: str, requests: Sequence[Any], work: Callable[[Answers, list[Request], Callable[[int], Any]], list[Any]]
    ) -> list[Any]:
        """Process the requests with a progress bar, and log the cost."""
        answers = self.answers
        assert answers is not None, "clean() was called"
        began, before = time.monotonic(), answers.costs.new_tokens
        with tqdm(total=len(requests), desc=f"biaskit: {title}", disable=self.rank != 0) as bar:
            found = work(answers, [self._to_request(request) for request in requests], bar.update)
        seconds, fresh = time.monotonic() - began, answers.costs.new_tokens - before
        log_metrics(seconds, fresh, fresh / seconds if seconds else 0.0, additional_metrics=answers.costs.means())
        return found

    def _to_request(self, request: Any) -> Request:
        raise NotImplementedError

    def _document(self, task: str, split: str, number: int) -> Any:
        return self.task_dict[task][split][number]


class Chat(Adapter):
    """The default form: a task gives messages that contain the pictures."""

    is_simple: ClassVar[bool] = False

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Refuse: lmms-eval asks models of this form for answers only."""
        _refuse(requests, "asks for likelihoods", "run it with --force_simple")

    def _to_request(self, request: Any) -> Request:
        _, to_messages, options, number, task, split = request.args

        def read() -> Conversation:
            return from_messages(to_messages(self._document(task, split, number)))

        return Request(f"{task}, document {number}", read, self.options(options))


class Simple(Adapter):
    """The form of `--force_simple`: a task gives one text and pictures. Only in this form does lmms-eval ask for likelihoods."""

    is_simple: ClassVar[bool] = True

    def loglikelihood(self, requests: Sequence[Any]) -> list[GenerationResult]:
        """Return (mean negative log-likelihood, whether it is the greedy answer) of given answers. See `Answers.losses`.

        The pairs are wrapped: lmms-eval 0.7 turns bare ones into text, on which its scorer of multiple-choice tasks fails.
        """

        def work(answers: Answers, ours: list[Request], done: Callable[[int], Any]) -> list[GenerationResult]:
            pairs = answers.losses(ours, [self._ending(request) for request in requests], done)
            return [GenerationResult(pair) for pair in pairs]

        return self._run("likelihoods", requests, work)

    def _to_request(self, request: Any) -> Request:
        if len(request.args) != 6:
            raise BiaskitError("the task asks for the likelihood of an answer without a question", "leave the metric acc_mutual_info out")
        text, options, to_visual, number, task, split = request.args
        chosen: Options = self.options(options if request.request_type == "generate_until" else {})

        def read() -> Conversation:
            return from_visuals(text, to_visual(self._document(task, split, number)))

        return Request(f"{task}, document {number}", read, chosen)

    def _ending(self, request: Any) -> str:
        """Return the answer whose likelihood is asked for, which a task gives as a text or as a function of the document."""
        _, target, _, number, task, split = request.args
        return str(target(self._document(task, split, number)) if callable(target) else target)


def _refuse(requests: Sequence[Any], what: str, hint: str) -> NoReturn:
    tasks = sorted({str(request.task_name) for request in requests})
    raise BiaskitError(f"{', '.join(tasks)} {what}, which the model biaskit does not do", hint)
