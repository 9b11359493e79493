"""The manifest of a run: model, numerics, library versions, tasks, priors and cells."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers

from biaskit.calibration.prompts import wording_warning
from biaskit.engine.greedy import generation_in_force, greedy_settings
from biaskit.families.checkpoints.catalog import short_name
from biaskit.families.checkpoints.decoder import decoder, decoder_config
from biaskit.families.checkpoints.device import input_device
from biaskit.families.checkpoints.load import Loaded
from biaskit.files import VERSION
from biaskit.prior.value import Prior
from biaskit.tasks.base import Task
from biaskit.tasks.conventions import Wording
from biaskit.validation.ask.methods import Configuration
from biaskit.validation.results.manifest import SCHEMA
from biaskit.validation.results.schema import is_text


def dims(loaded: Loaded) -> dict[str, int]:
    """Return the sizes of the language model, for formulas of cost."""
    config, stack = decoder_config(loaded.model), decoder(loaded.model)
    heads = int(config.num_attention_heads)
    return {
        "layers": len(stack.layers),
        "hidden": int(config.hidden_size),
        "inner": int(config.intermediate_size),
        "heads": heads,
        "kv_heads": int(getattr(config, "num_key_value_heads", None) or heads),
        "head_dim": int(getattr(config, "head_dim", None) or config.hidden_size // heads),
        "vocab": int(config.vocab_size),
    }


def make_manifest(
    loaded: Loaded,
    tasks: Mapping[str, Task],
    asked: Mapping[str, int],
    cells: Sequence[Configuration],
    *,
    priors: Mapping[str, Mapping[str, Any]],
    seed: int,
    command: str,
    generation: Mapping[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return the manifest of a run.

    Args:
        tasks: name → the whole task. asked: name → number of its questions. more: further entries.
        priors: of `describe_priors`. generation: settings that differ from plain greedy decoding.
    """
    model, processor = loaded.model, loaded.processor
    template = json.dumps(getattr(processor, "chat_template", None), sort_keys=True)
    return {
        "schema": SCHEMA,
        "biaskit": VERSION,
        "commands": ["".join(letter if is_text(letter) else "�" for letter in command)] if command else [],
        "model": {
            "name": loaded.name,
            "base": short_name(loaded.name),
            "revision": loaded.revision,
            "model_type": model.config.model_type,
            "class": type(model).__name__,
        },
        "dims": dims(loaded),
        "dtype": str(model.dtype).removeprefix("torch."),
        "attention": decoder_config(model)._attn_implementation,
        "device": input_device(model).type,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "chat_template_sha256": hashlib.sha256(template.encode()).hexdigest(),
        "image_processor": type(processor.image_processor).__name__,
        "processor": loaded.processor_settings,
        "wording": loaded.wording.templates(),
        "generation": generation_in_force(model, greedy_settings(model, generation)),
        "seed": seed,
        **more,
        "tasks": [_describe_task(name, task, asked[name]) for name, task in tasks.items()],
        "priors": dict(priors),
        "cells": [describe_cell(cell, priors) for cell in cells],
    }


def describe_priors(cells: Sequence[Configuration], wording: Wording) -> dict[str, dict[str, Any]]:
    """Return the identification of each prior of the cells, by name, with a warning where it was calibrated under another wording."""
    priors = {cell.prior_name: cell.prior for cell in cells if cell.prior_name and cell.prior is not None}
    return {name: describe_prior(prior, wording) for name, prior in priors.items()}


def describe_prior(prior: Prior, wording: Wording) -> dict[str, Any]:
    """Return the identification of a prior, including the sha256 of its bytes."""
    meta = {key: prior.meta[key] for key in ("source", "prompt", "kind") if key in prior.meta}
    if text := wording_warning(prior.meta, wording):
        meta["other_wording"] = text
    return {"sha256": hashlib.sha256(prior.to_bytes()).hexdigest(), "n_images": prior.n_images, "layers": list(prior.layers), **meta}


def _describe_task(name: str, task: Task, n: int) -> dict[str, Any]:
    return {
        "name": name,
        "fingerprint": task.fingerprint(),
        "metric": task.metric,
        "max_new_tokens": task.max_new_tokens,
        "size": len(task),
        "n": n,
    }


def describe_cell(cell: Configuration, priors: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return a cell with its settings."""
    return {
        "cell": cell.label,
        "label": cell.method,
        "pruner": cell.name,
        "method": cell.title,
        "retention": cell.retention,
        "parameters": cell.parameters,
        "prior_name": cell.prior_name,
        "prior": priors[cell.prior_name]["sha256"] if cell.prior_name else None,
    }
