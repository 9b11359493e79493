"""The vision tower of a stock model: its blocks, and the projector behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from biaskit.errors import ModelError
from biaskit.families.checkpoints.flops import TowerDims


@dataclass(frozen=True, eq=False)
class Tower:
    """The parts of a vision tower that can be read.

    Attributes:
        blocks: its transformer blocks. attention: the attention module of each.
        implementation: the attention implementation that they call.
        has_cls: a CLS token comes before the patches of each tile.
        projector: [m, g, D] features of the g patches behind each of m visual tokens → [m, d] rows for the language model.
        merged: g. skipped: blocks after the one whose output is read: 1 where LLaVA reads layer −2.
    """

    blocks: Sequence[nn.Module]
    attention: Sequence[nn.Module]
    implementation: str
    has_cls: bool
    projector: Callable[[Tensor], Tensor]
    merged: int = 1
    skipped: int = 0

    @property
    def blocks_read(self) -> int:
        """How many blocks run before the features are read."""
        return len(self.blocks) - self.skipped

    def project(self, features: Tensor) -> Tensor:
        """Return rows for the language model, [m, d]: `features` are [m, g, D], or [m, D] for g equal patches a token."""
        if features.ndim == 2:
            features = features[:, None].expand(-1, self.merged, -1)
        return self.projector(features)


def tower_dims(tower: Tower) -> TowerDims:
    """Return the sizes that the formula of a tower's cost needs, as its blocks have them: their matrices are counted."""
    block, attention = tower.blocks[0], tower.attention[0]
    matrices = [part.weight for part in block.modules() if isinstance(part, nn.Linear)]
    width = next(part.in_features for part in attention.modules() if isinstance(part, nn.Linear))
    return TowerDims(len(tower.blocks), sum(weight.numel() for weight in matrices), width, int(tower.has_cls))


def blocks_of(module: Any, name: str) -> Sequence[nn.Module]:
    """Find the transformer blocks of a vision encoder: the first list of blocks that have attention.

    Raises:
        ModelError: there is none.
    """
    for found in module.modules():
        if isinstance(found, nn.ModuleList) and len(found) and attention_of(found[0]) is not None:
            return list(found)
    raise ModelError(f"the vision tower of {name} has no known attention blocks", "biaskit models list names what is supported")


def attention_of(block: Any) -> nn.Module | None:
    """Return a block's attention module, by the names that the stock models give it."""
    for name in ("self_attn", "attn", "attention"):
        found = getattr(block, name, None)
        if isinstance(found, nn.Module):
            return found
    return None


def norm_before_mlp(block: Any) -> nn.Module:
    """Return the norm between a block's attention and its MLP, by the names that the stock models give it.

    Raises:
        ModelError: there is none.
    """
    for name in ("layer_norm2", "norm2", "layernorm_after"):
        found = getattr(block, name, None)
        if isinstance(found, nn.Module):
            return found
    raise ModelError(
        f"{type(block).__name__} has no known norm between attention and MLP", "tokens cannot be merged inside this vision tower"
    )


def _skipped(model: PreTrainedModel, depth: int) -> int:
    """Return how many of `depth` blocks run after the features were read; if several layers are read, after the last."""
    layer = getattr(model.config, "vision_feature_layer", -1)
    layers = [layer] if isinstance(layer, int) else layer
    return min((-1 - one if one < 0 else depth - one) for one in layers)


def tower_of(model: PreTrainedModel) -> Tower:
    """Find the tower of a stock model with `vision_tower` and `multi_modal_projector` (LLaVA, InternVL), or `visual` (Qwen-VL).

    Raises:
        ModelError: it has neither.
    """
    base: Any = model.base_model
    name = type(model).__name__
    module = getattr(base, "visual", None) or getattr(base, "vision_tower", None)
    if module is None:
        raise ModelError(f"{name} has no known vision tower", "its family must say where it is: ModelFamily.tower")
    if hasattr(module, "merger"):
        return tower_at(module, lambda rows: module.merger(rows.flatten(0, 1)), int(module.config.spatial_merge_size) ** 2)
    merged = round(1 / getattr(model.config, "downsample_ratio", 1)) ** 2
    tower = tower_at(module, lambda rows: base.multi_modal_projector(rows.flatten(1)), merged)
    return replace(tower, skipped=_skipped(model, len(tower.blocks)))


def tower_at(module: Any, projector: Callable[[Tensor], Tensor], merged: int) -> Tower:
    """Describe a vision encoder whose features a projector turns into rows for the language model, `merged` patches each.

    Raises:
        ModelError: it has no known attention blocks.
    """
    blocks = blocks_of(module, type(module).__name__)
    attention = [found for found in map(attention_of, blocks) if found is not None]
    implementation: str = module.config._attn_implementation
    has_cls = any(parameter.endswith(("class_embedding", "cls_token")) for parameter, _ in module.named_parameters())
    return Tower(blocks, attention, implementation, has_cls, projector, merged)
