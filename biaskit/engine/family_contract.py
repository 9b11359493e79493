"""The contract of model families. Our tests run this check on every registered family; plug-in authors run it on theirs.

A failed check raises AssertionError with a message that says what is wrong.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from biaskit.device import cast_inputs
from biaskit.engine.prune import prune
from biaskit.errors import ModelError
from biaskit.families import ModelFamily
from biaskit.pruners.readings import EMBEDS, Reading
from biaskit.pruners.signals import Signals
from biaskit.select.keep import Keep


@dataclasses.dataclass(frozen=True)
class _At:
    layer: int

    def tokens(self, n_tokens: int) -> int:
        return max(1, n_tokens // 3)


class _EveryThird:
    """A pruner that reads no signals: pruning with it must give the same logits with and without a cache."""

    needs: frozenset[Reading] = frozenset()
    prior = "unused"
    positions = "original"

    def __init__(self, layer: int) -> None:
        self.layer = layer

    def stages(self) -> tuple[_At, ...]:
        return (_At(self.layer),)

    def select(self, _signals: Signals, budget: int) -> Keep:
        return Keep(torch.arange(budget) * 3)


class _FirstThird(_EveryThird):
    """The same for the first third; it stores the signals it was called with."""

    def __init__(self, needs: frozenset[Reading]) -> None:
        super().__init__(0)
        self.needs, self.seen = needs, list[Signals]()

    def select(self, signals: Signals, budget: int) -> Keep:
        self.seen.append(signals)
        return Keep(torch.arange(budget))


def check_family(model: Any, processor: Any, family: ModelFamily) -> None:
    """Check a model family on a checkpoint, best a tiny random one in float32 or float64.

    The layouts' positions are those of the image placeholders, every plane has a canonical size, and at layers 0 to 3 the engine prunes it
    so that generating with a cache gives the same logits as without. If the family implements `patches`, the projector makes each token's
    embedding from these patches.

    Args:
        model, processor: of the checkpoint. family: what is checked.

    Raises:
        AssertionError: one of these is not so; the message says which.

    Example:
        >>> from biaskit.families.checkpoints.tiny import tiny_model
        >>> check_family(*tiny_model("llava-1.5"))
    """
    from biaskit.families.checkpoints.tiny import tiny_inputs

    inputs = tiny_inputs(family, processor, model.config)
    canonical = family.canonical(model.config)
    for ids, layout in zip(inputs["input_ids"], family.layout(model.config, inputs), strict=True):
        places = (ids == model.config.image_token_id).nonzero()[:, 0].tolist()
        assert layout.positions.tolist() == places, "the layout's positions are not those of the image placeholders"
        unknown = {plane.name for plane in layout.planes} - set(canonical)
        assert not unknown, f"planes {sorted(unknown)} have no canonical size"
    inputs = cast_inputs(inputs, model.dtype)
    _check_patches(model, family, inputs)
    settings: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    settings["suppress_tokens"] = sorted(set(processor.tokenizer.all_special_ids) | {model.config.image_token_id})
    plain = torch.stack(model.generate(**inputs, **settings).logits)
    for layer in range(4):
        with prune(model, _EveryThird(layer)):  # type: ignore[arg-type]
            cached, recomputed = (torch.stack(model.generate(**inputs, **settings, use_cache=use).logits) for use in (True, False))
        error = float((cached - recomputed).abs().max())
        assert error < 1e-4, f"pruned at layer {layer}, logits with and without a cache differ by {error:.1e}"
        assert float((cached - plain).abs().max()) > 1e-4, f"pruning at layer {layer} changes nothing"
    assert torch.equal(torch.stack(model.generate(**inputs, **settings).logits), plain), "the model is not as before"


def _check_patches(model: Any, family: ModelFamily, inputs: dict[str, Any]) -> None:
    try:
        family.patches(model.config, inputs)
    except ModelError:
        return  # the family does not implement `patches`: only methods that read the vision tower need it
    layer = getattr(model.config, "vision_feature_layer", -1)
    reading = Reading("hidden", "tower", layer=layer if isinstance(layer, int) else -1)
    probe, merged = _FirstThird(frozenset({reading, EMBEDS})), family.tower(model).merged
    with torch.no_grad(), prune(model, probe):  # type: ignore[arg-type]
        model(**inputs)
    for signals in probe.seen:
        assert signals.patch_index is not None and signals.project is not None
        index = torch.from_numpy(signals.patch_index.index)
        tokens = torch.nonzero((index >= 0).all(1))[:, 0]
        if index.shape[1] == merged:  # else tokens were interpolated from several patches
            error = float((signals.project(signals.patch_rows(reading, tokens)) - signals.at(EMBEDS, tokens)).abs().max())
            assert error < 1e-4, f"the patches behind a token do not make its embedding: they differ by {error:.1e}"
