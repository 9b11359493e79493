"""Tables as markdown, LaTeX (booktabs) and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

from biaskit.text import for_csv, for_markdown, visible
from biaskit.validation.report.tables import Entry, Table

_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$", "…": r"\ldots{}", "≥": r"$\geq$", "≤": r"$\leq$", "<": "$<$",
    ">": "$>$", "·": r"$\cdot$", "—": "---", "×": r"$\times$", "α": r"$\alpha$", "θ": r"$\theta$", "τ": r"$\tau$", "²": r"$^2$",
}  # fmt: skip


def markdown(table: Table) -> str:
    """Return a table in markdown, its title as a heading and its notes beneath."""
    lines = [f"### {for_markdown(table.title)}", "", _row(map(for_markdown, table.head)), "|" + " --- |" * len(table.head)]
    lines += [_row([_markdown(entry) for entry in row]) for row in table.rows]
    return "\n".join([*lines, "", *(f"{for_markdown(note)}\n" for note in table.notes)])


def _row(words: Iterable[str]) -> str:
    return "| " + " | ".join(word.replace("|", "\\|") for word in words) + " |"


def _markdown(entry: Entry) -> str:
    text = for_markdown(entry.text)
    text = f"**{text}**" if entry.strong else text
    return f"{text} ({for_markdown(entry.detail)})" if entry.detail else text


def latex(table: Table) -> str:
    r"""Return a table for \input; it needs the package booktabs."""
    heads = " & ".join(tex(word) for word in table.head)
    rows = [" & ".join(_latex(entry) for entry in row) + r" \\" for row in table.rows]
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{tex(' '.join([table.title + '.', *table.notes]))}}}",
        rf"\label{{tab:{table.key}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.head) - 1)}}}",
        r"\toprule",
        heads + r" \\",
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def tex(text: str) -> str:
    """Escape LaTeX's special characters."""
    return "".join(_TEX.get(letter, letter) for letter in visible(text))


def _latex(entry: Entry) -> str:
    text = rf"\textbf{{{tex(entry.text)}}}" if entry.strong else tex(entry.text)
    return rf"{text} {{\scriptsize ({tex(entry.detail)})}}" if entry.detail else text


def comma_separated(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows that all have the keys of the first one, as CSV; numbers in full, "" for None, and no formulas."""
    listed = list(rows)
    if not listed:
        return ""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(listed[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: for_csv(value) for key, value in row.items()} for row in listed)
    return out.getvalue()
