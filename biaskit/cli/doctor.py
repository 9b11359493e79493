"""`biaskit doctor`: what of biaskit works on this machine, and what to do about the rest."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import typer

from biaskit.cli.console import echo, echo_json
from biaskit.cli.options import AsJson

_EXTRAS = {
    "torchvision": ("processors of some checkpoints run on tensors with it", 'pip install "biaskit[torchvision]"'),
    "pyarrow": ("questions in Parquet files", 'pip install "biaskit[parquet]"'),
    "lmms_eval": ("benchmarks of lmms-eval", 'pip install "biaskit[lmms-eval]"'),
    "triton": ("selection kernels on a CUDA device", "comes with CUDA builds of torch"),
    "flash_attn": ("--attention flash_attention_2", "pip install flash-attn, on a CUDA device"),
}
_NEEDED = ("torch", "transformers", "safetensors", "huggingface-hub", "accelerate", "numpy", "pillow", "matplotlib")
_MARKS = {True: "ok  ", False: "FAIL", None: "–   "}
_ROOM = 2e9  # bytes free below which a cache folder counts as full


class Finding(NamedTuple):
    """What was found: `ok` is None where something that is not needed is missing."""

    part: str
    ok: bool | None
    said: str
    advice: str = ""


def doctor(as_json: AsJson = False) -> None:
    """Check installation, device, extras, COCO and caches, and say what to do. Downloads nothing. Exits with 1 on a failure."""
    found = [finding for look in (_installation, _device, _extras, _coco, _caches) for finding in _carefully(look)]
    broken = any(finding.ok is False for finding in found)
    if as_json:
        echo_json({"ok": not broken, "findings": [finding._asdict() for finding in found]})
    else:
        for finding in found:
            echo(f"{_MARKS[finding.ok]}  {finding.part}: {finding.said}")
            if finding.advice:
                echo(f"      {finding.advice}")
        echo("next: biaskit demo" if not broken else "fix what is marked FAIL, then run biaskit doctor again")
    if broken:
        raise typer.Exit(1)


def _carefully(look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Yield the findings of one check; an exception becomes a finding, so that the other checks still run."""
    try:
        yield from look()
    except Exception as error:
        yield Finding(look.__name__.strip("_"), False, f"{type(error).__name__}: {error}", "reinstall biaskit in a fresh environment")


def _installation() -> Iterator[Finding]:
    from biaskit.files import VERSION

    yield Finding("biaskit", True, f"{VERSION}, Python {platform.python_version()}, {Path(__file__).parents[1]}")
    for name in _NEEDED:
        try:
            yield Finding(name, True, version(name))
        except PackageNotFoundError:
            yield Finding(name, False, "not installed", f"pip install {name}")
    import transformers  # an installed package may still fail to import
    from transformers import AutoModelForImageTextToText as Model

    if Model is None or tuple(map(int, transformers.__version__.split(".")[:2])) < (5, 17):
        yield Finding("transformers", False, f"{transformers.__version__} is too old", 'pip install "transformers>=5.17,<6"')
    place = shutil.which("biaskit")
    advice = "" if place else f"write {Path(sys.executable).name} -m biaskit, or add its folder to PATH"
    yield Finding("command", True if place else None, place or "biaskit is not on the PATH", advice)


def _device() -> Iterator[Finding]:
    import psutil
    import torch

    from biaskit.families.checkpoints.device import find_device

    place = find_device("auto")
    memory = psutil.virtual_memory()
    if place.startswith("cuda"):
        free, total = torch.cuda.mem_get_info(place)
        said = f"{torch.cuda.device_count()} × {torch.cuda.get_device_name(place)}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free"
        yield Finding("device", True, f"{place}: {said}")
    else:
        small = "a 7B checkpoint needs a GPU to be fast, and about 30 GB of memory here; --model demo runs anywhere"
        yield Finding("device", True, f"{place}, {torch.get_num_threads()} threads", small)
    yield Finding("memory", True, f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB available")


def _extras() -> Iterator[Finding]:
    for name, (use, advice) in _EXTRAS.items():
        there = importlib.util.find_spec(name) is not None
        yield Finding(name, True if there else None, use if there else f"not installed: {use}", "" if there else advice)


def _coco() -> Iterator[Finding]:
    from biaskit.errors import BiaskitError
    from biaskit.images.coco_files import cache_directory, find_coco

    root = os.environ.get("BIASKIT_COCO")
    if root:
        try:
            find_coco(root)
        except BiaskitError as error:
            yield Finding("COCO", False, f"$BIASKIT_COCO: {error.message}", error.hint)
        else:
            yield Finding("COCO", True, f"$BIASKIT_COCO is {root}")
        return
    kept = sum(1 for path in cache_directory().rglob("*.jpg")) if cache_directory().is_dir() else 0
    yield Finding("COCO", None, f"no local copy; images are streamed when needed ({kept} kept in {cache_directory()})",
                  "set BIASKIT_COCO, or give --coco-root; --data scenes, generated, grey, noise and colours need no network")  # fmt: skip


def _caches() -> Iterator[Finding]:
    from huggingface_hub import constants

    from biaskit.images.coco_files import cache_directory
    from biaskit.prior.store import list_priors

    for part, place in (("hub cache", Path(constants.HF_HUB_CACHE)), ("biaskit cache", cache_directory().parent)):
        there = next(folder for folder in (place, *place.parents) if folder.is_dir())
        free, writable = shutil.disk_usage(there).free, os.access(there, os.W_OK)
        why = "" if writable and free > _ROOM else "set HF_HOME or BIASKIT_CACHE to a folder you may write to, on a disk with free space"
        yield Finding(part, writable and free > _ROOM, f"{place}, {free / 1e9:.0f} GB free{'' if writable else ', not writable'}", why)
    if constants.HF_HUB_OFFLINE:
        yield Finding("hub", None, "HF_HUB_OFFLINE is set: only what is cached can be loaded", "unset it to fetch checkpoints")
    else:
        yield Finding("hub", True, "downloads are allowed")
    priors = list_priors()
    bad = [item.name for item in priors if item.error is not None]
    yield Finding("priors", not bad, f"{len(priors)} known by name" + (f", unreadable: {', '.join(bad)}" if bad else ""),
                  "biaskit priors verify says what is wrong with them" if bad else "")  # fmt: skip
