"""FasterVLM: keep the visual tokens that the tower's class token attends to most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from biaskit.pruners import pruners
from biaskit.pruners.signals import Signals
from biaskit.pruners.towers import BY_TILE, TowerPruner
from biaskit.select import top_k
from biaskit.select.keep import Keep


@pruners.register("fastervlm")
@dataclass(frozen=True)
class FasterVLM(TowerPruner):
    """The highest of the class token's attention at the tower's second to last block, mean over heads, tile by tile."""

    name: ClassVar[str] = "fastervlm"
    title: ClassVar[str] = "FasterVLM"
    paper: ClassVar[str] = "[CLS] Attention is All You Need for Training-Free Visual Token Pruning: Make VLM Inference Faster"
    year: ClassVar[int | None] = 2024
    arxiv: ClassVar[str] = "2412.01818"
    deviations: ClassVar[tuple[str, ...]] = (
        BY_TILE,
        "the released code always has five tiles (2,880 tokens, with padding) for LLaVA-NeXT",
        "towers without a class token: attend='mean', the mean attention a patch receives; not in the paper",
    )

    def choose_tile(self, signals: Signals, tokens: Tensor, n: int) -> Keep:
        """Take the n highest."""
        return Keep(tokens[top_k(signals.at(self.row_of(), tokens), n).cpu()])
