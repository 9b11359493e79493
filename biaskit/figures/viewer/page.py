"""The page itself: a template, a style sheet and a script, filled with what `Contents` packs."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING

from biaskit.figures.viewer.contents import Contents

if TYPE_CHECKING:
    from jinja2 import Environment


def html(contents: Contents) -> str:
    """Return the page: one file without external references; all texts are escaped, and its content security policy forbids every request.

    Raises:
        BiaskitError: as `Contents.packed`.

    Example:
        >>> import numpy as np
        >>> from biaskit.prior.value import PlaneStats, Prior
        >>> values = np.linspace(0.5, 1.5, 16, dtype=np.float32).reshape(1, 4, 4)
        >>> page = html(Contents({"mine": Prior({"image": PlaneStats(values)}, (1,), np.ones(1, dtype=np.float32), {})}))
        >>> page.count("http:") + page.count("https:"), "default-src 'none'" in page
        (0, True)
    """
    folder = files(__package__)
    parts = {name: (folder / name).read_text(encoding="utf-8") for name in ("view.css", "numbers.js", "draw.js", "view.js")}
    script = "".join(parts[name] for name in ("numbers.js", "draw.js", "view.js"))
    # character references are not decoded inside a script element: only "<" could end it
    data = json.dumps(contents.packed(), ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    template = _environment().from_string((folder / "page.html.jinja").read_text(encoding="utf-8"))
    return template.render(contents=contents, style=parts["view.css"], script=script, data=data)


def _environment() -> Environment:
    from jinja2 import Environment, StrictUndefined

    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
