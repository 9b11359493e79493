"""Reading a results folder, and all numbers of a report, load neither torch nor transformers, nor anything that draws."""

from __future__ import annotations

import subprocess
import sys

import pytest
from runs import KEPT, make_run

from biaskit.validation.results.read import read_run

MODELS = ("torch", "transformers")
HEAVY = (*MODELS, "PIL", "matplotlib", "seaborn", "pandas")
TWO = {name: KEPT[name] for name in ("fastv", "fastv+prior")}

READ = "import biaskit.validation.results; from biaskit.validation.results.read import read_run; run = read_run(Path(sys.argv[1]))"
FURTHER = {
    "read": READ,
    "continue": f"{READ}; import biaskit.validation.results.manifest, biaskit.validation.results.directory",
    "statistics": "import biaskit.validation.results.lines, biaskit.validation.statistics.resampling",
    "numbers": f"{READ}; from biaskit.validation.report.contents import Report; from biaskit.validation.report.analyse import Settings; "
    "report = Report.of(run, Settings(100, 100)); report.summary(); report.conclusion.text; import biaskit.validation.report.write",
}
WRITE = "biaskit.validation.report.write.write_report(report, Path(sys.argv[1]) / 'report', {formats})"
FURTHER["tables"] = f"{FURTHER['numbers']}; {WRITE.format(formats=('md', 'csv', 'tex', 'json'))}"
PAGE = f"{FURTHER['numbers']}; {WRITE.format(formats=('html',))}"


def loaded(names, code, folder):
    script = f"import sys; from pathlib import Path; {code}; print([name for name in {names} if name in sys.modules])"
    return subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("code", FURTHER.values(), ids=FURTHER)
def test_nothing_heavy_is_loaded(tmp_path, code):
    folder = make_run(tmp_path / "run", n=20, kept=TWO)
    assert loaded(HEAVY, code, folder) == "[]\n"


def test_a_written_report_has_loaded_no_model(tmp_path):
    """Its figures load matplotlib; PIL and pandas come with it."""
    folder = make_run(tmp_path / "run", n=20, kept=TWO)
    assert loaded((*MODELS, "matplotlib"), PAGE, folder) == "['matplotlib']\n"
    assert (folder / "report" / "index.html").is_file()


def test_a_folder_may_be_a_text(tmp_path):
    folder = make_run(tmp_path / "run", n=2, kept=TWO)
    assert [task.task for task in read_run(str(folder)).tasks] == [task.task for task in read_run(folder).tasks]
