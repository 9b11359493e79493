"""Load a checkpoint: say what is happening, fail early and clearly."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biaskit.errors import ModelError
from biaskit.families import ModelFamily
from biaskit.families.checkpoints.catalog import Place, resolve, short_name, wording_of
from biaskit.families.checkpoints.device import find_device, input_device
from biaskit.families.checkpoints.dispatch import alone, check_device_map, check_names, offload_folder
from biaskit.families.checkpoints.fingerprint import fingerprint
from biaskit.families.checkpoints.hub import bars_on_terminals, hub_errors, json_object, of_revision, small_file, weights
from biaskit.families.checkpoints.options import Choice, configure
from biaskit.families.checkpoints.part import end_answers, part_alone, read_config
from biaskit.families.checkpoints.probe import probe
from biaskit.families.checkpoints.processor_settings import processor_settings
from biaskit.families.checkpoints.processors import load_processor
from biaskit.families.checkpoints.refused import check_adapter, find_family, quantisation
from biaskit.prior.layers import Layers, read_layers
from biaskit.registry import named_arguments
from biaskit.tasks.wording import read_wording

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from biaskit.families.checkpoints.dispatch import DeviceMap
    from biaskit.tasks.conventions import Wording

Say = Callable[[str], None]

_DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}


@dataclass(frozen=True, eq=False)
class Loaded:
    """A checkpoint in memory.

    Attributes:
        model: the stock model in eval mode. processor: its processor. family: its family.
        name: hub id, or the directory's name.
        revision: the hub's commit, or a fingerprint of the local files: their config and every byte of the weights.
        options: the processor options that the user chose, by name; `processor_settings` has the resulting settings.
        asked: question templates of the user that replace the published ones.
    """

    model: PreTrainedModel
    processor: Any
    family: ModelFamily
    name: str
    revision: str
    options: Mapping[str, int | str] = field(default_factory=dict)
    asked: Wording | None = None

    def __repr__(self) -> str:
        """One line: name, revision, class, precision and device."""
        device = input_device(self.model)
        dtype = str(self.model.dtype).removeprefix("torch.")
        return f"Loaded({self.name!r}, revision {self.revision!r}: {type(self.model).__name__}, {dtype} on {device})"

    @property
    def wording(self) -> Wording:
        """Its question templates: the user's, else its family's published ones; for an embedded model, those of its training."""
        return self.asked or wording_of(self.family, short_name(self.name))

    @property
    def processor_settings(self) -> dict[str, Any]:
        """The processor's settings, flat: dotted name → value. They determine the model's input."""
        return processor_settings(self.processor)


@named_arguments
def load_model(
    name: str | os.PathLike[str],
    *,
    device: str | torch.device = "auto",
    device_map: DeviceMap | None = None,
    dtype: str | torch.dtype = "auto",
    attention: str = "sdpa",
    revision: str | None = None,
    layers: Layers | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    max_tiles: int | None = None,
    image_mode: str | None = None,
    conversation: str | None = None,
    wording: str | os.PathLike[str] | None = None,
    say: Say | None = None,
) -> Loaded:
    """Load a checkpoint by short name, hub id or directory.

    Args:
        name: see `biaskit models list`; any hub id or local directory works too.
        device: `auto` (CUDA, MPS or CPU; several GPUs when one is too small), or a torch device.
        device_map: spread the model as accelerate does: `auto`, `balanced`, `sequential`, or module → device, `cpu` and `disk` among them.
        dtype: `auto` (the checkpoint's own on a GPU, float32 on a CPU), `bfloat16`, `float16`, `float32` or `float64`.
        attention: implementation of the stock library: `sdpa`, `flash_attention_2`, `eager`.
        revision: branch, tag or commit of a hub repository. say: called with one line about each step.
        layers: decoder layers that will be read: refused before any weights are fetched if the checkpoint lacks them.
        min_pixels, max_pixels: bounds of the pixels an image is scaled to (Qwen-VL). max_tiles: most tiles of an image (InternVL).
        image_mode: `pad` or `crop`, how an image is made square (LLaVA-1.5; `pad` is what its published numbers used).
        conversation: `vicuna_v1`, the chat template with vicuna's system prompt (LLaVA); by default the checkpoint's own.
        wording: a file of templates that replace published ones, see `biaskit.tasks.wording.read_wording`.

    Raises:
        ModelError: unknown, missing, gated, offline, remote code, unsupported, too large, files or options that do not fit together.

    >>> load_model("demo").family.title
    'LLaVA-1.5'
    """
    say = say or (lambda line: None)
    place, device, dtype = _found(name, say), str(device), str(dtype).removeprefix("torch.")
    say(f"model {place.target}: reading its config" + ("" if place.local else " from the hub or its cache"))
    config_file, settings, family = _identify(place, revision)
    asked = None if wording is None else read_wording(wording, wording_of(family, short_name(place.name)))
    config = _checked(family, read_config(family, place, revision, settings), layers)
    target, where = find_device(device), _dtype(dtype, settings, device)
    quantised = quantisation(settings, place.target, target)
    size, shards = weights(place, revision)
    device_map, spread = _placed(device_map, device, target, size if quantised else _grown(size, settings, where))
    stored = f"{size / 1e9:.2f} GB of weights in {shards} {'shard' if shards == 1 else 'shards'}"
    say(f"{family.title}: {stored} → {quantised or where} on {spread}, {attention} attention")
    bounds = {"min_pixels": min_pixels, "max_pixels": max_pixels, "max_tiles": max_tiles}
    choices = {**bounds, "image_mode": image_mode, "conversation": conversation}
    with part_alone(family, settings, config) as only:
        processor, options = _processor(family, config, place, revision, choices, say)
        model = _load(place, of_revision(place, revision) | only, where, attention, target, device_map)
    if family.within:
        end_answers(model, processor.tokenizer, foreign=bool(only))
    found = fingerprint(Path(place.target)) if place.local else config_file.parent.name
    return Loaded(model, processor, family, place.name, found, options, asked)


def _found(name: str | os.PathLike[str], say: Say) -> Place:
    """Return where a checkpoint is, and say its note if it has one."""
    if not isinstance(name, str | os.PathLike):
        raise ModelError(f"{name!r} is not the name of a checkpoint", "give a short name, a hub id or a directory")
    place = resolve(os.fspath(name))
    if place.note:
        say(f"note: {os.fspath(name)} is {place.target}: {place.note}")
    return place


def _checked(family: ModelFamily, config: Any, layers: Layers | None) -> Any:
    """Return the config; raise ModelError if the family cannot run it, or it lacks decoder layers that are asked for."""
    family.check(config)
    chosen = read_layers(layers)
    if chosen is not None and not isinstance(chosen, str):
        from biaskit.families.checkpoints.decoder import check_layers

        check_layers(chosen, config.get_text_config().num_hidden_layers)
    return config


def _processor(
    family: ModelFamily, config: Any, place: Place, revision: str | None, choices: Mapping[str, Choice], say: Say
) -> tuple[Any, dict[str, int | str]]:
    """Load the processor, try it, and set what was chosen."""
    processor = load_processor(family, place.target, None if place.local else revision)
    probe(family, processor, config, place.target)
    options = configure(family, processor, config, choices)
    if options:
        probe(family, processor, config, place.target)
    say("processor: " + (", ".join(f"{option} {value}" for option, value in options.items()) or "as the checkpoint has it"))
    return processor, options


def _identify(place: Place, revision: str | None) -> tuple[Path, dict[str, Any], ModelFamily]:
    """Return a checkpoint's config file, what it says, and its family."""
    if place.local:
        check_adapter(Path(place.target))
    path = small_file(place, "config.json", revision)
    settings = json_object(path)
    return path, settings, find_family(place, settings)


def read_checkpoint(
    name: str, revision: str | None = None, choices: Mapping[str, Choice] | None = None
) -> tuple[Place, ModelFamily, Any, Any]:
    """Return (place, family, config, processor) of a checkpoint, without its weights.

    Args:
        choices: options of the processor by name, as `load_model` takes them.

    Raises:
        ModelError: as `load_model`.
    """
    place = resolve(name)
    _, settings, family = _identify(place, revision)
    config = read_config(family, place, revision, settings)
    family.check(config)
    with part_alone(family, settings, config):
        return place, family, config, _processor(family, config, place, revision, choices or {}, lambda line: None)[0]


def _dtype(dtype: str, settings: dict[str, Any], device: str) -> str:
    if dtype != "auto":
        if dtype not in _DTYPE_BYTES:
            raise ModelError(f"unknown dtype {dtype!r}", f"use auto, {', '.join(_DTYPE_BYTES)}")
        return dtype
    own = str(settings.get("dtype", settings.get("torch_dtype", "bfloat16")))
    return "float32" if find_device(device) == "cpu" or own not in _DTYPE_BYTES else own


def _grown(size: int, settings: dict[str, Any], dtype: str) -> int:
    """Return the bytes of the weights in another dtype than the checkpoint's own."""
    stored = _DTYPE_BYTES.get(str(settings.get("dtype", settings.get("torch_dtype", "float16"))), 2)
    return size * _DTYPE_BYTES[dtype] // stored


def _placed(device_map: DeviceMap | None, device: str, target: str, need: int) -> tuple[DeviceMap | None, str]:
    """Return how the weights are spread over devices, None for one device; and in words."""
    if device_map is not None:
        check_device_map(device_map, device)
        return device_map, f"devices as {device_map if isinstance(device_map, str) else 'mapped'}"
    several = _fit(need, target, auto=device == "auto")
    return ("auto", f"all {several} GPUs") if several else (None, target)


def _fit(need: int, device: str, *, auto: bool) -> int | None:
    """Check that the weights fit; return the number of GPUs to spread them over, or None for one device."""
    import psutil
    import torch

    need = need * 11 // 10  # activations of one forward pass
    kind = torch.device(device).type
    free = torch.cuda.mem_get_info(device)[0] if kind == "cuda" else psutil.virtual_memory().available
    if need <= free:
        return None
    count = torch.cuda.device_count()
    if kind == "cuda" and auto and need <= sum(torch.cuda.mem_get_info(i)[0] for i in range(count)):
        alone("the model is too large for one GPU")
        return count
    raise ModelError(
        f"the model needs about {need / 1e9:.1f} GB on {device}, {free / 1e9:.1f} GB are free",
        "use --dtype bfloat16, a smaller checkpoint, another --device, --device-map auto (slow: the rest stays on the CPU or on disk), or "
        "free memory",
    )


def _load(place: Place, where: dict[str, Any], dtype: str, attention: str, device: str, device_map: DeviceMap | None) -> PreTrainedModel:
    import torch
    import transformers
    from safetensors import SafetensorError

    if device_map is not None:
        where |= {"device_map": device_map if isinstance(device_map, str) else dict(device_map), "offload_folder": offload_folder()}
    elif device != "cpu":
        where["device_map"] = {"": device}
    try:
        with hub_errors(place), bars_on_terminals():
            model: PreTrainedModel = transformers.AutoModelForImageTextToText.from_pretrained(
                place.target, dtype=getattr(torch, dtype), attn_implementation=attention, **where
            )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"{place.target} does not load: {str(error).strip().splitlines()[0]}", "check its files, --attention, --dtype and --device"
        ) from error
    check_names(model, device_map)
    return model.eval().requires_grad_(False)
