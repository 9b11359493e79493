"""Who may import whom, and what importing costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import biaskit

PACKAGE = Path(biaskit.__file__).parent

LEVELS = {
    "0": ["__init__", "errors", "registry", "grid", "correlation", "prior_format", "array_file", "answer_lines", "transfer"],
    "1": [
        *("prior", "jackknife", "measures", "signals", "select", "prior_layout", "selector_file", "kept"),
        *("resampling", "significance", "flops"),
    ],
    "2a": ["images", "store", "exchange", "pruners", "tasks"],
    "2b": [
        *("families", "attention", "moments", "ranks"),
        *("hooks", "masks", "narrowing", "prompt", "deepstack", "encoded", "limits", "repeats"),
    ],
    "3": ["feed", "resume", "calibration", "prompts", "bias", "verdict", "apply", "decisions"],
    "4": [
        *("plots", "panels", "figure_layout", "figure_file", "overlay", "side_by_side"),
        *("selections", "studies", "demo", "testing", "contracts", "validation", "report", "lmms", "bench"),
    ],
    "5": ["cli", "__main__"],
}
LEVEL = {name: level for level, names in LEVELS.items() for name in names}
# the embedded model's scenes and questions are data, its training is an application
LEVEL |= {f"demo.{name}": "2a" for name in ("scenes", "questions", "vocabulary", "scene_source", "scene_files", "held_out", "pictures")}


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def unit(path):
    return place([part.removesuffix(".py") for part in path.relative_to(PACKAGE).parts])


def place(parts):
    """The unit with a level that a module (its names below biaskit) belongs to."""
    return ".".join(parts[:2]) if ".".join(parts[:2]) in LEVEL else parts[0]


def imports(path):
    """Every module that a file names, wherever the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_every_module_has_a_level():
    assert {unit(path) for path in modules()} == set(LEVEL)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_imports_a_higher_level(path):
    mine = LEVEL[unit(path)]
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "biaskit" and len(parts) > 1 and place(parts[1:]) in LEVEL:
            theirs = LEVEL[place(parts[1:])]
            assert theirs[0] <= mine[0], f"{path.name} (level {mine}) imports {name} (level {theirs})"
            assert {mine, theirs} != {"2a", "2b"}, f"{path.name} imports {name}: 2a and 2b stay apart"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_mathematics_and_data_do_without_transformers(path):
    if LEVEL[unit(path)] in ("0", "1", "2a") and unit(path) != "demo.vocabulary":  # it builds the tokenizer
        assert not [name for name in imports(path) if name.split(".")[0] == "transformers"]


@pytest.mark.parametrize("path", sorted((PACKAGE / "families").glob("*.py")), ids=lambda path: path.name)
def test_families_do_not_import_their_siblings(path):
    plugins = {"llava", "llava_next", "llava_onevision", "qwen_vl", "internvl"}
    if path.stem in plugins:
        siblings = {f"biaskit.families.{name}" for name in plugins - {path.stem}}
        assert not siblings & set(imports(path))


def test_tasks_do_not_import_their_siblings():
    plugins = {"grounding", "pope", "vqa", "scenes"}
    for name in plugins:
        siblings = {f"biaskit.tasks.{other}" for other in plugins - {name}}
        assert not siblings & set(imports(PACKAGE / "tasks" / f"{name}.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_is_one_thought(path):
    assert path.read_text(encoding="utf-8").count("\n") <= 300
    assert path.stem not in {"utils", "common", "helpers", "core", "misc"}


def loaded_by(code):
    script = f"import sys; {code}; print(chr(10).join(sys.modules))"
    return set(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize("code", ["import biaskit", "import biaskit; dir(biaskit); biaskit.BiaskitError", "import biaskit.cli.app"])
def test_imports_are_light(code):
    heavy = {"torch", "transformers", "matplotlib", "seaborn", "pycocotools", "PIL", "huggingface_hub", "accelerate"}
    assert not heavy & loaded_by(code)


def test_reading_a_prior_loads_no_torch():
    assert not {"torch", "transformers", "matplotlib"} & loaded_by("import biaskit; biaskit.load_prior; biaskit.Prior; biaskit.bias_report")


def test_public_names_exist_and_stay_what_they_are():
    """A module of the same name would take a function's place once it is imported."""
    names = {path.stem for path in PACKAGE.iterdir()} - {"__init__"}
    assert not names & set(biaskit.__all__)
    for name in biaskit.__all__:
        assert getattr(biaskit, name) is getattr(biaskit, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'callibrate'"):
        biaskit.callibrate  # noqa: B018
