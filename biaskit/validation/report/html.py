"""One self-contained page: styles, a short script, inline figures. It needs no network, and has a light and a dark style.

First comes a screen with the answer and one picture, then sections of tables and figures; see also `report.css` and `report.js`.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files

from biaskit.text import for_html
from biaskit.validation.report.cards import card
from biaskit.validation.report.gallery import Gallery
from biaskit.validation.report.tables import Entry, Table

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True)
class Picture:
    """A figure as SVG bytes, with its caption."""

    svg: bytes
    caption: str


@dataclass(frozen=True)
class Code:
    """Preformatted text."""

    text: str


Part = str | Table | Picture | Code | Gallery


@dataclass(frozen=True)
class Section:
    """A heading with its parts, in order; `folded` parts open on a click."""

    anchor: str
    title: str
    parts: Sequence[Part]
    folded: Sequence[Part] = field(default_factory=tuple)
    folded_title: str = ""


@dataclass(frozen=True)
class Opening:
    """The first screen: the answer in one sentence, a picture, and the rest of the answer, which opens on a click."""

    answer: str
    rest: str = ""
    picture: Picture | None = None


def page(title: str, subtitle: str, warnings: Sequence[str], opening: Opening, sections: Sequence[Section]) -> str:
    """Return the whole page; all arguments are plain text, which is escaped here."""
    links = "".join(f'<a href="#{for_html(section.anchor)}">{for_html(section.title)}</a>' for section in sections)
    body = [f'<header><h1>{for_html(title)}</h1><p class="faint">{for_html(subtitle)}</p></header><main>']
    if warnings:
        body.append(
            '<div class="warning" role="alert">' + "".join(f"<p><strong>Warning.</strong> {for_html(w)}</p>" for w in warnings) + "</div>"
        )
    rest = f"<details><summary>The numbers behind it</summary><p>{for_html(opening.rest)}</p></details>" if opening.rest else ""
    body.append(f'<section class="answer" aria-label="The answer"><p class="sentence">{for_html(opening.answer)}</p>{rest}</section>')
    body += [_part(opening.picture)] if opening.picture is not None else []
    body.append(f'<nav aria-label="Sections">{links}</nav>')
    for section in sections:
        body.append(f'<h2 id="{for_html(section.anchor)}">{for_html(section.title)}</h2>')
        body += [_part(part) for part in section.parts]
        if section.folded:
            inside = "".join(_part(part) for part in section.folded)
            body.append(f"<details><summary>{for_html(section.folded_title)}</summary>{inside}</details>")
    style, script = ((files(__package__) / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><title>{for_html(title)}</title><style>{style}</style>'
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n'
        + "\n".join(body)
        + f"\n</main><script>{script}</script>\n</body></html>\n"
    )


def _part(part: Part) -> str:
    if isinstance(part, Code):
        return f'<pre tabindex="0" role="region" aria-label="text as it is">{for_html(part.text)}</pre>'
    if isinstance(part, Table):
        return table(part)
    if isinstance(part, Gallery):
        task = zlib.crc32(part.task.encode("utf-8"))
        cards = "".join(card(example, f"photo-{task:08x}-{number}") for number, example in enumerate(part.examples))
        rule = for_html(f"{part.rule} {part.without}".rstrip())
        return f'<h3>{for_html(part.task)}</h3><p class="note">{rule}</p><div class="cards">{cards}</div>'
    if isinstance(part, Picture):
        data = base64.b64encode(part.svg).decode("ascii")
        alt = for_html(part.caption)
        caption = f"<figcaption>{for_html(part.caption)}</figcaption>"
        return f'<figure><img alt="{alt}" src="data:image/svg+xml;base64,{data}">{caption}</figure>'
    return f"<p>{for_html(part)}</p>"


def table(shown: Table) -> str:
    """Return a sortable table with its title and notes."""
    heads = "".join(map(_head, shown.head))
    rows = "".join("<tr>" + "".join(_cell(entry) for entry in row) + "</tr>\n" for row in shown.rows)
    notes = "".join(f'<p class="note">{for_html(note)}</p>' for note in shown.notes)
    body = f"<table><thead><tr>{heads}</tr></thead><tbody>\n{rows}</tbody></table>"
    name = for_html(shown.title)
    return f'<h3>{name}</h3><div class="wide" tabindex="0" role="region" aria-label="{name}">{body}</div>{notes}'


def _head(word: str) -> str:
    """Return the heading of a column, a button that sorts; an empty heading has a name for screen readers."""
    name = "" if word else ' aria-label="name"'
    return f'<th scope="col"><button type="button"{name}>{for_html(word)}</button></th>'


def _cell(entry: Entry) -> str:
    value = "" if entry.value is None else f' data-value="{entry.value:.6g}"'
    words = entry.value is None and len(entry.text) > 24
    names = " ".join(name for name, on in (("strong", entry.strong), ("words", words)) if on)
    kind = f' class="{names}"' if names else ""
    detail = f"<small>{for_html(entry.detail)}</small>" if entry.detail else ""
    return f"<td{kind}{value}>{for_html(entry.text)}{detail}</td>"
