"""Questions as tensors: slots of token ids, labels and weights, and which visual tokens each question is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biaskit.images.scenes.questions import Question
from biaskit.images.scenes.vocabulary import ID, ids_of

SLOT = 11
"""Tokens of the longest question with its answer, except the last location word: the closing </s> is learnt only from shorter questions."""
IGNORE = -100

# The first answer token decides which thing is meant; a box's first two tokens give its place, the others follow from the thing's size.
_WEIGHTS = {"where": (4.0, 4.0), "presence": (4.0,), "attribute": (4.0,), "describe": (1.5,)}
_CLOSING = 0.1  # the end of an answer is learnt quickly


@dataclass(frozen=True, eq=False)
class Packed:
    """B images with n questions each.

    Attributes:
        ids: [B, n, slot] int64, question and answer. labels: likewise, the token that follows; −100 where there is no question.
        weights: [B, n, slot] float32, of the loss. lengths: [B, n] int64, tokens of each question.
        asked: (image, slot, position) of the last prompt token of every question that is about things of its scene: three [r] int64.
        target: [r, 144] bool, visual tokens of the one thing asked about (none for questions whose answer is "no").
        related: [r, 144] bool, visual tokens of the things that share a named colour or shape. unrelated: those of the other things.
    """

    ids: Tensor
    labels: Tensor
    weights: Tensor
    lengths: Tensor
    asked: tuple[Tensor, Tensor, Tensor]
    target: Tensor
    related: Tensor
    unrelated: Tensor


def prompt_ids(text: str) -> list[int]:
    """Return the ids of a question and the assistant's prefix: what follows the image."""
    return [*ids_of(text), ID["assistant:"]]


def pack(questions: Sequence[Sequence[Question]], owners: NDArray[np.int8]) -> Packed:
    """Pack the questions of B images; `owners` [B, 144] tells which thing each visual token shows."""
    shape = (len(questions), len(questions[0]), SLOT)
    ids, labels = np.zeros(shape, np.int64), np.full(shape, IGNORE, np.int64)
    weights, lengths = np.ones(shape, np.float32), np.zeros(shape[:2], np.int64)
    asked, target, related, unrelated = [], [], [], []
    for b, mine in enumerate(questions):
        for s, question in enumerate(mine):
            prompt = prompt_ids(question.text)
            answer = [*ids_of(question.answer), ID["</s>"]]
            tokens = (prompt + answer)[:-1][:SLOT]
            first = len(prompt) - 1
            ids[b, s, : len(tokens)] = tokens
            labels[b, s, first : len(tokens)] = answer[: len(tokens) - first]
            weights[b, s][labels[b, s] == ID["</s>"]] = _CLOSING
            decisive = _WEIGHTS[question.kind]
            weights[b, s, first : first + len(decisive)] = decisive
            lengths[b, s] = len(prompt)
            if question.related:
                asked.append((b, s, first))
                target.append(owners[b] == question.target if question.target >= 0 else np.zeros_like(owners[b], bool))
                related.append(np.isin(owners[b], question.related))
                unrelated.append((owners[b] >= 0) & ~related[-1])
    image, slot, position = (torch.from_numpy(column) for column in np.array(asked, np.int64).reshape(-1, 3).T.copy())
    masks = [torch.from_numpy(np.array(mask, bool).reshape(len(asked), owners.shape[1])) for mask in (target, related, unrelated)]
    slots = [torch.from_numpy(part) for part in (ids, labels, weights, lengths)]
    return Packed(slots[0], slots[1], slots[2], slots[3], (image, slot, position), masks[0], masks[1], masks[2])
