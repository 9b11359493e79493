"""Markdown tables of measured rows, in the layout of D2Pruner's Table 4: a value, and in parentheses the factor over no pruning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from biaskit.families.checkpoints.flops import TOWER

_HEAD = (
    "Method", "Batch", "Prefill (ms/sample)", "Total (ms/sample)", "FLOPs (T)", "Tower (T)", "KV cache (MB)", "First token (ms)",
    "Encode (ms)", "Of the ceiling", "Decision (ms)", "Decision / unpruned prefill", "Peak memory (MB)", "Samples/s",
)  # fmt: skip

NOTE = (
    "Prefill is the language model over the prompt, pruning decision included, vision tower excluded; ± half the interquartile range. "
    "FLOPs are multiply-adds by the papers' formula 4nd² + 2n²d + 2ndm; “of the ceiling” is the prefill speed-up divided by theirs. "
    f"Tower is the vision tower's multiply-adds, and what reading its attention adds ({TOWER}). "
    "KV cache is the real cache's size, a sample. Peak memory is that of the whole batch beyond the weights."
)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is left-aligned, the others right-aligned.

    >>> print(markdown(["Method", "ms"], [["none", "12.5"]]))
    | Method | ms |
    | --- | ---: |
    | none | 12.5 |
    """
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return measured rows as a table in Markdown, smallest batch first."""
    whole = {row["batch"]: row for row in rows if row["method"] == "none" and "times" in row}
    return markdown(_HEAD, [_line(row, whole.get(row["batch"])) for row in rows])


def _line(row: Mapping[str, Any], base: Mapping[str, Any] | None) -> list[str]:
    title = "all tokens" if row["method"] == "none" else f"{row['method']} ({100 * row['retention']:.1f} %)"
    if "times" not in row:
        return [title, str(row["batch"]), row["error"], *["–"] * (len(_HEAD) - 3)]
    times, batch, speedup = row["times"], row["batch"], row.get("speedup", {})
    flops, cache = row["flops"]["fastv"], row["cache_bytes"]
    share = row.get("decision_share")
    return [
        title,
        str(batch),
        _timed(times["prefill_ms"], batch, speedup.get("prefill")),
        _timed(times["total_ms"], batch, speedup.get("total")) if "total_ms" in times else "–",
        f"{flops / 1e12:.3g} ({row['ceiling']['fastv']:.2f}×)",
        _tower(row),
        f"{cache / 1e6:.4g}" + (f" ({base['cache_bytes'] / cache:.2f}×)" if base else ""),
        f"{times['first_token_ms']['median']:.1f}",
        f"{times['encode_ms']['median']:.1f}",
        "–" if row["method"] == "none" or "of_ceiling" not in row else f"{100 * row['of_ceiling']:.0f} %",
        "–" if row["method"] == "none" else f"{times['decision_ms']['median']:.2f}",
        "–" if row["method"] == "none" or share is None else f"{100 * share:.2f} %",
        "–" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:.0f}",
        f"{row['samples_per_s']:.3g}" if "samples_per_s" in row else "–",
    ]


def _tower(row: Mapping[str, Any]) -> str:
    if row.get("tower_flops") is None:
        return "–"
    reading = row["tower_reading_flops"]
    return f"{row['tower_flops'] / 1e12:.3g}" + (f" + {reading / 1e12:.2g}" if reading else "")


def _timed(timing: Mapping[str, float], batch: int, speedup: float | None) -> str:
    spread = (timing["high"] - timing["low"]) / 2 / batch
    text = f"{timing['median'] / batch:.1f} ± {spread:.1f}"
    return text if speedup is None else f"{text} ({speedup:.2f}×)"
