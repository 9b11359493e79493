"""Faults on purpose. `FAULTS=full` takes many more of them; what was done is counted and printed at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest
from sandbox import Outcome, run_all

_KEY = "faults"


@pytest.fixture
def survives(record_property: Callable[[str, object], None]) -> Callable[..., Outcome]:
    """Run something over hostile inputs and fail unless each is read or refused, in time and within memory."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the sandbox reads /proc, which only Linux has")

    def run(what: str, act: Callable[[Any], object], inputs: Sequence[tuple[str, Any]]) -> Outcome:
        outcome = run_all(act, inputs)
        record_property(_KEY, [what, outcome.total, outcome.read, outcome.refused, outcome.seconds, outcome.megabytes])
        assert not outcome.wrong, f"{len(outcome.wrong)} of {outcome.total} {what}:\n" + "\n".join(outcome.wrong[:20])
        return outcome

    return run


@pytest.fixture
def counted(record_property: Callable[[str, object], None]) -> Callable[[str, int], None]:
    """Count faults that were injected without the sandbox: `counted("network faults", 1)`."""
    return lambda what, number: record_property(_KEY, [what, number, 0, number, 0.0, 0.0])


@pytest.fixture
def random(request: pytest.FixtureRequest) -> Random:
    """A generator seeded by the test's name; FAULTS_SEED makes other faults."""
    return Random(f"{request.node.name} {os.environ.get('FAULTS_SEED', 0)}")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    found: dict[str, list[list[Any]]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for key, value in getattr(report, "user_properties", ()) if getattr(report, "when", "") == "call" else ():
                if key == _KEY:
                    found.setdefault(value[0], []).append(value)
    if not found:
        return
    terminalreporter.section("faults")
    for what, rows in sorted(found.items()):
        total, read, refused = (sum(row[k] for row in rows) for k in (1, 2, 3))
        most = (
            f"slowest {max(row[4] for row in rows):.1f} s, at most {max(row[5] for row in rows):.0f} MB"
            if max(row[4] for row in rows)
            else ""
        )
        terminalreporter.write_line(f"faults: {total:,} {what}: {read:,} read, {refused:,} refused; {most}".rstrip("; "))
