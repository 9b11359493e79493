"""Recognise a run's model as one of the papers' checkpoints, by its name, `--published-as`, or its architecture and sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from biaskit.errors import BiaskitError
from biaskit.families.checkpoints.catalog import CHECKPOINTS, EMBEDDED
from biaskit.families.checkpoints.sizes import SIZES
from biaskit.validation.report.published import model_key, sources

NONE = "none"
"""The value of `--published-as` for a model that is not one of the papers' checkpoints, though it has the sizes of one."""


@dataclass(frozen=True)
class Recognised:
    """A model of the papers' tables, or none.

    Attributes:
        key: its name in the tables; None if the comparison with published scores is off.
        why: how it was recognised, or why it was not. remark: added to every comparison; "" if it was recognised by name.
    """

    key: str | None
    why: str
    remark: str = ""


def check_published_as(hub_id: str | None) -> str | None:
    """Return the value of `--published-as`: a checkpoint of the papers' tables, or `none`.

    Raises:
        BiaskitError: the tables have no such model.

    Example:
        >>> check_published_as("llava-hf/llava-1.5-7b-hf")
        'llava-hf/llava-1.5-7b-hf'
    """
    if hub_id is not None and hub_id != NONE and model_key(hub_id) is None:
        known = ", ".join(str(name) for entry in sources()["models"].values() for name in entry["names"] if "/" in name)
        raise BiaskitError(f"no published table has the model {hub_id!r}", f"the tables have {known}; {NONE} turns the gate off")
    return hub_id


def recognise(manifest: Mapping[str, Any], published_as: str | None = None) -> Recognised:
    """Return the checkpoint of the papers' tables that a run's model is.

    Args:
        manifest: of the run. published_as: overrides the manifest's entry.

    Raises:
        BiaskitError: as `check_published_as`.

    Example:
        >>> recognise({"model": {"name": "llava-hf/llava-1.5-7b-hf"}}).key
        'llava-1.5-7b'
    """
    model: Mapping[str, Any] = manifest.get("model") or {}
    name, kind = str(model.get("name", "")), str(model.get("model_type", ""))
    said = check_published_as(published_as if published_as is not None else manifest.get("published_as"))
    if said == NONE:
        return Recognised(None, f"--published-as {NONE} says that {name} is not one of the papers' checkpoints")
    if said is not None:
        return Recognised(model_key(said), f"--published-as {said}", f"taken for {said}, as --published-as says")
    if name in EMBEDDED or model.get("base") in EMBEDDED:
        return Recognised(None, f"nothing is published about the embedded model {name}")
    key = model_key(name)
    if key is not None:
        return Recognised(key, f"{name} is one of the papers' checkpoints by its name")
    dims = manifest.get("dims") or {}
    hub_id = _same_sizes(kind, dims)
    if hub_id is None:
        shape = f"a {kind} model of {dims['layers']} layers of {dims['hidden']} channels" if dims else "a model of unknown sizes"
        return Recognised(
            None,
            f"{name or 'the model'} ({shape}) is not one of the papers' checkpoints, by name or sizes; if it is a copy of one, say "
            "so with --published-as HUB_ID",
        )
    key = model_key(hub_id)
    if key is None:
        return Recognised(None, f"{name} has the architecture and sizes of {hub_id}, about which nothing is published in the tables")
    remark = f"{name} is taken for {hub_id} by its architecture and sizes; a fine-tuned model has the same (--published-as {NONE})"
    return Recognised(key, remark, remark)


def _same_sizes(model_type: str, dims: Mapping[str, Any]) -> str | None:
    """Return the hub id of the checkpoint whose language model has these sizes, in an architecture of this type.

    The vocabulary is left out: copies have been saved with other numbers of padding rows.
    """
    for short, known in SIZES.items():
        mine = {name: value for name, value in asdict(known.text).items() if name != "vocab"}
        if known.model_type == model_type and mine == {name: dims.get(name) for name in mine}:
            return CHECKPOINTS[short].hub_id
    return None
