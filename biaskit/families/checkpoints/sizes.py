"""The published sizes of the checkpoints that have a short name: enough to build their architecture without a hub, with random weights.

Vocabularies count the rows of the embedding, padding rows included. What does not change time or memory (dropout, token ids) is
left to the stock classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from biaskit.errors import ModelError
from biaskit.families.checkpoints.catalog import CHECKPOINTS
from biaskit.families.checkpoints.flops import Dims
from biaskit.registry import did_you_mean


@dataclass(frozen=True)
class Tower:
    """Sizes of a vision tower: blocks, hidden and feed-forward size, heads; image side (0: any) and patch side in pixels."""

    layers: int
    hidden: int
    inner: int
    heads: int
    image: int
    patch: int


@dataclass(frozen=True)
class Sizes:
    """A checkpoint.

    Attributes:
        model_type: its family. text: the language model. tower: the vision tower.
        text_type: model type of the language model, where the family has several.
        tied: whether the head shares the embedding's weights.
        theta: base of the rotary angles. mrope: channels of time, rows and columns, for multi-axis rotary embeddings.
    """

    model_type: str
    text: Dims
    tower: Tower
    text_type: str = "llama"
    tied: bool = False
    theta: float = 1e4
    mrope: tuple[int, int, int] | None = None


_CLIP = Tower(24, 1024, 4096, 16, 336, 14)
_SIGLIP = Tower(26, 1152, 4304, 16, 384, 14)
_INTERN_VIT = Tower(24, 1024, 4096, 16, 448, 14)
_QWEN2_VIT = Tower(32, 1280, 5120, 16, 0, 14)
_QWEN2_5_VIT = Tower(32, 1280, 3420, 16, 0, 14)
_QWEN3_VIT = Tower(27, 1152, 4304, 16, 0, 16)

_VICUNA_7B = Dims(32, 4096, 11008, 32, 32, 128, 32064)
_VICUNA_13B = Dims(40, 5120, 13824, 40, 40, 128, 32064)
_QWEN2_7B = Dims(28, 3584, 18944, 28, 4, 128, 152064)
_INTERNLM_7B = Dims(32, 4096, 14336, 32, 8, 128, 92553)

SIZES = {
    "llava-1.5": Sizes("llava", _VICUNA_7B, _CLIP),
    "llava-1.5-13b": Sizes("llava", _VICUNA_13B, _CLIP),
    "llava-next": Sizes("llava_next", _VICUNA_7B, _CLIP),
    "llava-next-13b": Sizes("llava_next", _VICUNA_13B, _CLIP),
    "llava-onevision": Sizes("llava_onevision", replace(_QWEN2_7B, vocab=152128), _SIGLIP, "qwen2", theta=1e6),
    "qwen2-vl": Sizes("qwen2_vl", _QWEN2_7B, _QWEN2_VIT, theta=1e6, mrope=(16, 24, 24)),
    "qwen2.5-vl": Sizes("qwen2_5_vl", _QWEN2_7B, _QWEN2_5_VIT, theta=1e6, mrope=(16, 24, 24)),
    "qwen2.5-vl-3b": Sizes("qwen2_5_vl", Dims(36, 2048, 11008, 16, 2, 128, 151936), _QWEN2_5_VIT, tied=True, theta=1e6, mrope=(16, 24, 24)),
    "qwen3-vl": Sizes("qwen3_vl", Dims(36, 4096, 12288, 32, 8, 128, 151936), _QWEN3_VIT, theta=5e6, mrope=(24, 20, 20)),
    "internvl2.5": Sizes("internvl", _INTERNLM_7B, _INTERN_VIT, theta=1e6),
    "internvl2.5-2b": Sizes("internvl", Dims(24, 2048, 8192, 16, 8, 128, 92553), _INTERN_VIT, theta=1e6),
    "internvl3": Sizes("internvl", replace(_QWEN2_7B, vocab=151674), _INTERN_VIT, "qwen2", theta=1e6),
}


def sizes(name: str) -> Sizes:
    """Return the sizes of a checkpoint by its short name or hub id.

    Raises:
        ModelError: they are not in the package.
    """
    short = next((key for key, checkpoint in CHECKPOINTS.items() if checkpoint.hub_id == name), name)
    if short not in SIZES:
        raise ModelError(f"the sizes of {name!r} are not known", did_you_mean(name, SIZES))
    return SIZES[short]


def shrunk(found: Sizes, hidden: int, layers: int) -> Sizes:
    """Return a model of the same architecture and the same visual tokens, with a small language model and a very small tower.

    Args:
        found: the full sizes. hidden: a multiple of 64, the new size of a head. layers: of the language model.

    Raises:
        ModelError: `hidden` is not a multiple of 64, or a size is below 1.
    """
    if hidden < 64 or hidden % 64 or layers < 1:
        raise ModelError(
            f"a language model of {hidden} channels and {layers} layers", "give a multiple of 64 channels, and a layer or more"
        )
    text, heads = found.text, hidden // 64
    kv = max(1, heads * text.kv_heads // text.heads)
    while heads % kv:
        kv -= 1
    small = Dims(layers, hidden, text.inner * hidden // text.hidden // 32 * 32, heads, kv, 64, 512)
    mrope = None
    if found.mrope is not None:
        time, rows, cols = (part * 64 // text.head_dim for part in found.mrope)
        mrope = (time, rows, cols)
    tower = replace(found.tower, layers=4, hidden=64, inner=128, heads=2)
    return replace(found, text=small, tower=tower, mrope=mrope)
