"""ToMe: similar patches are merged in every block of the vision tower, and the language model gets the merged tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from biaskit.pruners import pruners
from biaskit.pruners.base import Positions, Pruner, param
from biaskit.pruners.readings import MERGED, Reading
from biaskit.pruners.signals import Signals
from biaskit.select.keep import Keep


@pruners.register("tome")
@dataclass(frozen=True)
class ToMe(Pruner):
    """Between attention and MLP of every block, the patches with the most similar keys become their mean; each is kept once."""

    name: ClassVar[str] = "tome"
    title: ClassVar[str] = "ToMe"
    paper: ClassVar[str] = "Token Merging: Your ViT But Faster"
    year: ClassVar[int | None] = 2023
    arxiv: ClassVar[str] = "2210.09461"
    acts: ClassVar[str] = "inside the vision tower"
    families: ClassVar[str] = "those with one token per patch: LLaVA-1.5, LLaVA-NeXT, LLaVA-OneVision"
    needs: ClassVar[frozenset[Reading]] = frozenset({MERGED})
    exact: ClassVar[bool] = False
    takes_budget: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {str(n): {"retention": n / 576} for n in (192, 128, 64)}
    deviations: ClassVar[tuple[str, ...]] = (
        "a merged token is kept as equal copies, which equals proportional attention exactly; only the language model saves time",
        "papers that compare with ToMe give no schedule; here all blocks merge the same number of pairs, the last ones the remainder",
        "features are read before the last block in LLaVA, so 23 of CLIP-L's 24 blocks merge",
        "retention is of each tile's patches, padding included: any-res prompts keep more than that share of their tokens",
        "newlines are dropped; a token interpolated from several patches (OneVision) is kept once for each combination of merged tokens",
        "a merged token takes the first of its places",
    )

    layer: int = param(0, "K: tokens are dropped before this decoder layer; 0 is before the language model")
    positions: Positions = param(
        "compact", "position ids of the kept tokens: compact (renumbered: merged tokens have no place) or original"
    )

    @property
    def merges(self) -> float | None:  # type: ignore[override]
        """The share of each tile's patches that remains; None if that is all of them."""
        return None if self.retention == 1 else self.retention

    def choose(self, signals: Signals, budget: int) -> Keep:
        """Keep every merged token once."""
        assert signals.patch_index is not None
        groups = signals.patches(MERGED)
        tiles = torch.repeat_interleave(torch.arange(len(groups)), torch.tensor(signals.patch_index.tiles))
        found = torch.cat(groups).cpu()
        number = found + tiles * (found.max() + 1)
        index = torch.from_numpy(signals.patch_index.index)
        of_token = torch.where(index < 0, -1, number[index.clamp(min=0)])
        patched = torch.nonzero((of_token >= 0).any(1))[:, 0]
        different, group = torch.unique(of_token[patched], dim=0, return_inverse=True)
        first = torch.full((len(different),), len(signals)).scatter_reduce(0, group, patched, "amin")
        return Keep(first, {"merged": float(len(patched) - len(first))})
