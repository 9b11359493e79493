"""Debias attention P by a prior Q, in two forms. Q may be a calibrated map, the recency law, or a row of the same pass."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from biaskit.errors import BiaskitError
from biaskit.select.checks import choice, fraction, vector
from biaskit.select.scores import relative_attention

Form = Literal["ratio", "p_log_p_over_q"]
FORMS: tuple[Form, ...] = ("ratio", "p_log_p_over_q")

_LIMIT = 1e6


def debias(attention: Tensor, q: Tensor, *, form: Form = "ratio", tau: float = 1.0, eps: float | None = None) -> Tensor:
    """Score each visual token by its attention P relative to a prior Q.

    `ratio` is P / (Q^τ + ε), Q scaled to mean 1 (D2Pruner). `p_log_p_over_q` is p · log((p + ε) / (q + ε)), p and q being P and Q^τ
    divided by their sums + ε (PriorTR, arXiv 2606.24156, where Q is the row of a token between picture and question, of the same pass).
    These scores sum to the divergence of p from q. A token without attention scores 0, which is more than a token with slightly less than
    its prior: a budget beyond the positive scores (`positive_share`) takes the least attended tokens first. A ratio never does.

    Args:
        attention: [N] P ≥ 0, mean over heads of attention to the visual tokens; its scale does not change the order of scores.
        q: [N] Q, likewise. tau: τ in 0 … 1; 0 is a flat Q.
        eps: ε; None takes the methods' own, 1e-7 (ratio) and 1e-10.

    Returns:
        [N] float32.

    Raises:
        BiaskitError: shapes differ, values are negative or not finite, Q is all zero, or an unknown form.

    Example:
        >>> import torch
        >>> p, q = torch.tensor([0.5, 0.1, 0.0]), torch.tensor([0.25, 0.25, 0.25])
        >>> [round(s, 3) for s in debias(p, q, form="p_log_p_over_q").tolist()]
        [0.764, -0.116, -0.0]
        >>> [round(s, 3) for s in debias(p, q).tolist()]
        [0.5, 0.1, 0.0]
    """
    choice("form", form, FORMS)
    fraction("tau", tau)
    attention = vector("attention", attention)
    q = vector("q", q, len(attention)).to(attention.device)
    if bool((attention < 0).any()) or bool((q < 0).any()) or (len(q) and not bool(q.any())):
        raise BiaskitError("attention or its prior is negative, or the prior is zero", "pass probabilities or densities, not logits")
    if eps is not None and not 0 < eps < float("inf"):
        raise BiaskitError(f"eps is {eps}", "choose a small number above 0, or leave it out")
    if not len(q):
        return attention
    if form == "ratio":
        return relative_attention(attention, q / q.mean(), strength=tau, eps=1e-7 if eps is None else eps)
    eps = 1e-10 if eps is None else eps
    wide, prior = attention.double(), (q.double() / q.double().mean()) ** tau
    p, prior = wide / (wide.sum() + eps), prior / (prior.sum() + eps)
    return torch.nan_to_num(p * torch.log((p + eps) / (prior + eps)), nan=0.0).clamp(-_LIMIT, _LIMIT).float()


def positive_share(scores: Tensor) -> float:
    """Share of the [N] scores that are above 0; 0 for N = 0. With a budget beyond it p · log(p / q) takes the least attended tokens.

    Raises:
        BiaskitError: not [N], or not finite.

    Example:
        >>> import torch
        >>> positive_share(torch.tensor([0.3, -0.1, 0.0, 0.2]))
        0.5
    """
    scores = vector("scores", scores)
    return float((scores > 0).float().mean()) if len(scores) else 0.0
