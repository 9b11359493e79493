"""Plans: several benchmarks in one run, each in its own process, so that a failure is recorded and the others still run.

A plan is a list of command lines, any of which can be run alone. A part may have smaller versions, tried in turn when one runs out of
memory or time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biaskit.bench.report import command, dump, kept_rows
from biaskit.errors import BiaskitError
from biaskit.files import check_target, check_writable, write_file

Say = Callable[[str], None]


@dataclass(frozen=True)
class Part:
    """A benchmark: its name, the arguments of `biaskit bench` (the largest version first), and the seconds it may take."""

    name: str
    versions: tuple[str, ...]
    seconds: float = 240


_TABLE_4 = "--image-size 672x672 --prompt-tokens 35"
_SMALL = "--random-weights --device cpu"
_FULL = "--random-weights --shrink full --device cuda"
_NEXT_7B = f"--model llava-next {_FULL} {_TABLE_4}"
_GROW = "grow --model llava-1.5 --shrink full --pruner none,d2pruner -r 0.112 --device cuda"
_METHODS = "none,fastv,d2pruner,idpruner,divprune"

PLANS = {
    "cpu": (
        Part("calibrate", (f"calibrate {_SMALL} --shrink 128x24 --layers 1,4 --samples 24 --baseline-images 4",), 600),
        Part(
            "prefill",
            (f"--model llava-next {_SMALL} --shrink 256x8 {_TABLE_4} --pruner none,fastv,d2pruner --new-tokens 4 --repeats 3",),
            600,
        ),
        Part("prefill-embedded", ("--model demo --pruner none,fastv,d2pruner -r 0.25 --new-tokens 4 --batch-size 1,4 --device cpu",), 600),
        Part("select", ("select --tokens 576,2880 --repeats 5 --device cpu",), 600),
        Part("select-256-channels", ("select --tokens 576,2880 --dim 256 --repeats 9 --device cpu",), 600),
    ),
    "gpu": (
        Part(
            "prefill-batch-8",
            tuple(f"{_NEXT_7B} --pruner {_METHODS} --batch-size {size} --new-tokens 0 --repeats 7 --warmup 2" for size in (8, 4, 2)),
            150,
        ),
        Part(
            "prefill-batch-1",
            (f"{_NEXT_7B} --pruner {_METHODS} --new-tokens 32 --repeats 5 --warmup 2",),
            150,
        ),
        Part(
            "calibrate-llava-1.5",
            (
                f"calibrate --model llava-1.5 {_FULL} --layers 1,4 --samples 256 --baseline-images 24",
                f"calibrate --model llava-1.5 {_FULL} --layers 1,4 --samples 64 --baseline-images 8 --batch-size 2",
            ),
            150,
        ),
        Part(
            "calibrate-llava-next",
            tuple(
                f"calibrate --model llava-next {_FULL} --layers 1 --samples 96 --baseline-images 8 --batch-size {size}" for size in (4, 1)
            ),
            120,
        ),
        Part("select", ("select --tokens 576,2880,20000 --authors-up-to 2880 --repeats 5 --device cuda",), 100),
        Part("select-batch-8", ("select --tokens 2880 --batch-size 8 --authors-up-to 0 --repeats 7 --device cuda",), 60),
        Part(
            "grow",
            (
                _GROW,
                f"{_GROW} --images-per-prompt 1,2,5,10 --batch-size 1,2,4,8",
            ),
            150,
        ),
        Part(
            "prefill-batch-16",
            (f"{_NEXT_7B} --pruner none,fastv,d2pruner --batch-size 16 --new-tokens 0 --repeats 5",),
            90,
        ),
    ),
}


MINUTES = {"cpu": 40.0, "gpu": 9.5}
"""No part starts later than this. The CPU plan takes a few minutes on an idle machine."""


def run(
    name: str,
    out: Path,
    *,
    minutes: float | None = None,
    force: bool = False,
    say: Say = lambda line: None,
    parts: Sequence[Part] | None = None,
) -> list[str]:
    """Run a plan; after every part, write OUT (JSON) and a Markdown file beside it.

    Args:
        name: a key of `PLANS`. out: the JSON file. minutes: parts that have not started by then are skipped; by default `MINUTES`.
        force: overwrite. say: told about each part. parts: instead of those of the plan.

    Returns:
        Names of the parts that failed or were left out.

    Raises:
        BiaskitError: unknown plan, or the file exists.
    """
    if name not in PLANS:
        raise BiaskitError(f"unknown plan {name!r}", f"choose one of {', '.join(PLANS)}")
    check_target(out, force)
    check_writable(out)
    end = time.monotonic() + 60 * (MINUTES[name] if minutes is None else minutes)
    whole: dict[str, Any] = {"plan": name, "command": command(), "parts": {}}
    texts: list[str] = [f"# `{command()}`"]
    for part in PLANS[name] if parts is None else parts:
        found, text = _part(part, end, say)
        whole["parts"][part.name] = found
        texts.append(f"## {part.name}\n\n{text}")
        write_file(out, dump(whole) + "\n")
        write_file(out.with_suffix(".md"), "\n\n".join(texts) + "\n")
    return [key for key, found in whole["parts"].items() if "result" not in found]


def _part(part: Part, end: float, say: Say) -> tuple[dict[str, Any], str]:
    """Run the first version of a part that works; return what to record, and a text."""
    attempts: list[dict[str, Any]] = []
    for version in part.versions:
        left = min(part.seconds, end - time.monotonic())
        if left < 5:
            attempts.append({"arguments": version, "error": "left out: no time left"})
            break
        say(f"{part.name}: biaskit bench {version}")
        attempt, text = _attempt(version, left)
        say(f"{part.name}: " + (attempt.get("error") or f"done in {attempt['seconds']} s"))
        attempts.append(attempt)
        if not _exhausted(attempt):
            break
    done = [attempt for attempt in attempts if "result" in attempt]
    best = done[-1] if done else attempts[-1]
    others = [attempt for attempt in attempts if attempt is not best]
    found = {**best, **({"other_attempts": others} if others else {})}
    return found, text if done and best is attempts[-1] else f"`biaskit bench {best['arguments']}`: {best.get('error', 'see the JSON')}"


def _exhausted(attempt: dict[str, Any]) -> bool:
    """Return whether something ran out of memory, so that a smaller version should be tried."""
    if "OutOfMemoryError" in attempt.get("stderr", "") or "out of memory" in attempt.get("stderr", ""):
        return True
    result = attempt.get("result")
    rows = result.get("rows", []) if isinstance(result, dict) else []
    return any("out of memory" in str(row.get("error", "")) for row in rows)


def _attempt(arguments: str, seconds: float) -> tuple[dict[str, Any], str]:
    """Run `biaskit bench ARGUMENTS` and return its result, or why there is none."""
    start = time.monotonic()
    facts: dict[str, Any] = {"arguments": arguments}
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "biaskit", "bench", *arguments.split(), "--json", "--out", folder]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            late = {"seconds": round(time.monotonic() - start, 1), "error": f"stopped after {seconds:.0f} s"}
            return facts | late | {"rows": kept_rows(Path(folder))}, ""
        facts["seconds"] = round(time.monotonic() - start, 1)
        if done.returncode:
            return facts | {"error": f"exit {done.returncode}", "stderr": done.stderr[-2000:]}, ""
        ours = f" --json --out {folder}"  # options of this call, not of the plan
        try:
            result = json.loads(done.stdout)
        except ValueError as error:
            return facts | {"error": f"no JSON on stdout: {error}", "stdout": done.stdout[-500:], "stderr": done.stderr[-500:]}, ""
        if isinstance(result, dict) and "command" in result:
            result["command"] = str(result["command"]).replace(ours, "")
        pages = sorted(Path(folder).glob("*.md"))
        return facts | {"result": result}, "\n\n".join(page.read_text(encoding="utf-8").replace(ours, "").strip() for page in pages)
