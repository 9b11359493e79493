"""What tells two checkpoints apart that have the same name: a hash of the config and of every byte of the weights.

A file of weights is hashed in blocks of 64 MiB by several threads (BLAKE2b, about 1 GB/s a core), and the result is kept in the cache by
path, size, time of change and inode, so that loading the same checkpoint again reads nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biaskit.errors import BiaskitError
from biaskit.families.checkpoints.dispatch import weight
from biaskit.files import write_file
from biaskit.prior.revision import FILES

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_BLOCK = 1 << 26
_READ = 1 << 22
_SETTLED = 2.0
"""Seconds: a file that changed more recently may change again within one tick of the file system's clock, and is not kept in the cache."""


def fingerprint(directory: Path) -> str:
    """Return the fingerprint of a local checkpoint: of config.json and of all its safetensors, headers and tensors.

    Raises:
        OSError: a file cannot be read.
    """
    digest = hashlib.blake2b((directory / "config.json").read_bytes())
    for path in sorted(directory.glob("*.safetensors")):
        digest.update(f"\0{path.name}\0{file_digest(path)}".encode())
    return f"{FILES}{digest.hexdigest()[:16]}"


def model_fingerprint(model: PreTrainedModel) -> str:
    """Return the fingerprint of a model in memory: of its config and of every parameter and buffer that is saved with it."""
    import torch

    config = model.config.to_json_string(use_diff=True)
    digest = hashlib.blake2b(config.encode())
    for name, given in sorted(model.state_dict().items()):
        tensor: Any = weight(model, name) if given.is_meta else given
        digest.update(f"\0{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return f"memory-{digest.hexdigest()[:16]}"


def file_digest(path: Path) -> str:
    """Return the hash (hex) of a file, from the cache where it is known."""
    stat = path.stat()
    whole = str(path.resolve())
    facts = {"path": whole, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "inode": stat.st_ino}
    kept = _cache() / f"{hashlib.sha256(os.fsencode(whole)).hexdigest()[:32]}.json"
    try:
        known = json.loads(kept.read_text(encoding="utf-8"))
        if known["facts"] == facts and len(known["digest"]) == 64:
            return str(known["digest"])
    except (OSError, ValueError, TypeError, KeyError):
        pass  # not there, or of another version: it is made again
    found = _hash(path, stat.st_size)
    if time.time() - stat.st_mtime > _SETTLED and path.stat().st_mtime_ns == stat.st_mtime_ns:
        with suppress(BiaskitError):  # a cache that cannot be written costs time, nothing else
            write_file(kept, json.dumps({"facts": facts, "digest": found}).encode(), force=True)
    return found


def _hash(path: Path, size: int) -> str:
    """Hash the blocks of a file side by side, and their hashes in order."""

    def block(start: int) -> bytes:
        digest, left = hashlib.blake2b(digest_size=32), min(_BLOCK, size - start)
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            while left > 0 and (data := file.read(min(_READ, left))):
                digest.update(data)
                left -= len(data)
        return digest.digest()

    starts = range(0, max(size, 1), _BLOCK)
    whole = hashlib.blake2b(size.to_bytes(8, "little"), digest_size=32)
    for digest in _side_by_side(block, starts):
        whole.update(digest)
    return whole.hexdigest()


def _side_by_side(work: Callable[[int], bytes], items: Sequence[int]) -> list[bytes]:
    if len(items) == 1:
        return [work(items[0])]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(work, items))


def _cache() -> Path:
    """$BIASKIT_CACHE/fingerprints, else $XDG_CACHE_HOME/biaskit/fingerprints, else ~/.cache/biaskit/fingerprints."""
    own = os.environ.get("BIASKIT_CACHE")
    base = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "biaskit"
    return base.expanduser() / "fingerprints"
