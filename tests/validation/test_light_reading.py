"""Reading a results folder, and all numbers of a report, load neither torch nor transformers, nor anything that draws."""

from __future__ import annotations

import subprocess
import sys

import pytest
from runs import KEPT, make_run

HEAVY = ("torch", "transformers", "PIL", "matplotlib", "seaborn", "pandas")
TWO = {name: KEPT[name] for name in ("fastv", "fastv+prior")}

READ = "import biaskit.validation.results; from biaskit.validation.results.read import read_run; run = read_run(Path(sys.argv[1]))"
FURTHER = {
    "read": READ,
    "continue": f"{READ}; import biaskit.validation.results.manifest, biaskit.validation.results.directory",
    "statistics": "import biaskit.validation.results.lines, biaskit.validation.statistics.resampling",
    "numbers": f"{READ}; from biaskit.validation.report.contents import Report; from biaskit.validation.report.analyse import Settings; "
    "report = Report.of(run, Settings(100, 100)); report.summary(); report.conclusion.text; import biaskit.validation.report.write",
}


@pytest.mark.parametrize("code", FURTHER.values(), ids=FURTHER)
def test_nothing_heavy_is_loaded(tmp_path, code):
    folder = make_run(tmp_path / "run", n=20, kept=TWO)
    script = f"import sys; from pathlib import Path; {code}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
