"""One self-contained page: styles, a few lines of script, figures inline. It asks the network for nothing, and reads in light and dark."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field

from biaskit.text import for_html
from biaskit.validation.report.tables import Entry, Table

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1e23; --faint: #626a75; --page: #ffffff; --card: #f5f6f8; --line: #d8dce2; --warn: #fff3d6;
  --warn-line: #d99a00; --strong: #e3eefb; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7e9ec; --faint: #9aa3ae; --page: #15181c; --card: #1e2228; --line: #3a414b;
  --warn: #3b2f0d; --warn-line: #e0a92e; --strong: #1d3450; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1.25rem 4rem; max-width: 76rem; background: var(--page); color: var(--ink);
  font: 15px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p { max-width: 62rem; } .faint, .note { color: var(--faint); } .note { font-size: .82rem; margin: .35rem 0; max-width: 62rem; }
nav a { margin-right: 1rem; } a { color: inherit; }
.warning { background: var(--warn); border: 2px solid var(--warn-line); border-radius: 8px; padding: .7rem 1rem; margin: 1rem 0; }
.warning p { margin: .3rem 0; }
.answer { background: var(--card); border-left: 4px solid #3f6ea3; border-radius: 4px; padding: .7rem 1rem; margin: 1rem 0; }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; font-size: .84rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .32rem .65rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); vertical-align: top; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--page); }
td.words { text-align: left; white-space: normal; min-width: 11rem; }
thead th { background: var(--card); cursor: pointer; font-weight: 600; } thead th:first-child { background: var(--card); }
thead th[data-order="1"]::after { content: " \\25B2"; } thead th[data-order="-1"]::after { content: " \\25BC"; }
tbody tr:last-child td { border-bottom: 0; } td small { display: block; color: var(--faint); font-size: .74rem; }
td.strong { background: var(--strong); font-weight: 650; } td.strong small { font-weight: 400; }
figure { margin: 1rem 0; } figure img { max-width: 100%; height: auto; background: #fff;
   border: 1px solid var(--line); border-radius: 6px; padding: 6px; }
figcaption { color: var(--faint); font-size: .82rem; }
summary { cursor: pointer; font-weight: 600; margin: .8rem 0; }
pre { background: var(--card); padding: .8rem; overflow-x: auto; border-radius: 6px; }
@media print { .wide { overflow: visible; } thead th::after { content: "" !important; } }
"""

_SCRIPT = """
document.querySelectorAll("thead th").forEach((head) => head.addEventListener("click", () => {
  const body = head.closest("table").tBodies[0], at = head.cellIndex, order = head.dataset.order === "-1" ? 1 : -1;
  head.parentNode.querySelectorAll("th").forEach((other) => delete other.dataset.order);
  head.dataset.order = String(order);
  const key = (row) => { const cell = row.cells[at], value = cell.dataset.value;
    return value === undefined ? cell.textContent : Number(value); };
  const kind = (a) => typeof a === "number" ? 0 : 1;
  [...body.rows].sort((a, b) => { const x = key(a), y = key(b);
    return kind(x) - kind(y) || (kind(x) ? -order * x.localeCompare(y) : order * (x - y)); }).forEach((row) => body.append(row));
}));
"""


@dataclass(frozen=True)
class Picture:
    """A figure as SVG bytes, with what it shows in words."""

    svg: bytes
    caption: str


@dataclass(frozen=True)
class Code:
    """Text whose lines stay as they are."""

    text: str


Part = str | Table | Picture | Code


@dataclass(frozen=True)
class Section:
    """A heading with what stands beneath it, in order; `folded` parts open on a click."""

    anchor: str
    title: str
    parts: Sequence[Part]
    folded: Sequence[Part] = field(default_factory=tuple)
    folded_title: str = ""


def page(title: str, subtitle: str, warnings: Sequence[str], answer: str, sections: Sequence[Section]) -> str:
    """Return the whole page; all texts are plain and are escaped here."""
    links = "".join(f'<a href="#{for_html(section.anchor)}">{for_html(section.title)}</a>' for section in sections)
    body = [f"<h1>{for_html(title)}</h1>", f'<p class="faint">{for_html(subtitle)}</p>']
    if warnings:
        body.append(
            '<div class="warning" role="alert">' + "".join(f"<p><strong>Warning.</strong> {for_html(w)}</p>" for w in warnings) + "</div>"
        )
    body += [f'<div class="answer"><p>{for_html(answer)}</p></div>', f"<nav>{links}</nav>"]
    for section in sections:
        body.append(f'<h2 id="{for_html(section.anchor)}">{for_html(section.title)}</h2>')
        body += [_part(part) for part in section.parts]
        if section.folded:
            inside = "".join(_part(part) for part in section.folded)
            body.append(f"<details><summary>{for_html(section.folded_title)}</summary>{inside}</details>")
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{for_html(title)}</title><style>{_STYLE}</style>"
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n'
        + "\n".join(body)
        + f"\n<script>{_SCRIPT}</script>\n</body></html>\n"
    )


def _part(part: Part) -> str:
    if isinstance(part, Code):
        return f"<pre>{for_html(part.text)}</pre>"
    if isinstance(part, Table):
        return table(part)
    if isinstance(part, Picture):
        data = base64.b64encode(part.svg).decode("ascii")
        alt = for_html(part.caption)
        caption = f"<figcaption>{for_html(part.caption)}</figcaption>"
        return f'<figure><img alt="{alt}" src="data:image/svg+xml;base64,{data}">{caption}</figure>'
    return f"<p>{for_html(part)}</p>"


def table(shown: Table) -> str:
    """Return a sortable table with its title and notes."""
    heads = "".join(f'<th scope="col" title="sort">{for_html(word)}</th>' for word in shown.head)
    rows = "".join("<tr>" + "".join(_cell(entry) for entry in row) + "</tr>\n" for row in shown.rows)
    notes = "".join(f'<p class="note">{for_html(note)}</p>' for note in shown.notes)
    body = f"<table><thead><tr>{heads}</tr></thead><tbody>\n{rows}</tbody></table>"
    return f'<h3>{for_html(shown.title)}</h3><div class="wide">{body}</div>{notes}'


def _cell(entry: Entry) -> str:
    value = "" if entry.value is None else f' data-value="{entry.value:.6g}"'
    words = entry.value is None and len(entry.text) > 24
    names = " ".join(name for name, on in (("strong", entry.strong), ("words", words)) if on)
    kind = f' class="{names}"' if names else ""
    detail = f"<small>{for_html(entry.detail)}</small>" if entry.detail else ""
    return f"<td{kind}{value}>{for_html(entry.text)}{detail}</td>"
