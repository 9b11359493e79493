"""GlobalCom²: the thumbnail decides how many tokens each tile keeps, and contributes to their scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from biaskit.pruners import pruners
from biaskit.pruners.anyres import Views, views_of
from biaskit.pruners.base import param
from biaskit.pruners.readings import Reading
from biaskit.pruners.signals import Signals
from biaskit.pruners.towers import TowerPruner, tower_row
from biaskit.select import canvas_scores, capped_shares, globalcom2_ratios, globalcom2_scores, largest_remainder, top_k
from biaskit.select.keep import Keep


@pruners.register("globalcom2")
@dataclass(frozen=True)
class GlobalCom2(TowerPruner):
    """Logits of the class token at the tower's last block: their sums over regions give the tiles' shares, and both views rank tokens."""

    name: ClassVar[str] = "globalcom2"
    title: ClassVar[str] = "GlobalCom²"
    paper: ClassVar[str] = "Global Compression Commander: Plug-and-Play Inference Acceleration for High-Resolution Large VLMs"
    year: ClassVar[int | None] = 2026
    arxiv: ClassVar[str] = "2501.05179"
    needs: ClassVar[frozenset[Reading]] = frozenset({tower_row("cls", -1, what="logits")})
    deviations: ClassVar[tuple[str, ...]] = (
        "newlines are dropped first; the released code keeps all of them in addition to the budget",
        "the whole budget is divided by the published ratios; the released code rounds down and can keep fewer",
        "several images share the budget by their numbers of tokens; without tiles only the logits decide",
        "towers without a class token: attend='mean', mean logits; not in the paper",
    )

    temperature: float = param(10.0, "temperature of the softmax over the tiles' sums of logits")

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self.check_range("temperature", 1e-6, 1e6)

    def _logits(self, signals: Signals, tokens: Tensor) -> Tensor:
        return signals.at(self.row_of(-1, what="logits"), tokens)

    def choose(self, signals: Signals, budget: int) -> Keep:
        """Rank tokens view by view once the shares are known."""
        images, newlines = views_of(signals)
        sizes = [image.n_tokens for image in images]
        shares = largest_remainder(sizes, min(budget, sum(sizes)))
        kept = [token for image, share in zip(images, shares, strict=True) if share for token in self._image(signals, image, share)]
        return Keep(newlines.new_tensor([*kept, *newlines[: budget - sum(shares)].tolist()]))

    def _image(self, signals: Signals, image: Views, n: int) -> list[int]:
        """Choose n tokens of one image."""
        whole = self._logits(signals, image.whole)
        if not image.tiles:
            return _best(image.whole, whole, n)
        sizes = [len(image.whole), *map(len, image.tiles)]
        retention = n / sum(sizes)
        ratios = globalcom2_ratios(whole, image.regions, len(image.tiles), retention, temperature=self.temperature).tolist()
        each = capped_shares([size * ratio for size, ratio in zip(sizes, [retention, *ratios], strict=True)], sizes, n)
        canvas = canvas_scores(whole.view(image.grid), *image.canvas).flatten()
        kept = _best(image.whole, whole, each[0])
        for tokens, few in zip(image.tiles, each[1:], strict=True):
            scores = globalcom2_scores(self._logits(signals, tokens), canvas[image.spot[tokens].to(canvas.device)])
            kept += _best(tokens, scores, few)
        return kept

    def choose_tile(self, signals: Signals, tokens: Tensor, n: int) -> Keep:
        """Take the n highest logits."""
        return Keep(tokens.new_tensor(_best(tokens, self._logits(signals, tokens), n)))


def _best(tokens: Tensor, scores: Tensor, n: int) -> list[int]:
    found: list[int] = tokens[top_k(scores, n).cpu()].tolist() if n else []
    return found
