"""The house: which folder stands on which, how much a folder and a file may hold, and what importing costs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import biaskit

PACKAGE = Path(biaskit.__file__).parent

# From the ground up. A module imports from storeys below its own; within a storey only what BESIDE allows.
STOREYS = [
    ["errors", "text", "registry", "grid", "files", "device", "display"],
    ["prior", "select"],
    ["images", "tasks", "families", "pruners"],
    ["calibration", "engine", "figures"],
    ["validation", "bench", "demo"],
    ["cli"],
]
BESIDE = {
    "registry": {"errors"},
    "files": {"errors"},
    "display": {"text"},
    "tasks": {"images"},
    "families": {"tasks"},
    "calibration": {"engine"},
}
FACES = {"__init__", "__main__", "signals", "testing"}  # hold no code: they name what stands elsewhere
PLUGINS = ["families", "images", "pruners", "tasks"]
WITHOUT_TRANSFORMERS = {*STOREYS[0], *STOREYS[1], "images", "tasks", "pruners", "figures"}
STOREY = {name: height for height, names in enumerate(STOREYS) for name in names}

MODULES = sorted(PACKAGE.rglob("*.py"))
FOLDERS, FILES = 14, 8
LINES, LINES_OF_A_FUNCTION = 300, 60


def dotted(path):
    return ".".join(["biaskit", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")


NAMES = {dotted(path) for path in MODULES}


def room(name):
    """The folder or ground file of a module."""
    return name.split(".")[1] if "." in name else "__init__"


@cache
def imports(path):
    """Every module that a file names, wherever the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def ours(path):
    """The modules of the package that a file imports, without its own."""
    return {name for name in imports(path) & NAMES if name not in ("biaskit", dotted(path))}


def named(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: str(path.relative_to(PACKAGE)))


def test_the_root_stays_small():
    inside = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len([path for path in inside if path.is_dir() and not path.name.startswith("_")]) <= FOLDERS
    assert len([path for path in inside if path.suffix == ".py" and path.stem not in ("__init__", "__main__")]) <= FILES


def test_every_folder_has_a_storey():
    assert {room(name) for name in NAMES} == set(STOREY) | FACES


@named(MODULES)
def test_imports_run_downwards(path):
    mine = room(dotted(path))
    for name in ours(path) if mine not in FACES else ():
        theirs = room(name)
        fine = theirs == mine or theirs in BESIDE.get(mine, ()) or STOREY.get(theirs, 99) < STOREY[mine]
        assert fine, f"{dotted(path)} ({mine}) imports {name} ({theirs})"


@named([path for path in MODULES if path.name != "__init__.py" or path.parent != PACKAGE])
def test_nothing_inside_imports_the_face(path):
    """`biaskit` itself names what stands below it: importing from it would run upwards."""
    assert "biaskit" not in imports(path)


def test_there_are_no_circles():
    arrows = {dotted(path): ours(path) for path in MODULES if dotted(path) != "biaskit"}
    while free := {name for name, targets in arrows.items() if not targets & set(arrows)}:
        for name in free:
            del arrows[name]
    assert not arrows, f"modules that import one another in a circle, or lead to one: {sorted(arrows)}"


@named([path for path in MODULES if room(dotted(path)) in WITHOUT_TRANSFORMERS])
def test_data_and_mathematics_do_without_transformers(path):
    drawn = dotted(path) == "biaskit.images.scenes.vocabulary"  # it builds the embedded models' tokenizer
    assert drawn or not [name for name in imports(path) if name.split(".")[0] == "transformers"]


@named(MODULES)
def test_figures_leave_pyplot_alone(path):
    """Its backend and its open figures belong to the caller: ours are `matplotlib.figure.Figure`, drawn in `figures.style.house_style`."""
    assert "matplotlib.pyplot" not in imports(path)


def test_a_notebook_shows_every_figure():
    """Only a `ShownFigure` is shown where it is the value of a cell."""
    plain = [
        str(path.relative_to(PACKAGE))
        for path in MODULES
        if re.search(r"(?<!\w)Figure\((?!\))[^)]", path.read_text(encoding="utf-8").replace("class ShownFigure(Figure)", ""))
    ]
    assert plain == []


@pytest.mark.parametrize("kind", PLUGINS)
def test_plug_ins_do_not_import_their_siblings(kind):
    """A module that registers something is a plug-in; its base may be shared, another plug-in not."""
    made = [path for path in (PACKAGE / kind).glob("*.py") if ".register(" in path.read_text(encoding="utf-8")]
    siblings = {dotted(path) for path in made}
    for path in made:
        assert not (siblings - {dotted(path)}) & imports(path), path.name


@named(MODULES)
def test_a_file_is_one_thought(path):
    assert path.read_text(encoding="utf-8").count("\n") <= LINES
    assert path.stem not in {"utils", "common", "helpers", "core", "misc"}


@named(MODULES)
def test_a_function_fits_a_screen(path):
    """A command's signature apart: it is the documentation of its options."""
    command = room(dotted(path)) == "cli"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            start = node.body[0].lineno if command else node.lineno
            assert node.end_lineno - start < LINES_OF_A_FUNCTION, f"{path.name}: {node.name}"


@named([path for path in MODULES if path.name == "__init__.py"])
def test_every_folder_says_what_lives_there(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_the_tests_stand_where_the_package_s_folders_do():
    tests = {path.name for path in Path(__file__).parent.iterdir() if path.is_dir() and path.name != "__pycache__"}
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert folders <= tests
    assert tests - folders == {"ground", "support", "golden", "documents", "gpu", "lmms", "faults"}


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
