"""The manifest of a validation, `run.json`: what every answer in the directory has in common, and what an added run must share with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import transformers

from biaskit import __version__
from biaskit.errors import BiaskitError
from biaskit.families.checkpoints.catalog import short_name
from biaskit.families.checkpoints.decoder import decoder, decoder_config
from biaskit.families.checkpoints.load import Loaded
from biaskit.prior.value import Prior
from biaskit.tasks.base import Task
from biaskit.validation.ask.methods import Cell

SCHEMA = 1
_MAY_GROW = ("commands", "tasks", "cells", "priors")


def dims(loaded: Loaded) -> dict[str, int]:
    """Return the sizes of the language model: what formulas of cost need."""
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
    loaded: Loaded, tasks: Mapping[str, Task], asked: Mapping[str, int], cells: Sequence[Cell], *, seed: int, command: str, **more: Any
) -> dict[str, Any]:
    """Return the manifest of a run.

    Args:
        tasks: name → the whole task. asked: name → how many questions of it. more: what records hold besides, and how it was measured.
    """
    model, processor = loaded.model, loaded.processor
    template = json.dumps(getattr(processor, "chat_template", None), sort_keys=True)
    generation = model.generation_config.to_diff_dict() if model.generation_config is not None else {}
    priors = {cell.prior_name: describe_prior(cell.prior) for cell in cells if cell.prior_name and cell.prior is not None}
    return {
        "schema": SCHEMA,
        "biaskit": __version__,
        "commands": [command] if command else [],
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
        "device": model.get_input_embeddings().weight.device.type,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "chat_template_sha256": hashlib.sha256(template.encode()).hexdigest(),
        "image_processor": type(processor.image_processor).__name__,
        "processor": loaded.processor_settings,
        "generation": {key: value for key, value in generation.items() if key != "transformers_version"},
        "seed": seed,
        **more,
        "tasks": [_describe_task(name, task, asked[name]) for name, task in tasks.items()],
        "priors": priors,
        "cells": [describe_cell(cell, priors) for cell in cells],
    }


def describe_prior(prior: Prior) -> dict[str, Any]:
    """Return what identifies a prior; equal priors are equal bytes."""
    meta = {key: prior.meta[key] for key in ("source", "prompt", "kind") if key in prior.meta}
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


def describe_cell(cell: Cell, priors: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
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


def merge(old: Mapping[str, Any] | None, new: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the manifest of a directory to which a run adds: tasks, cells and priors of both, the older ones first.

    Args:
        old: what the directory has, if anything. where: the directory's name, for messages.

    Raises:
        BiaskitError: the two do not belong together; the message names what differs.
    """
    if old is None:
        return new
    new = json.loads(json.dumps(new, default=str))
    if old.get("schema") != SCHEMA:
        raise BiaskitError(f"{where} has results of schema {old.get('schema')}, not {SCHEMA}", "choose another --out")
    differing = [_was(key, old.get(key), new.get(key)) for key in new if key not in _MAY_GROW and old.get(key) != new[key]]
    tasks, more = ({task["name"]: task for task in manifest["tasks"]} for manifest in (old, new))
    held, fresh = ({cell["cell"]: cell for cell in manifest["cells"]} for manifest in (old, new))
    differing += _clashes("task", tasks, more, ("fingerprint", "metric", "max_new_tokens"))
    differing += _clashes("prior", old["priors"], new["priors"], ("sha256",))
    differing += _clashes("", held, fresh, ("parameters", "prior"))
    if differing:
        raise BiaskitError(
            f"{where} has results of another run: {'; '.join(differing)}",
            "choose another --out, or run the old command; --force throws the old results away",
        )
    merged = {**old, "commands": [*old["commands"], *(line for line in new["commands"] if line not in old["commands"])]}
    for name, task in more.items():
        tasks[name] = {**task, "n": max(task["n"], tasks.get(name, task)["n"])}
    merged["tasks"] = list(tasks.values())
    merged["priors"] = {**new["priors"], **old["priors"]}
    merged["cells"] = [*held.values(), *(fresh[label] for label in fresh if label not in held)]
    return merged


def _clashes(what: str, old: Mapping[str, Any], new: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    """Name what is called the same in both and is not the same."""
    return [
        _was(f"{what} {name} {key}".strip(), old[name].get(key), new[name].get(key))
        for name in new
        if name in old
        for key in keys
        if old[name].get(key) != new[name].get(key)
    ]


def _was(name: str, old: Any, new: Any) -> str:
    """Say what differs; of mappings only the parts that do."""
    if isinstance(old, dict) and isinstance(new, dict):
        parts = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
        return ", ".join(_was(f"{name} {key}", old.get(key), new.get(key)) for key in parts)
    return f"{name} was {_short(old)}, is {_short(new)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"
