"""Find a prior by name: an existing path → `./priors/` → the priors that come with biaskit → the Hugging Face hub, when asked to."""

from __future__ import annotations

import difflib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from biaskit.errors import PriorError
from biaskit.files import existing
from biaskit.prior.value import Prior
from biaskit.registry import named_arguments

SUFFIX = ".safetensors"
HUB_SECONDS = 300.0
"""Seconds that fetching a prior may take; they have some 100 kB."""
HUB_FILE = "prior.safetensors"


@dataclass(frozen=True, eq=False)
class PriorFile:
    """One prior file in a folder that biaskit searches: either readable (`prior`) or not (`error`).

    Attributes:
        name: what `load_prior` knows it by.
        path: where it lies.
    """

    name: str
    path: Path
    prior: Prior | None
    error: PriorError | None

    def __repr__(self) -> str:
        """One line: the name, and the prior or what is wrong with the file."""
        return f"PriorFile({self.name!r}: {self.error.message if self.error is not None else self.prior!r})"


def folders() -> list[Path]:
    """Return where names are looked up, first hit wins: `./priors`, then the priors that come with biaskit."""
    places = [Path("priors"), packaged()]
    return places[:1] if places[0].resolve() == places[1].resolve() else places


def place_of(name: str) -> Path:
    """Return the file that a new prior goes into, where its name will find it.

    >>> place_of("qwen2.5-vl").as_posix()
    'priors/qwen2.5-vl.safetensors'
    """
    return folders()[0] / f"{name}{SUFFIX}"


def packaged() -> Path:
    """Return the folder of the priors that come with biaskit: `biaskit/_priors` in a wheel, the top-level `priors/` in a checkout."""
    package = Path(__file__).resolve().parents[1]
    wheel = package / "_priors"
    # Beside an installed package `priors/` would be another package's folder: a checkout has the project file too.
    checkout = (package.parent / "pyproject.toml").is_file()
    return package.parent / "priors" if checkout and not wheel.is_dir() else wheel


@named_arguments
def load_prior(name: Prior | str | os.PathLike[str], *, hub: bool = False) -> Prior:
    """Find and load a prior.

    Args:
        name: a prior, which is returned as it is;
            a path, the name of a file in `./priors` or among the priors that come with biaskit (with or without `.safetensors`), or,
            with `hub`, `org/repo` (its `prior.safetensors`) or `org/repo/file.safetensors` on the Hugging Face hub.
        hub: look on the hub when nothing local has that name. Nothing is ever fetched without it.

    Raises:
        PriorError: nothing has that name (the message says where was looked, the hint offers near names), or the file is not a valid prior.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import mkdtemp
        >>> import numpy as np
        >>> from biaskit.prior.value import PlaneStats
        >>> path = Path(mkdtemp()) / "mine.safetensors"
        >>> ones = np.ones((1, 4, 4), dtype=np.float32)
        >>> Prior({"image": PlaneStats(ones)}, (1,), ones[:, 0, 0], {"model_type": "llava", "kind": "imported"}).save(path)
        >>> load_prior(path).layers
        (1,)
    """
    if isinstance(name, Prior):
        return name
    if not isinstance(name, str | os.PathLike):
        raise PriorError(f"{name!r} is no prior", "give a prior, a path, or the name of one (biaskit priors list)")
    text = os.fspath(name)
    if (path := existing(text)) and path.is_file():
        return Prior.load(text)
    on_hub = isinstance(name, str) and len(text.split("/")) > 1 and not text.startswith((".", "/", "~"))
    if "/" not in text and text not in {"", ".", ".."}:
        for folder in folders():
            here = existing(folder / (text.removesuffix(SUFFIX) + SUFFIX))
            if here and here.is_file():
                return Prior.load(here)
    if hub and on_hub:
        return _from_hub(text)
    looked = [f"the path {text}", *(f"{folder}/" for folder in folders())]
    raise PriorError(f"no prior {text!r}: looked at {', '.join(looked)}", _hint(text, hub, on_hub))


