"""How every figure is styled and written: no dates, so the same input gives the same bytes; in one step; nothing overwritten unasked."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from biaskit.errors import BiaskitError
from biaskit.figures.glyphs import show_all_text

METADATA: dict[str, dict[str, Any]] = {  # by suffix; no dates, so that the same input gives the same bytes
    ".png": {"Software": "biaskit"},
    ".pdf": {"Creator": "biaskit", "CreationDate": None},
    ".svg": {"Creator": "biaskit", "Date": None},
}
INK, FAINT = "0.15", "0.45"
STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.hashsalt": "biaskit",
    "pdf.fonttype": 42,
}


def check_out(path: Path, force: bool) -> None:
    """Refuse a figure's path before any work.

    Raises:
        BiaskitError: an unknown suffix, a folder that is not there, or a file that exists without `force`.
    """
    if path.suffix.lower() not in METADATA:
        what = f"a {path.suffix} figure" if path.suffix else "a figure without a suffix"
        raise BiaskitError(f"cannot write {what}: {path}", f"end the name in {', '.join(METADATA)}")
    if not path.parent.is_dir():
        raise BiaskitError(f"there is no folder {path.parent}", "create it first")
    if path.exists() and not force:
        raise BiaskitError(f"{path} exists", "choose another name, or overwrite it with --force")


def write_figure(figure: Figure, path: Path) -> None:
    """Save in one step: readers see no file, the old one or the whole new one."""
    suffix = path.suffix.lower()
    part = None
    try:
        handle, name = tempfile.mkstemp(suffix=suffix, prefix=f".{path.stem}-", dir=path.parent)
        os.close(handle)
        part = Path(name)
        show_all_text(figure)
        figure.savefig(part, dpi=200, metadata=METADATA[suffix], format=suffix[1:])
        part.chmod(0o644)  # mkstemp's files are private; figures are not
        part.replace(path)
    except OSError as error:
        raise BiaskitError(f"cannot write {path}: {error.strerror or error}", "choose a folder you may write to") from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
