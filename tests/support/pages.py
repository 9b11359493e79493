"""Tables in the documents that come from the code: `python tests/support/pages.py` writes them, a test compares them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {"README.md": "methods", "docs/methods.md": "table"}


def methods() -> str:
    """The methods by where they act, each linked to its paper."""
    from biaskit.pruners import pruners

    groups: dict[str, list[str]] = {}
    for name, cls in pruners:
        shown = f"[{cls.title}](https://arxiv.org/abs/{cls.arxiv})" if cls.arxiv else cls.title
        groups.setdefault(cls.acts, []).append(f"{shown} `{name}`")
    rows = [f"| {acts} | {', '.join(found)} |" for acts, found in sorted(groups.items(), key=lambda item: -len(item[1]))]
    return "\n".join(["| where it acts | methods (`biaskit pruners show NAME`) |", "|---|---|", *rows])


def table() -> str:
    """Every method with its paper, K, what it reads, prior and families, as `biaskit pruners list --format markdown` prints it."""
    from biaskit.cli.pruners import methods_table

    return methods_table()


def filled(path: Path) -> str:
    """A page with its tables as the code has them now."""
    text = path.read_text(encoding="utf-8")
    return re.sub(
        r"(<!-- (\w+): generated[^\n]*-->\n).*?(<!-- /\2 -->)",
        lambda found: f"{found[1]}{globals()[found[2]]()}\n{found[3]}",
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    for page in PAGES:
        (ROOT / page).write_text(filled(ROOT / page), encoding="utf-8")
