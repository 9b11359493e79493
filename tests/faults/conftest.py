"""Faults on purpose. `FAULTS=full` takes many more of them; what was done is counted and printed at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from random import Random
from typing import Any

import pytest
from sandbox import Outcome, run_all

_KEY = "faults"
BAD = {"tracebacks": "tracebacks", "hangs": "hangs over 20 s", "heavy": "over 1 GB", "lost": "bytes lost", "wrong": "wrong"}
"""Kinds of what may be wrong, and how the summary calls them."""


@pytest.fixture
def judged(record_property: Callable[[str, object], None]) -> Callable[..., Outcome]:
    """Note an outcome for the summary, and fail if something is wrong: `judged("faults", "paths", outcome)`."""

    def note(group: str, what: str, outcome: Outcome) -> Outcome:
        record_property(_KEY, {"group": group, "what": what, "total": outcome.total, **asdict(outcome), "kinds": dict(outcome.kinds)})
        assert not outcome.wrong, f"{len(outcome.wrong)} of {outcome.total} {what}:\n" + "\n".join(outcome.wrong[:20])
        return outcome

    return note


@pytest.fixture
def survives(judged: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """Run something over hostile inputs and fail unless each is read or refused, in time and within memory."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the sandbox reads /proc, which only Linux has")
    return lambda what, act, inputs: judged("files", what, run_all(act, inputs))


@pytest.fixture
def counted(judged: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """Count faults that were injected without the sandbox, and that did no harm: `counted("network faults", 1)`."""
    return lambda what, number, group="faults": judged(group, what, Outcome(refused=number))


@pytest.fixture
def random(request: pytest.FixtureRequest) -> Random:
    """A generator seeded by the test's name; FAULTS_SEED makes other faults."""
    return Random(f"{request.node.name} {os.environ.get('FAULTS_SEED', 0)}")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    found: dict[str, list[dict[str, Any]]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for key, value in getattr(report, "user_properties", ()) if getattr(report, "when", "") == "call" else ():
                if key == _KEY:
                    found.setdefault(value["what"], []).append(value)
    if not found:
        return
    terminalreporter.section("faults")
    for what, rows in sorted(found.items()):
        total, read, refused = (sum(row[name] for row in rows) for name in ("total", "read", "refused"))
        slowest, most = (max(row[name] for row in rows) for name in ("seconds", "megabytes"))
        took = f"; slowest {slowest:.1f} s, at most {most:.0f} MB" if slowest else ""
        terminalreporter.write_line(f"{total:,} {what}: {read:,} read, {refused:,} refused or survived{took}")
    every = [row for rows in found.values() for row in rows]
    sums = {group: sum(row["total"] for row in every if row["group"] == group) for group in ("faults", "files", "kills")}
    bad = {kind: sum(row["kinds"].get(kind, 0) for row in every) for kind in BAD}
    told = f"{sums['faults']:,} faults, {sums['files']:,} mutated files, {sums['kills']:,} kills: "
    terminalreporter.write_line(told + ", ".join(f"{bad[kind]} {name}" for kind, name in BAD.items()))
