"""Text that the figures' own font cannot show: another installed font is used, or the text is drawn without those characters."""

from __future__ import annotations

import warnings
from collections.abc import Set
from functools import cache

from matplotlib.artist import Artist
from matplotlib.font_manager import findfont, fontManager, get_font
from matplotlib.text import Text

MISSING = "?"
"""The replacement for a character that no installed font has."""

_NO_TEXT = ("Last Resort", "cm", "STIXSize", "STIXNonUnicode")  # placeholders, and TeX's fonts, whose code points mean something else
_told: set[str] = set()


def show_all_text(figure: Artist) -> None:
    """Give every text of a figure, or a text alone, fonts that have its characters, in place.

    Characters that no installed font has are drawn as `?`, with a warning once per process. A figure whose texts the own font can show is
    unchanged, so that the same input gives the same bytes on machines with other fonts.

    >>> from matplotlib.figure import Figure
    >>> figure = Figure()
    >>> text = figure.text(0, 0, "a plain title")
    >>> show_all_text(figure)
    >>> text.get_text()
    'a plain title'
    """
    lost: set[str] = set()
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        wanted = {letter for letter in text.get_text() if not letter.isspace()}
        missing = wanted - _characters(findfont(text.get_fontproperties()))
        if not missing:
            continue
        names, left = _fallbacks(frozenset(missing))
        text.set_fontfamily([*text.get_fontfamily(), *names])
        if left:
            lost |= left
            text.set_text("".join(MISSING if letter in left else letter for letter in text.get_text()))
    if fresh := lost - _told:
        _told.update(fresh)
        warnings.warn(
            f"no installed font has {''.join(sorted(fresh)[:12])}: the figure shows {MISSING} instead; "
            "install one that has, such as Noto Sans CJK for Chinese, Japanese and Korean",
            stacklevel=3,
        )


@cache
def _characters(file: str) -> frozenset[str]:
    return frozenset(map(chr, get_font(file).get_charmap()))


@cache
def _fallbacks(missing: frozenset[str]) -> tuple[tuple[str, ...], Set[str]]:
    """Return names of installed fonts that together have the characters, and the characters that none has."""
    names: list[str] = []
    left = set(missing)
    fonts = [entry for entry in fontManager.ttflist if not entry.name.startswith(_NO_TEXT) and entry.style == "normal"]
    files = {entry.fname: entry.name for entry in sorted(fonts, key=lambda entry: (entry.weight != 400, entry.name))}
    while left:
        found = {file: len(left & _known(file)) for file in files}
        best = max(found, key=lambda file: found[file], default="")
        if not best or not found[best]:
            break
        names.append(files[best])
        left -= _known(best)
    return tuple(names), left


def _known(file: str) -> frozenset[str]:
    """The characters of a font; empty for a file that cannot be read, or whose glyphs are bitmaps."""
    try:
        font = get_font(file)
        return _characters(file) if font.scalable else frozenset()
    except (OSError, RuntimeError):
        return frozenset()
