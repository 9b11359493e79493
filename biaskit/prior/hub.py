"""Priors on the Hugging Face hub: fetch one, or download one commit's with its checksum verified. `publish` uploads one."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from biaskit.errors import PriorError
from biaskit.files import write_file
from biaskit.prior.value import Prior

SUFFIX = ".safetensors"
HUB_FILE = "prior.safetensors"
HUB_SECONDS = 300.0
"""Seconds that fetching a prior, of about 100 kB, may take."""
SUMS = "SHA256SUMS"
"""File beside the prior with its checksum, in the format of `sha256sum --check`."""


@dataclass(frozen=True)
class OnHub:
    """A prior of one commit of a repository.

    Attributes:
        repo: org/repo. file: its path there. revision: the commit, 40 hexadecimal digits. sha256: of the file. path: the copy, if any.
        checked: True if the repository publishes a checksum, and it matched.
    """

    repo: str
    file: str
    revision: str
    sha256: str
    path: Path | None = None
    checked: bool = True


def fetch_prior(name: str) -> Prior:
    """Fetch (or take from the hub's cache) and load `org/repo[/file.safetensors]`.

    Raises:
        PriorError: it does not exist, cannot be reached, or is broken.
    """
    where, file = _split(name)
    path = _fetch(where, file)
    try:
        return Prior.load(path)
    except PriorError as first:
        try:  # the hub's cache may contain a file that a connection or a proxy broke
            path = _fetch(where, file, force_download=True)
        except PriorError:
            raise first from None
        return Prior.load(path)


def pull_prior(name: str, out: Path, *, revision: str | None = None, force: bool = False) -> OnHub:
    """Fetch a prior of the hub at one commit, verify its checksum, and write it.

    Args:
        name: org/repo or org/repo/file.safetensors. out: the file to write, or a folder: there it is called REPO.safetensors, or FILE.
        revision: branch, tag or commit; it is resolved to a commit, which is returned.

    Raises:
        PriorError: as `fetch_prior`, or the file is not the one that was published.
        FileError: `out` exists and `force` is not set.
    """
    where, file = _split(name)
    with hub_errors(where, file):
        from huggingface_hub import HfApi

        commit = str(within(HUB_SECONDS, lambda: str(HfApi().repo_info(where, revision=revision).sha)))
    data = Path(_fetch(where, file, revision=commit)).read_bytes()
    digest, known = hashlib.sha256(data).hexdigest(), _published_sum(where, file, commit)
    if known not in (None, digest):
        raise PriorError(
            f"{where}/{file} at {commit[:12]} has the checksum {digest[:12]}…, published is {known[:12]}…",
            "do not use it; remove it from the hub's cache and pull again, or ask its publisher",
        )
    Prior.from_bytes(data, f"{where}/{file}")
    target = out / (where.partition("/")[2] + SUFFIX if file == HUB_FILE else Path(file).name) if out.suffix != SUFFIX else out
    write_file(target, data, force)
    return OnHub(where, file, commit, digest, target, known is not None)


def _split(name: str) -> tuple[str, str]:
    org, _, rest = name.partition("/")
    repo, _, inside = rest.partition("/")
    file = inside or HUB_FILE
    if not (org and repo) or not file.endswith(SUFFIX):
        raise PriorError(f"{name!r} does not name a prior on the hub", "write org/repo or org/repo/file.safetensors")
    return f"{org}/{repo}", file


def _published_sum(where: str, file: str, commit: str) -> str | None:
    """Return the published checksum of a file, None if there is none."""
    from huggingface_hub import errors, hf_hub_download

    try:
        path = within(HUB_SECONDS, partial(hf_hub_download, where, SUMS, revision=commit))
    except (errors.EntryNotFoundError, errors.LocalEntryNotFoundError):
        return None
    sums = (line.split(maxsplit=1) for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip())
    return next((words[0].lower() for words in sums if len(words) == 2 and words[1].lstrip("*") == file), None)


def _fetch(where: str, file: str, **more: Any) -> str:
    with hub_errors(where, file):
        from huggingface_hub import hf_hub_download

        return within(HUB_SECONDS, partial(hf_hub_download, where, file, **more))


@contextmanager
def one_word() -> Iterator[None]:
    """Silence the hub client's messages about each of its attempts; the final error is enough."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def hub_errors(where: str, file: str) -> Iterator[None]:
    """Turn the hub client's errors inside the block into ours.

    Raises:
        PriorError: not installed, gated, unknown, offline, no such file, refused, or any other failure.
    """
    try:
        from huggingface_hub import errors
    except ImportError:
        raise PriorError(f"{where!r} cannot be fetched: huggingface_hub is not installed", "pip install huggingface_hub") from None
    try:
        with one_word():
            yield
    except errors.GatedRepoError:
        raise PriorError(
            f"{where} is gated on the hub", f"accept its terms on https://huggingface.co/{where} and log in: hf auth login"
        ) from None
    except PriorError:
        raise
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
    except errors.OfflineModeIsEnabled:
        raise PriorError(f"{where} cannot be reached: HF_HUB_OFFLINE is set", "unset it, or give the path of a file") from None
    except errors.HfHubHTTPError as error:
        denied = getattr(error.response, "status_code", 0) in (401, 403)
        hint = "log in with a token that may write there: hf auth login" if denied else "try again, or download the file and give its path"
        raise PriorError(f"the hub refuses {where}: {str(error).split(chr(10), 1)[0][:300]}", hint) from None
    except Exception as error:  # of httpx, urllib3, the file system, or the hub client's own code on a broken answer
        why = str(error).split("\n", 1)[0][:300] or type(error).__name__
        raise PriorError(f"{where}/{file} could not be fetched: {why}", "try again, or download the file and give its path") from None


def within(seconds: float, call: Callable[[], str]) -> str:
    """Return a call's result. The client's own timeouts do not limit a slow answer as a whole.

    Raises:
        TimeoutError: it took more than `seconds`.
    """
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
