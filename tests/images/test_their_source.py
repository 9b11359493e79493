"""An image source of somebody else's: one file, found by its entry point and used by name."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

MODULE = """
from PIL import Image

from biaskit.images import SourceRequest, ImageSource, sources

@sources.register("stripes", "stripes-tall")
class Stripes(ImageSource):
    name = "stripes"

    def __init__(self, n, tall):
        self.n, self.tall = n, tall

    @classmethod
    def named(cls, asked: SourceRequest):
        return cls(asked.n or 3, asked.name.endswith("tall"))

    def __len__(self):
        return self.n

    def identify(self, index):
        return f"stripes-{index}"

    def open(self, index):
        raise NotImplementedError

    def load(self, index):
        return Image.new("RGB", (40, 80) if self.tall else (80, 40), (index, 0, 0))
"""


@pytest.fixture
def installed(tmp_path):
    (tmp_path / "their_stripes.py").write_text(textwrap.dedent(MODULE))
    info = tmp_path / "their_stripes-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-stripes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[biaskit.images]\nstripes = their_stripes\n")
    return {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


def run(code, environment):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment).stdout.strip()


def test_it_is_opened_by_name_and_offered_in_hints(installed):
    code = """
from biaskit.errors import BiaskitError
from biaskit.images import open_source
source = open_source("stripes-tall", n=5)
print(len(source), source[4].size, source.identify(2), len(open_source("stripes")), len(open_source("generated", n=2)))
try:
    open_source("strpes")
except BiaskitError as error:
    print(error.hint)
"""
    assert run(code, installed).splitlines() == ["5 (40, 80) stripes-2 3 2", "did you mean stripes or stripes-tall?"]


def test_the_registry_loads_no_plug_in_before_it_is_asked():
    names = "('biaskit.images.coco', 'biaskit.images.generated', 'pycocotools')"
    code = f"import sys, biaskit.images; print([name for name in {names} if name in sys.modules])"
    assert run(code, dict(os.environ)) == "[]"
