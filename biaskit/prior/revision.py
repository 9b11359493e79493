"""Warnings if a prior is used with another checkpoint than it was calibrated on: another revision or other processor settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# A revision is a commit of the hub, or a fingerprint of local files or of a model in memory.
FILES = "files-"
"""Prefix of fingerprints of local checkpoints, which cover every byte of the weights."""
ENDS = "local-"
"""Prefix of older fingerprints, which covered the size and the first and last MiB of each file of weights."""


def revision_warning(mine: str, theirs: str, what: str = "prior") -> str:
    """Return a warning if a prior's revision differs from a checkpoint's; "" if it does not, or if either is unknown.

    >>> revision_warning("files-01", "files-02")
    "this prior was calibrated on revision 'files-01', and is used with 'files-02'"
    >>> revision_warning("files-01", "files-01")
    ''
    """
    if not mine or not theirs or mine == theirs:
        return ""
    if mine.startswith(ENDS) and theirs.startswith(FILES):
        return (
            f"this {what} names its checkpoint by an older kind of fingerprint ({mine}), which covers only the ends of the weight files: "
            f"whether it is this checkpoint ({theirs}) is unknown; calibrate again to be sure"
        )
    return f"this {what} was calibrated on revision {mine!r}, and is used with {theirs!r}"


def settings_warning(mine: str, theirs: Mapping[str, Any], what: str = "prior") -> str:
    """Return a warning about processor settings that differ between a prior's calibration and a checkpoint; "" if none are known to differ.

    A setting that only one of them has is unknown, such as one of another release, unless it is a switch that is on.

    Args:
        mine: the prior's metadata `processor`, JSON. theirs: the checkpoint's `processor_settings`.

    >>> settings_warning('{"size": 336, "pad": true}', {"size": 224, "pad": True})
    'this prior was calibrated with another setting of the processor: size = 336, and is used with 224'
    >>> settings_warning('{"size": 336, "pad": true}', {"size": 336})
    'this prior was calibrated with another setting of the processor: pad = true, and is used with false'
    """
    known = read_settings(mine)
    if not known or not theirs:
        return ""
    switches = {name: False for name, value in (known | dict(theirs)).items() if value is True}
    known, theirs = switches | known, switches | dict(theirs)
    differing = [name for name in sorted(known) if name in theirs and known[name] != theirs[name]]
    if not differing:
        return ""
    parts = [f"{name} = {json.dumps(known[name])}, and is used with {json.dumps(theirs[name])}" for name in differing]
    return f"this {what} was calibrated with another setting of the processor: {'; '.join(parts)}"


def read_settings(text: str) -> dict[str, Any]:
    """Read a prior's metadata `processor`: dotted name → value; {} if it is missing or not a mapping.

    >>> read_settings('{"patch_size": 14}'), read_settings("")
    ({'patch_size': 14}, {})
    """
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
