"""What the shell offers behind TAB, without importing what takes seconds."""

from __future__ import annotations

import subprocess
import sys

import pytest

from biaskit.cli import complete
from biaskit.families.checkpoints.catalog import CHECKPOINTS, EMBEDDED
from biaskit.images import sources
from biaskit.pruners import pruners
from biaskit.registry import written_names
from biaskit.tasks import tasks


@pytest.mark.parametrize(("package", "registry"), [("biaskit.pruners", pruners), ("biaskit.tasks", tasks), ("biaskit.images", sources)])
def test_names_in_the_source_are_those_of_the_registry(package, registry):
    assert {*registry.names()} == {*written_names(package)}


def test_what_is_offered(tmp_path, monkeypatch):
    assert complete.models("") == sorted([*EMBEDDED, *CHECKPOINTS])
    assert complete.models("demo") == ["demo", "demo-qwen"]
    assert complete.pruners("none,fastv,da") == ["none,fastv,dart"] and complete.pruner("da") == ["dart"]
    assert complete.tasks("pope,refcocog") == ["pope,refcocog"] and complete.sources("sce") == ["scenes", "scenes-empty", "scenes-photo"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "priors").mkdir()
    (tmp_path / "priors/mine.safetensors").touch()
    assert complete.priors("mi") == ["mine"]


def test_completion_is_light():
    code = (
        "import sys\nfrom biaskit.cli import complete as c\n"
        "for one in (c.models, c.priors, c.pruner, c.pruners, c.tasks, c.sources): one('')\n"
        "print([m for m in ('torch', 'transformers', 'matplotlib', 'rich.table') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
