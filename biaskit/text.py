"""Text for display. Foreign text is escaped: no question, answer, tag or name can control a terminal, a spreadsheet or a page.
Also shortening of long values, and the differences between two runs' settings.

Every format has its own rules, each implemented here once. All of them apply `visible` first: control characters, direction marks and
halves of surrogate pairs are written as escapes.
"""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

_JOINERS = "\u200c\u200d"  # needed in scripts of India and Iran, and in emoji; they do not change the direction of text
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
_MARKDOWN = re.compile(r"[\\`*\[\]~]|(?<![^\W_])_|_(?![^\W_])|^>|^[#+-]+(?=\s|$)|^\d+(?=[.)](?:\s|$))")


def visible(text: str) -> str:
    r"""Return a text on one line with invisible characters written as escapes.

    Example:
        >>> print(visible("a\x1b[31mb\u202ec\n"), visible("één 图片"))
        a\x1b[31mb\u202ec\n één 图片
    """
    if text.isprintable():
        return text
    return "".join(letter if _shown(letter) else letter.encode("unicode_escape").decode("ascii") for letter in text)


def lines(text: str) -> str:
    r"""Return `visible` of each line of a text.

    >>> print(lines("a\n\x00b"))
    a
    \x00b
    """
    return text if text.isprintable() else "\n".join(map(visible, text.split("\n")))


def _shown(letter: str) -> bool:
    return letter.isprintable() or unicodedata.category(letter) == "Zs" or letter in _JOINERS


def for_json(value: Any, indent: int | None = None) -> str:
    r"""Return JSON with invisible characters escaped, valid for every parser: NaN and infinities become null.

    Example:
        >>> print(for_json({"é": "\u202e", "score": float("nan")}))
        {"é": "\u202e", "score": null}
    """
    text = json.dumps(finite(value), indent=indent, ensure_ascii=False, default=str)
    return text if text.isprintable() else "".join(letter if letter == "\n" or _shown(letter) else _in_json(letter) for letter in text)


def _in_json(letter: str) -> str:
    return json.dumps(letter)[1:-1] if ord(letter) != 0x7F else r"\u007f"


def finite(value: Any) -> Any:
    """Return plain values with None in place of NaN and infinities, which JSON does not have.

    >>> finite({"score": float("nan"), "n": [1, 2]})
    {'score': None, 'n': [1, 2]}
    """
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))) else value


def for_csv(value: Any) -> Any:
    """Return a value as a cell that no spreadsheet reads as a formula: text that begins like one gets a quotation mark in front.

    Example:
        >>> for_csv("=1+1"), for_csv("-0.5"), for_csv(-0.5), for_csv("fastv")
        ("'=1+1", '-0.5', -0.5, 'fastv')
    """
    if not isinstance(value, str):
        return value
    text = lines(value)
    return f"'{text}" if _FORMULA.match(text) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def for_markdown(text: str) -> str:
    r"""Return a text as Markdown that shows it on one line: no tags, links, pictures, emphasis, headings or lists.

    Example:
        >>> print(for_markdown("<img src=x> [a](b) *c* max_skips # d"))
        &lt;img src=x> \[a\](b) \*c\* max_skips # d
    """
    plain = visible(text.replace("\n", " ")).strip()
    return re.sub(r"&(?=#?\w+;)", "&amp;", _MARKDOWN.sub(_escaped, plain)).replace("<", "&lt;")


def _escaped(found: re.Match[str]) -> str:
    whole = found.group()
    return whole + "\\" if whole[-1].isdigit() else f"{whole[:-1]}\\{whole[-1]}"


def for_html(text: object) -> str:
    r"""Return a text escaped for HTML, also in attributes.

    >>> print(for_html('<b title="&\x00">'))
    &lt;b title=&quot;&amp;\x00&quot;&gt;
    """
    return html.escape(lines(str(text)))


def shortened(text: str, most: int = 60) -> str:
    """Return a text in at most `most` characters; a longer one is cut and ends in ….

    >>> shortened("a long title", 7), shortened("title", 7)
    ('a long…', 'title')
    """
    return text if len(text) <= most else f"{text[: most - 1]}…"


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return one line per setting that differs, with old and new value; of a mapping only its parts that differ.

    >>> differences({"seed": 0, "processor": {"size": 336, "pad": True}}, {"seed": 0, "processor": {"size": 224, "pad": True}})
    ['processor size was 336, is 224']
    """
    found: list[str] = []
    for name in dict.fromkeys((*old, *new)):
        mine, theirs = old.get(name), new.get(name)
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            found += [f"{name} {part}" for part in differences(mine, theirs)]
        elif mine != theirs:
            found.append(f"{name} was {shortened(json.dumps(mine))}, is {shortened(json.dumps(theirs))}")
    return found
