"""Find a prior by name: an existing path → `./priors/` → the priors that come with biaskit → the Hugging Face hub, when asked to."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from biaskit.errors import PriorError
from biaskit.files import existing
from biaskit.prior.format import is_prior
from biaskit.prior.hub import HUB_FILE, SUFFIX, fetch_prior
from biaskit.prior.value import Prior
from biaskit.registry import named_arguments


@dataclass(frozen=True, eq=False)
class PriorFile:
    """One prior file in a folder that biaskit searches: either readable (`prior`) or not (`error`).

    Attributes:
        name: its name for `load_prior`; for a cached one, with `hub=True`.
        path: the file.
        place: `local` (./priors), `packaged` (comes with biaskit) or `cached` (fetched from the hub).
    """

    name: str
    path: Path
    prior: Prior | None
    error: PriorError | None
    place: str = "local"

    def __repr__(self) -> str:
        """One line: the name, and the prior or the file's error."""
        return f"PriorFile({self.name!r}: {self.error.message if self.error is not None else self.prior!r})"


def folders() -> list[Path]:
    """Return the folders that are searched, in this order: `./priors`, then the priors that come with biaskit."""
    places = [Path("priors"), packaged()]
    return places[:1] if places[0].resolve() == places[1].resolve() else places


def place_of(name: str) -> Path:
    """Return the file for a new prior, in the first folder that `load_prior` searches.

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
        name: a prior, which is returned unchanged;
            a path, the name of a file in `./priors` or among the priors that come with biaskit (with or without `.safetensors`), or,
            with `hub`, `org/repo` (its `prior.safetensors`) or `org/repo/file.safetensors` on the Hugging Face hub.
        hub: look on the hub if nothing local has that name. Without it nothing is fetched.

    Raises:
        PriorError: not found (the message lists the places searched, the hint offers similar names), or the file is not a valid prior.

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
        raise PriorError(f"{name!r} is not a prior", "give a prior, a path, or the name of one (biaskit priors list)")
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
        return fetch_prior(text)
    looked = [f"the path {text}", *(f"{folder}/" for folder in folders())]
    raise PriorError(f"no prior {text!r}: looked at {', '.join(looked)}", _hint(text, hub, on_hub))


def _hint(text: str, hub: bool, on_hub: bool) -> str:
    """Return the hint for a name that was not found."""
    if (path := existing(text)) and path.is_dir():
        return f"{text} is a folder: name a file in it"
    if (path := existing(f"{text}{SUFFIX}")) and path.is_file():
        return f"names are looked up in those folders only; for the file here, write {path}"
    names = prior_names()
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


def prior_names() -> list[str]:
    """Return the names of all prior files in the searched folders, without opening them."""
    return sorted({path.stem for path in _files()})


def list_priors() -> list[PriorFile]:
    """List the prior files in `./priors`, among those that come with biaskit, and in the hub's cache.

    An unreadable file is listed with its error; from the cache, only files whose header declares a prior.
    """
    here = packaged()
    found = [(path.stem, path, "packaged" if path.parent == here else "local") for path in _files()]
    found += [(name, path, "cached") for name, path in _cached()]
    result = []
    for name, path, place in found:
        try:
            result.append(PriorFile(name, path, Prior.load(path), None, place))
        except PriorError as error:
            result.append(PriorFile(name, path, None, error, place))
    return result


def _cached() -> list[tuple[str, Path]]:
    """The newest version of each cached prior of the hub: (org/repo/file, path). The hub is not contacted."""
    from huggingface_hub import constants

    newest: dict[str, Path] = {}
    for path in sorted(Path(constants.HF_HUB_CACHE).glob(f"models--*/snapshots/*/*{SUFFIX}"), key=_age):
        repo = path.parents[2].name.removeprefix("models--").replace("--", "/")
        if path.is_file() and is_prior(path):
            newest[repo if path.name == HUB_FILE else f"{repo}/{path.name}"] = path
    return sorted(newest.items())


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # a link into the cache whose blob was deleted
        return 0.0
