"""A checkpoint's files on the hub, in its cache or in a directory; the hub client's errors become `ModelError`s with hints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from biaskit.display import wants_progress
from biaskit.errors import ModelError
from biaskit.families.checkpoints.catalog import Place
from biaskit.prior.hub import one_word

_OFFLINE_HINT = "download it once where there is a network and pass the directory, or check the connection and HF_HUB_OFFLINE"


def of_revision(place: Place, revision: str | None) -> dict[str, Any]:
    """Return the arguments that tell the stock loaders which revision is meant."""
    return {} if place.local or revision is None else {"revision": revision}


@contextmanager
def hub_errors(place: Place) -> Iterator[None]:
    """Turn the hub client's errors inside the block into ours.

    Raises:
        ModelError: gated, unknown, offline, no such revision or file, or no answer.
    """
    from huggingface_hub import errors as hub

    client_error: type[Exception] = hub.HfHubHTTPError.__mro__[1]  # whichever HTTP client the hub library uses
    page = f"the hub page of {place.target}"
    try:
        with one_word():
            yield
    except hub.GatedRepoError as error:
        raise ModelError(f"{place.target} is gated", f"ask for access on {page}, then run `hf auth login` or set HF_TOKEN") from error
    except hub.RepositoryNotFoundError as error:
        raise ModelError(
            f"there is no model {place.target} on the hub, or it is private",
            "check the spelling (biaskit models list); for a private one run `hf auth login` or set HF_TOKEN",
        ) from error
    except hub.RevisionNotFoundError as error:
        raise ModelError(f"{place.target} has no such revision", f"see the branches and commits on {page}") from error
    except (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled) as error:
        raise ModelError(f"{place.target} is not in the local cache and the hub cannot be reached", _OFFLINE_HINT) from error
    except hub.EntryNotFoundError as error:
        raise ModelError(
            f"{place.target} lacks a file: {str(error).splitlines()[0]}", "is it a complete checkpoint in HF format?"
        ) from error
    except (client_error, ConnectionError, TimeoutError) as error:
        raise ModelError(f"the hub does not answer for {place.target}: {str(error).splitlines()[0]}", _OFFLINE_HINT) from error


@contextmanager
def bars_on_terminals() -> Iterator[None]:
    """Let transformers draw its progress bar of loaded weights on a terminal only: in a log every step would be a line."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    if not wants_progress(None):
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def small_file(place: Place, name: str, revision: str | None) -> Path:
    """Return the path of a small file of the checkpoint, fetched if it is not local.

    Raises:
        ModelError: the checkpoint does not have it, or the hub cannot be reached.
    """
    if place.local:
        path = Path(place.target) / name
        if not path.is_file():
            raise ModelError(f"{place.target} has no {name}", "give the directory of a checkpoint saved in HF format (save_pretrained)")
        return path
    from huggingface_hub import hf_hub_download

    with hub_errors(place):
        return Path(hf_hub_download(place.target, name, revision=revision))


def json_object(path: Path) -> dict[str, Any]:
    """Read a small file of a checkpoint.

    Raises:
        ModelError: it is not a JSON object; the message names it.
    """
    again = "download or save the checkpoint again"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON: {error}", again) from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} is not a JSON object, but a {type(found).__name__}", again)
    return found


def weights(place: Place, revision: str | None) -> tuple[int, int]:
    """Return (bytes, files) of the checkpoint's safetensors. For a hub repository none are fetched: the index tells.

    Raises:
        ModelError: it has none, or the hub cannot be reached.
    """
    if place.local:
        sizes = [path.stat().st_size for path in Path(place.target).glob("*.safetensors") if not path.name.startswith("adapter_")]
    else:
        from huggingface_hub import HfApi, try_to_load_from_cache

        index = try_to_load_from_cache(place.target, "model.safetensors.index.json", revision=revision)
        if isinstance(index, str):
            known = json.loads(Path(index).read_text(encoding="utf-8"))
            return int(known["metadata"]["total_size"]), len(set(known["weight_map"].values()))
        single = try_to_load_from_cache(place.target, "model.safetensors", revision=revision)
        if isinstance(single, str):
            return Path(single).stat().st_size, 1
        with hub_errors(place):
            files = HfApi().model_info(place.target, revision=revision, files_metadata=True).siblings or []
        sizes = [file.size or 0 for file in files if file.rfilename.endswith(".safetensors") and "/" not in file.rfilename]
    if not sum(sizes):
        hint = "convert the checkpoint with save_pretrained; pickled weights are not loaded"
        raise ModelError(f"{place.target} has no safetensors weights", hint)
    return sum(sizes), len(sizes)
