"""Check a checkpoint before trusting it: positions of its visual tokens, the recorded attention row, exactness of pruning.

Every probe compares with something that does not use the code it checks: placeholders with the layout, a white spot in the picture with the
cell that should contain it, the recorded attention row with eager attention's own weights, pruned `generate()` with a slow reference.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from biaskit.engine.attention import attention_rows, prefill
from biaskit.engine.greedy import greedy_settings
from biaskit.engine.lit_spots import SIZES, implementation, lit_spots, prepared, spotted
from biaskit.engine.prune import prune
from biaskit.engine.reference import Kept, reference_logits
from biaskit.errors import BiaskitError
from biaskit.families.checkpoints.decoder import decoder
from biaskit.families.checkpoints.load import Loaded
from biaskit.pruners import get_pruner
from biaskit.tasks.conventions import PROMPT

NEW_TOKENS = 4
_FLOORS = {torch.float64: 1e-6, torch.float32: 1e-4}
_HALF = 0.02


@dataclass(frozen=True)
class Finding:
    """What one probe found.

    Attributes:
        probe: its name. passed: None if it does not apply to this checkpoint. said: the result in one line.
        seconds: how long it took. numbers: measured values by name.
    """

    probe: str
    passed: bool | None
    said: str
    seconds: float = 0.0
    numbers: Mapping[str, float] = field(default_factory=dict)


def check_checkpoint(loaded: Loaded, *, image: Image.Image | None = None, report: Callable[[Finding], None] | None = None) -> list[Finding]:
    """Run every probe on a checkpoint with its own weights. The model is as before afterwards.

    Args:
        loaded: from `load_model`. image: the picture for attention and pruning; by default a drawn one of 640 × 480 pixels.
        report: called after every probe.

    Returns:
        The findings. A probe that raises is a finding that did not pass.
    """
    picture = image or spotted((640, 480), (0.4, 0.6))
    probes: dict[str, Callable[[], Finding]] = {
        "placeholders": lambda: _placeholders(loaded),
        "lit spots": lambda: _lit_spots(loaded),
        "attention row": lambda: _attention_row(loaded, picture),
        "100 % kept": lambda: _all_kept(loaded, picture),
        "25 % kept": lambda: _exact(loaded, picture),
    }
    found = []
    for name, probe in probes.items():
        began = time.perf_counter()
        try:
            with torch.inference_mode():
                one = probe()
        except BiaskitError as error:
            one = Finding(name, False, f"{error.message} ({error.hint})")
        except Exception as error:  # any error of an unknown checkpoint is a finding
            one = Finding(name, False, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        found.append(Finding(name, one.passed, one.said, time.perf_counter() - began, one.numbers))
        if report is not None:
            report(found[-1])
    return found


def _placeholders(loaded: Loaded) -> Finding:
    counts = {}
    for width, height in SIZES:
        ready = loaded.family.prepare(loaded.processor, loaded.model.config, [[spotted((width, height))]], [PROMPT])
        counts[f"{width}x{height}"] = len(ready.layouts[0])
    text = ", ".join(f"{size}: {n}" for size, n in counts.items())
    return Finding("placeholders", True, f"as many as the layout has visual tokens ({text})", numbers=counts)


def _lit_spots(loaded: Loaded) -> Finding:
    found = lit_spots(loaded)
    numbers = {"spots": found.tried, "missed": len(found.missed), "cells": found.cells}
    if found.missed:
        said = f"{len(found.missed)} of {found.tried} are not where the layout says, such as {found.missed[0]}"
        return Finding("lit spots", False, said, numbers=numbers)
    if not found.tried:
        return Finding("lit spots", None, "no plane shows any of them", numbers=numbers)
    return Finding("lit spots", True, f"{found.tried} of {found.tried} are seen by the cell that covers them", numbers=numbers)


def _attention_row(loaded: Loaded, picture: Image.Image) -> Finding:
    inputs, layers = prepared(loaded, picture).inputs, loaded.family.default_layers(loaded.model.config)
    own = decoder(loaded.model).config._attn_implementation
    recorded = attention_rows(loaded.model, inputs, layers)
    with implementation(loaded.model, "eager"):
        expected = _eager_rows(loaded, inputs, layers)
    error, top = float((recorded - expected).abs().max()), float(expected.max())
    limit = max(1e-5, 0.05 * top) if loaded.model.dtype in (torch.float16, torch.bfloat16) else 1e-5
    where = f"layers {', '.join(map(str, layers))} under {own} attention, and eager attention's own weights"
    said = f"{where}: at most {error:.1e} apart (largest weight {top:.2g})"
    return Finding("attention row", error <= limit, said, numbers={"error": error, "largest": top})


def _eager_rows(loaded: Loaded, inputs: Mapping[str, Tensor], layers: tuple[int, ...]) -> Tensor:
    """[layers, 1, S] the last row of the weights that eager attention returns, mean over heads."""
    found: dict[int, Tensor] = {}

    def keep(layer: int) -> Callable[..., None]:
        def hook(_module: Any, _args: Any, output: Any) -> None:
            found[layer] = output[1][:, :, -1].float().mean(1)

        return hook

    stack = decoder(loaded.model)
    handles = [stack.layers[layer].self_attn.register_forward_hook(keep(layer)) for layer in layers]
    try:
        prefill(loaded.model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    device = found[layers[-1]].device
    return torch.stack([found[layer].to(device) for layer in layers])


def _settings(loaded: Loaded) -> dict[str, Any]:
    special = sorted({*loaded.processor.tokenizer.all_special_ids, loaded.model.config.image_token_id})
    plain = greedy_settings(loaded.model, {"suppress_tokens": special})
    return {**plain, "max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "return_dict_in_generate": True, "output_logits": True}


def _generated(loaded: Loaded, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """[1, T] new tokens, and [1, T, vocabulary] the logits before each."""
    out: Any = loaded.model.generate(**inputs, **_settings(loaded))
    return out.sequences[:, inputs["input_ids"].shape[1] :], torch.stack(out.logits, 1)


def _all_kept(loaded: Loaded, picture: Image.Image) -> Finding:
    inputs = prepared(loaded, picture).inputs
    _, stock = _generated(loaded, inputs)
    with prune(loaded.model, get_pruner("fastv", retention=1.0), say=lambda _line: None):
        _, pruned = _generated(loaded, inputs)
    same = torch.equal(stock, pruned)
    return Finding("100 % kept", same, "the same logits to the bit" if same else "the logits differ from the stock model's")


def _exact(loaded: Loaded, picture: Image.Image) -> Finding:
    model, ready = loaded.model, prepared(loaded, picture)
    tokens, stock = _generated(loaded, ready.inputs)
    scale = float(stock.float().abs().max())
    noise = float((reference_logits(model, ready.inputs, tokens, [[]]) - stock).float().abs().max())
    limit = max(_FLOORS.get(model.dtype, _HALF) * max(1.0, scale), 3 * noise)
    errors = {}
    for pruner in (get_pruner("fastv", retention=0.25), get_pruner("random", retention=0.25, layer=0)):
        layer = pruner.stages()[0].layer
        with prune(model, pruner, say=lambda _line: None) as pruning:
            tokens, logits = _generated(loaded, ready.inputs)
        dropped = np.delete(ready.layouts[0].positions, pruning.samples[0].indices.numpy())
        kept: Kept = [(layer, np.setdiff1d(np.arange(ready.inputs["input_ids"].shape[1]), dropped))]
        errors[f"layer {layer}"] = float((reference_logits(model, ready.inputs, tokens, [kept]) - logits).float().abs().max())
    text = ", ".join(f"pruned from {name} on {error:.1e}" for name, error in errors.items())
    said = f"largest difference of a logit from the slow reference: {text}, unpruned {noise:.1e} (largest logit {scale:.3g})"
    return Finding("25 % kept", max(errors.values()) <= limit, said, numbers={**errors, "unpruned": noise, "largest": scale})
