"""Names from outside (tasks, tags, models) as parts of file names."""

from __future__ import annotations

import hashlib
import re
import unicodedata

_ODD = re.compile(r"[^\w.+-]")
_LOST = re.compile(r"[^\w.+:/@=, %-]")  # characters other than separators, which become dashes
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # Windows opens these in every folder


def file_part(text: str, limit: int = 100) -> str:
    """Return a text as one part of a path that is valid on every system: not another folder, not hidden, not a device.

    Letters and digits of all scripts, `_`, `.`, `+` and `-` stay; separators become a dash. If more than that is lost, eight digits
    of the whole text's SHA-256 make the name unique.

    Args:
        text: any, such as a task's name or a tag. limit: of the result in bytes, at least 32.

    Example:
        >>> file_part("scenes-where:photo"), file_part("10 %")
        ('scenes-where-photo', '10pct')
        >>> file_part("../../etc/passwd"), file_part("<b>.jpg"), file_part("nul")
        ('etc-passwd-3754d6cb', 'b-64a1d93c.jpg', 'nul-99e62427')
    """
    plain = _ODD.sub("-", unicodedata.normalize("NFC", text.replace(" %", "pct")))
    short = plain.lstrip(".-") if plain.lstrip("-").startswith(".") else plain
    lost = bool(_LOST.search(text)) or short != plain or not short or short.endswith(".") or _DEVICE.fullmatch(short) is not None
    if not lost and len(short.encode()) <= limit:
        return short
    stem, dot, suffix = short.rpartition(".")
    if not (dot and stem and 0 < len(suffix.encode()) <= 8):
        stem, dot, suffix = short.rstrip("."), "", ""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    stem = stem.encode()[: limit - len(digest) - len(suffix.encode()) - 2].decode(errors="ignore").strip("-")
    return f"{stem}-{digest}{dot}{suffix}".lstrip("-")
