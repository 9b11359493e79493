"""How figures are styled and written: without dates, so the same input gives the same bytes; atomically; overwriting only with `force`."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, NullLocator

from biaskit.errors import BiaskitError
from biaskit.figures.glyphs import show_all_text
from biaskit.files import check_target, write_file

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
    "text.parse_math": False,  # a dollar in a name is a dollar
    "svg.hashsalt": "biaskit",
    "pdf.fonttype": 42,
    "axes.unicode_minus": True,
}


@contextmanager
def house_style() -> Iterator[None]:
    """Set fonts, colours and lines only inside the block, or the decorated function; the user's rcParams are restored."""
    import seaborn as sns  # takes a second, with pandas: loaded only when something is drawn

    style: Any = {**sns.axes_style("ticks"), **STYLE}
    with rc_context(style):
        yield


def check_out(path: Path, force: bool) -> None:
    """Check a figure's path before any work.

    Raises:
        BiaskitError: an unknown suffix, a missing folder, not a regular file, or a file that exists without `force`.
    """
    if path.suffix.lower() not in METADATA:
        what = f"a {path.suffix} figure" if path.suffix else "a figure without a suffix"
        raise BiaskitError(f"cannot write {what}: {path}", f"end the name in {', '.join(METADATA)}")
    if not path.parent.is_dir():
        raise BiaskitError(f"there is no folder {path.parent}", "create it first")
    check_target(path, force)


def fit(label: Text, width: float, canvas: FigureCanvasAgg, smallest: float | None = None) -> None:
    """Make a text no wider than `width` inches: smaller letters, down to `smallest` points, then its longest prefix and an ellipsis."""
    show_all_text(label)  # other fonts have other widths
    text, dpi, renderer = label.get_text(), canvas.figure.dpi, canvas.get_renderer()

    def room() -> float:
        return width / max(label.get_window_extent(renderer).width / dpi, 1e-9)

    if room() >= 1:
        return
    if smallest is not None:
        label.set_fontsize(max(smallest, float(label.get_fontsize()) * room() * 0.99))
        if room() >= 1:
            return
    fits, cut = 0, len(text)  # the longest prefix that fits lies in between
    while cut - fits > 1:
        middle = (fits + cut) // 2
        label.set_text(text[:middle].rstrip() + "…")
        fits, cut = (middle, cut) if room() >= 1 else (fits, middle)
    label.set_text(text[:fits].rstrip() + "…")


class ShownFigure(Figure):
    """A figure that a notebook shows as the value of a cell: matplotlib's own are shown only by pyplot, which is not used here."""

    def _repr_png_(self) -> bytes:
        show_all_text(self)
        buffer = io.BytesIO()
        with house_style():
            self.savefig(buffer, dpi=110, metadata=METADATA[".png"], format="png")
        return buffer.getvalue()


def plain_ticks(axes: Axes, values: Iterable[float]) -> None:
    """Label logarithmic axes with plain numbers, x only at the measured values; of labels that would touch, the larger is left out."""
    shown: list[float] = []
    for value in sorted(set(values)):
        if not shown or value > 1.45 * shown[-1]:
            shown.append(value)
    axes.set_xticks(shown, [f"{value:g}" if value < 10_000 else f"{value / 1000:g}k" for value in shown])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))  # not 10³, which matplotlib writes as mathematics


def write_figure(figure: Figure, path: Path, dpi: int = 200) -> None:
    """Save atomically: readers see no file, the old one or the complete new one.

    Raises:
        FileError: the file cannot be written.
    """
    suffix = path.suffix.lower()
    show_all_text(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=dpi, metadata=METADATA[suffix], format=suffix[1:])
    write_file(path, buffer.getvalue())
