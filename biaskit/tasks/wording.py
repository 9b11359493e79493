"""Questions that tasks put together themselves; how a model is asked is its `Wording`."""

from __future__ import annotations

PRESENCE = "Is there {} {} in the image?"
"""POPE's question (arXiv 2305.10355): article and object."""


def ask_presence(thing: str) -> str:
    """Return POPE's question about a thing.

    Example:
        >>> ask_presence("apple")
        'Is there an apple in the image?'
    """
    return PRESENCE.format("an" if thing[:1].lower() in tuple("aeiou") else "a", thing)
