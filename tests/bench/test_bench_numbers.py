"""What the benchmarks compute from their measurements."""

from __future__ import annotations

import json
import math
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from biaskit.bench import plan as plans
from biaskit.bench.clock import Clock, PeakMemory, Timing
from biaskit.bench.growth import exponent
from biaskit.bench.plan import Part, run
from biaskit.bench.table import table
from biaskit.errors import BiaskitError


@given(st.floats(0.2, 3), st.floats(0.01, 100))
def test_exponent_of_a_power_law(power, factor):
    sizes = [576, 1152, 2880, 5760, 10368, 20160]
    assert exponent(sizes, [factor * n**power for n in sizes]) == pytest.approx(power, rel=1e-9)


def test_exponent_looks_at_the_upper_half():
    sizes = [1, 2, 4, 8, 16, 32]
    assert exponent(sizes, [100, 100, 100, 8**2, 16**2, 32**2]) == pytest.approx(2)
    assert math.isnan(exponent([1, 2], [0, 3]))


def test_timing_is_median_and_quartiles():
    assert Timing.of([4.0, 1.0, 3.0, 2.0, 5.0]) == Timing(3.0, 2.0, 4.0, 1.0, 5)
    assert Timing.of([7.0]) == Timing(7.0, 7.0, 7.0, 7.0, 1)


def test_peak_memory_sees_what_was_freed_again():
    def work():
        held = torch.ones(64 << 20, dtype=torch.uint8)
        total = sum(int(held[i::97].sum()) for i in range(40))
        return bool(total)

    result, peak = PeakMemory(torch.device("cpu")).of(work)
    assert result and 60e6 < peak < 300e6


def test_clock_sums_repeated_marks():
    clock = Clock(torch.device("cpu"))
    clock.marks = {"a": [1.0, 5.0], "b": [1.5, 6.0]}
    assert clock.between("a", "b") == 1500
    assert clock.between("a", "never") == 0


def row(method, prefill, **more):
    timing = {"median": prefill, "low": prefill, "high": prefill}
    times = {"prefill_ms": timing, "first_token_ms": timing, "encode_ms": timing, "decision_ms": timing}
    return {
        "method": method, "retention": 0.112, "batch": 2, "times": times, "flops": {"fastv": 2.77e12}, "ceiling": {"fastv": 6.1},
        "cache_bytes": 100_000_000, "peak_bytes": None, **more,
    }  # fmt: skip


def test_table_shows_ratios_and_errors():
    whole = row("none", 100.0, cache_bytes=300_000_000, speedup={"prefill": 1.0}, of_ceiling=1.0, decision_share=0.0)
    pruned = row(
        "fastv", 20.0, speedup={"prefill": 5.0}, of_ceiling=5 / 6.1, decision_share=0.008, tower_flops=9e11, tower_reading_flops=1e10
    )
    lines = table([whole, pruned, {"method": "dart", "retention": 0.5, "batch": 2, "error": "out of memory"}]).splitlines()
    assert "fastv (11.2 %) | 2 | 10.0 ± 0.0 (5.00×) | – | 2.77 (6.10×) | 0.9 + 0.01 | 100 (3.00×)" in lines[3]
    assert "| 82 % |" in lines[3] and "| 0.80 % |" in lines[3]
    assert "out of memory" in lines[4] and len({line.count("|") for line in lines}) == 1


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """`biaskit bench` replaced by a script that succeeds, fails, hangs or runs out of memory, as it is told."""
    script = tmp_path / "fake.py"
    script.write_text(
        "import json, sys, time\n"
        "what = sys.argv[4]\n"
        "if what == 'fail': sys.exit('broken')\n"
        "if what == 'hang':\n"
        "    open(sys.argv[-1] + '/x.partial.jsonl', 'w').write('{\"row\": 1}\\n{\"row\": 2}\\n{\"ro')\n"
        "    time.sleep(60)\n"
        "command = 'biaskit ' + ' '.join(sys.argv[3:])\n"
        "open(sys.argv[-1] + '/x.md', 'w').write(f'`{command}`')\n"
        "print(json.dumps({'command': command, 'rows': [{'error': 'out of memory'}] if what == 'oom' else []}))\n"
    )
    real = plans.subprocess.run
    monkeypatch.setattr(plans.subprocess, "run", lambda words, **options: real([sys.executable, str(script), *words[1:]], **options))


def test_a_plan_goes_on_after_failures(fake, tmp_path):
    parts = [Part("one", ("fail",)), Part("two", ("hang", "fine"), 5.5), Part("three", ("oom", "fine")), Part("four", ("fine",))]
    failed = run("cpu", tmp_path / "out" / "x.json", minutes=5, parts=parts)
    assert failed == ["one", "two"]
    found = json.loads((tmp_path / "out" / "x.json").read_text())["parts"]
    assert found["one"]["error"] == "exit 1" and "broken" in found["one"]["stderr"]
    assert found["two"]["error"].startswith("stopped after"), "a smaller version is for what ran out of memory"
    assert found["two"]["rows"] == [{"row": 1}, {"row": 2}], "measured before it was stopped"
    assert found["three"]["arguments"] == "fine" and found["three"]["other_attempts"][0]["arguments"] == "oom"
    text = (tmp_path / "out" / "x.md").read_text()
    assert text.count("## ") == 4 and "`biaskit bench fine`" in text
    assert found["four"]["result"]["command"] == "biaskit bench fine"  # what a person would type
    with pytest.raises(BiaskitError, match="exists"):
        run("cpu", tmp_path / "out" / "x.json", minutes=5)
    assert run("cpu", tmp_path / "y.json", minutes=0.01, parts=parts[3:]) == ["four"]
    assert "left out" in (tmp_path / "y.json").read_text()


def test_unknown_plan(tmp_path):
    with pytest.raises(BiaskitError, match="unknown plan 'tpu'"):
        run("tpu", tmp_path / "x.json", minutes=1)
