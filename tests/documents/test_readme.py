"""The README is short, true to the code, and everything in it runs as printed; so does the Python of the guides."""

from __future__ import annotations

import inspect
import re
import shlex
import shutil
from pathlib import Path

import pytest
from pages import PAGES, filled
from PIL import Image
from typer.testing import CliRunner

from biaskit import errors
from biaskit.cli.app import app
from biaskit.families.checkpoints.catalog import CHECKPOINTS
from biaskit.images.generated import GeneratedSource

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDES = sorted((ROOT / "docs/guides").glob("*.md"))
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "priors/README.md", *(ROOT / "docs").rglob("*.md")])


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_it_is_one_screen_and_a_half():
    prose = re.sub(r"```.*?```|<!--.*?-->|^\|.*?$|\]\([^)]*\)", "", README, flags=re.DOTALL | re.MULTILINE)
    words = re.findall(r"[A-Za-z][\w²’'.-]*", prose)
    assert len(words) <= 400
    assert len(README.splitlines()) <= 100


def test_the_commands_run_as_printed(tmp_path, monkeypatch):
    make, use = blocks(README, "console")
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {line.split()[2] for line in make.splitlines()} == {"demo", "test"} <= {*targets}
    monkeypatch.chdir(tmp_path)
    for line in use.splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        if words[0] == "biaskit":
            done = CliRunner().invoke(app, words[1:])
            assert done.exit_code == 0, (line, done.output, done.exception)
        else:
            assert words == ["pip", "install", "."]
    assert Path("priors/demo.safetensors").is_file() and Image.open("demo-heatmap.png").width > 500


def test_the_python_runs_as_printed(checkpoint, tmp_path, monkeypatch, capsys):
    (code,) = blocks(README, "python")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(checkpoint("llava-1.5"), "llava-hf/llava-1.5-7b-hf")  # a directory of that name wins over the hub
    GeneratedSource(1, 0).load(0).save("photo.jpg")
    words = ["calibrate", "--model", "llava-hf/llava-1.5-7b-hf", "--data", "generated", "-n", "4", "--workers", "0"]
    assert CliRunner().invoke(app, [*words, "--out", "priors/llava-1.5.safetensors"]).exit_code == 0
    made = {}
    exec(code, made)
    sample = made["pruning"].samples[0]
    assert len(sample) == round(sample.n_visual * 0.1)
    assert capsys.readouterr().out.endswith(f"{len(sample)} of {sample.n_visual} visual tokens\n")


@pytest.mark.parametrize(
    "path", [path for path in GUIDES if blocks(path.read_text(encoding="utf-8"), "python")], ids=lambda path: path.stem
)
def test_the_python_of_a_guide_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for code in blocks(path.read_text(encoding="utf-8"), "python"):
        exec(code, {})


@pytest.mark.parametrize("page", PAGES)
def test_generated_tables_are_those_of_the_code(page):
    assert filled(ROOT / page) == (ROOT / page).read_text(encoding="utf-8"), "run make pages"


def test_short_names_in_the_table():
    page = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w.-]+)`", "\n".join(line for line in page.splitlines() if line.startswith("|"))))
    assert named == set(CHECKPOINTS)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_link_is_dead(path):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:|#", target):
            place = path.parent / target.partition("#")[0].replace("%20", " ")
            assert place.exists(), target


def test_every_kind_of_error_has_an_entry():
    page = (ROOT / "docs/faq.md").read_text(encoding="utf-8")
    kinds = [name for name, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, errors.BiaskitError)]
    assert len(kinds) >= 8 and all(f"\n## {name}\n" in page for name in kinds)