def _hint(text: str, hub: bool, on_hub: bool) -> str:
    """Say what to do about a name that nothing has."""
    if (path := existing(text)) and path.is_dir():
        return f"{text} is a folder: name a file in it"
    if (path := existing(f"{text}{SUFFIX}")) and path.is_file():
        return f"names are looked up in those folders alone; for the file here, write {path}"
    names = sorted({path.stem for path in _files()})
    near = difflib.get_close_matches(Path(text).name.removesuffix(SUFFIX).lower(), [n.lower() for n in names], n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(n for n in names if n.lower() in near)}?"
    if on_hub and not hub:
        return "to look for it on the Hugging Face hub, add --hub"
    known = f"there are {', '.join(names)}" if names else "there are none yet"
    wrong = "; on the hub, priors are named org/repo or org/repo/file.safetensors" if hub else ""
    return f"{known}: make one with `biaskit calibrate --model …`{wrong}"


def _files() -> list[Path]:
    """Every prior file in the searched folders, `./priors` first, each folder sorted."""
    return [path for folder in folders() for path in sorted(folder.glob(f"*{SUFFIX}")) if path.is_file()]


def list_priors() -> list[PriorFile]:
    """List the prior files in `./priors` and among those that come with biaskit; an unreadable file is listed with its error."""
    result = []
    for path in _files():
        try:
            result.append(PriorFile(path.stem, path, Prior.load(path), None))
        except PriorError as error:
            result.append(PriorFile(path.stem, path, None, error))
    return result


def _from_hub(name: str) -> Prior:
    """Fetch (or take from the hub's cache) and load `org/repo[/file.safetensors]`."""
    try:
        from huggingface_hub import errors, hf_hub_download
    except ImportError:
        raise PriorError(f"{name!r} cannot be fetched: huggingface_hub is not installed", "pip install huggingface_hub") from None
    org, repo, *rest = name.split("/")
    file = "/".join(rest) or HUB_FILE
    if not file.endswith(SUFFIX):
        raise PriorError(f"{name!r} does not name a prior on the hub", "write org/repo or org/repo/file.safetensors")
    where = f"{org}/{repo}"
    try:
        path = _within(HUB_SECONDS, partial(hf_hub_download, where, file))
    except errors.GatedRepoError:
        raise PriorError(
            f"{where} is gated on the hub", f"accept its terms on https://huggingface.co/{where} and log in: hf auth login"
        ) from None
    except errors.RepositoryNotFoundError:
        raise PriorError(f"there is no {where} on the hub, or it is private", "check the spelling, or log in: hf auth login") from None
    except errors.LocalEntryNotFoundError:
        raise PriorError(
            f"{where}/{file} is not in the hub's cache, and the hub cannot be reached",
            "check the connection and HF_HUB_OFFLINE, or download the file elsewhere and give its path",
        ) from None
    except errors.EntryNotFoundError:
        raise PriorError(f"{where} has no file {file}", f"name the file: {where}/FILE.safetensors") from None
    except errors.HFValidationError as error:
        raise PriorError(f"{where!r} cannot be a hub repository: {error}", "write org/repo or org/repo/file.safetensors") from None
    except Exception as error:  # of httpx, urllib3, the file system, and of what a broken answer makes of the hub's own code
        why = str(error).split("\n", 1)[0][:300] or type(error).__name__
        raise PriorError(f"{where}/{file} could not be fetched: {why}", "try again, or download the file and give its path") from None
    try:
        return Prior.load(path)
    except PriorError as first:
        try:  # the hub's cache keeps what a broken connection or a proxy once left there
            path = _within(HUB_SECONDS, partial(hf_hub_download, where, file, force_download=True))
        except Exception:
            raise first from None
        return Prior.load(path)


def _within(seconds: float, call: Callable[[], str]) -> str:
    """Return what a call returns; its requests have timeouts of their own, but none for all of an answer that comes drop by drop."""
    done: list[str] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(call())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True, name="biaskit-hub")
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"not done within {seconds:g} s")
    if failed:
        raise failed[0]
    return done[0]
