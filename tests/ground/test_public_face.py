"""What `import biaskit` shows: real types, lazily; keywords that are checked; errors that say what to do in Python."""

from __future__ import annotations

import pickle
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

import biaskit
from biaskit.errors import BiaskitError, CalibrationError, ImageSkipped, in_python
from biaskit.registry import named_arguments

ROOT = Path(biaskit.__file__).parents[1]

TYPED = """
import biaskit
reveal_type(biaskit.calibrate)
reveal_type(biaskit.validate)
reveal_type(biaskit.Prior.load)
reveal_type(biaskit.select.top_k)
reveal_type(biaskit.testing.tiny_model)
biaskit.calibrat
biaskit.calibrate("llava-1.5", sample=3)
biaskit.validate("llava-1.5", "pope", ["none"], out="here", limt=3)
biaskit.heatmap("prior", layer=1)
biaskit.heatmap("prior", layers=1)
with biaskit.prune("llava-1.5", "fastv", priors="prior"):
    pass
biaskit.load_model("llava-1.5", dtyp="float32")
biaskit.open_source("coco", splitt="train2017")
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """Line of `TYPED` → what mypy says about it."""
    path = tmp_path_factory.mktemp("typed") / "caller.py"
    path.write_text(TYPED, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--config-file",
        str(ROOT / "pyproject.toml"),
        "--cache-dir",
        str(ROOT / ".mypy_cache"),
        str(path),
    ]
    found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={"MYPYPATH": str(ROOT), "PATH": ""})
    assert found.returncode == 1, found.stdout + found.stderr
    by_line: dict[str, str] = {}
    lines = TYPED.splitlines()
    for line in found.stdout.splitlines():
        if line.count(":") > 2 and "caller.py:" in line:
            number, text = line.split("caller.py:", 1)[1].split(":", 1)
            by_line[lines[int(number) - 1]] = by_line.get(lines[int(number) - 1], "") + text
    return by_line


def test_type_checkers_see_the_signatures(said):
    shown = said["reveal_type(biaskit.calibrate)"]
    assert "samples: int | None =" in shown and "per_head: bool =" in shown and shown.strip().endswith('biaskit.prior.value.Prior"')
    assert "limit: int | None =" in said["reveal_type(biaskit.validate)"]
    assert said["reveal_type(biaskit.Prior.load)"].strip().endswith('biaskit.prior.value.Prior"')
    assert "Tensor" in said["reveal_type(biaskit.select.top_k)"]
    assert "name: str" in said["reveal_type(biaskit.testing.tiny_model)"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("biaskit.calibrat", 'Module has no attribute "calibrat"'),
        ('biaskit.calibrate("llava-1.5", sample=3)', 'Unexpected keyword argument "sample"'),
        ('biaskit.validate("llava-1.5", "pope", ["none"], out="here", limt=3)', 'Unexpected keyword argument "limt"'),
        ('biaskit.heatmap("prior", layer=1)', 'Unexpected keyword argument "layer"'),
        ('with biaskit.prune("llava-1.5", "fastv", priors="prior"):', 'Unexpected keyword argument "priors"'),
        ('biaskit.load_model("llava-1.5", dtyp="float32")', 'Unexpected keyword argument "dtyp"'),
        ('biaskit.open_source("coco", splitt="train2017")', 'Unexpected keyword argument "splitt"'),
    ],
)
def test_type_checkers_find_misspelt_names(said, line, words):
    assert words in said[line]


def test_type_checkers_accept_natural_spellings(said):
    assert 'biaskit.heatmap("prior", layers=1)' not in said


@pytest.mark.parametrize(
    ("call", "message", "hint"),
    [
        (lambda: biaskit.calibrate("x", sample=3), "calibrate has no keyword 'sample'", "samples"),
        (lambda: biaskit.validate("x", "pope", ["none"], out="o", limt=3), "validate has no keyword 'limt'", "limit"),
        (lambda: biaskit.heatmap("x", layer=3), "heatmap has no keyword 'layer'", "layers"),
        (lambda: biaskit.prune("x", "fastv", priors="x"), "prune has no keyword 'priors'", "prior"),
        (lambda: biaskit.load_model("x", dtyp="float32"), "load_model has no keyword 'dtyp'", "dtype"),
        (lambda: biaskit.load_prior("x", hbu=True), "load_prior has no keyword 'hbu'", "hub"),
        (lambda: biaskit.open_source("x", splitt="x"), "open_source has no keyword 'splitt'", "split"),
        (lambda: biaskit.get_pruner("d2pruner", retension=0.1), "d2pruner has no parameter 'retension'", "retention"),
        (lambda: biaskit.get_pruner("d2pruner", preste="x", retention=0.1), "d2pruner has no parameter 'preste'", "preset"),
        (lambda: biaskit.bias_report("x", plane="image"), "bias_report has no keyword 'plane'", "planes"),
        (lambda: biaskit.validate("x", "pope", ["none"]), "validate: missing a required argument: 'out'", "out"),
        (lambda: biaskit.calibrate("x", samples="many"), "samples is 'many', not a whole number or None", "calibrate"),
        (lambda: biaskit.calibrate("x", force=1), "force is 1, not True or False", "calibrate"),
        (lambda: biaskit.calibrate("x", save_every="soon"), "save_every is 'soon', not a number", "calibrate"),
        (lambda: biaskit.calibrate("x", samples=True), "samples is True, not a whole number or None", "calibrate"),
    ],
)
def test_calls_that_do_not_fit_raise_our_error(call, message, hint):
    with pytest.raises(BiaskitError) as caught:
        call()
    assert caught.value.message == message
    assert hint in caught.value.hint


def test_named_arguments_pass_everything_that_fits():
    @named_arguments
    def add(a: int, *, b: float = 0.0, c: str | None = None, d: list[int] | None = None) -> tuple[object, ...]:
        return a, b, c, d

    import numpy as np

    assert add(np.int64(3), b=2, d=None) == (3, 2, None, None)
    assert add(a=1, b=np.float32(0.5), c="x", d=[1]) == (1, 0.5, "x", [1])
    assert add.__name__ == "add"


def loaded_after(code):
    script = f"import sys, biaskit; {code}; print(chr(10).join(sys.modules))"
    return set(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split())


def test_modules_are_attributes_after_a_bare_import():
    found = loaded_after("[getattr(biaskit, name) for name in ('select', 'testing', 'signals', 'pruners', 'families', 'tasks')]")
    assert {f"biaskit.{name}" for name in ("select", "testing", "signals", "pruners", "families", "tasks")} <= found
    assert "torch" not in loaded_after("dir(biaskit)")
    assert {"select", "testing", "calibrate", "wrap_model"} <= set(dir(biaskit))


def test_a_misspelt_attribute_gets_a_hint():
    with pytest.raises(AttributeError, match=r"module 'biaskit' has no attribute 'calibrat'; did you mean calibrate"):
        biaskit.calibrat  # noqa: B018
    assert not hasattr(biaskit, "__wrapped__")


def test_a_traceback_shows_the_hint_in_python_s_words():
    error = BiaskitError("prior.png exists", "choose another --out, or overwrite it with --force")
    shown = "".join(traceback.format_exception(error)).splitlines()
    assert shown[-2:] == ["biaskit.errors.BiaskitError: prior.png exists", "hint: choose another `out`, or overwrite it with force=True"]
    assert str(error) == error.message == "prior.png exists"
    assert error.hint == "choose another --out, or overwrite it with --force"  # as the command line prints it


@pytest.mark.parametrize(
    ("hint", "python"),
    [
        ("lower --samples, or give a larger source", "lower `samples`, or give a larger source"),
        ("go on with a smaller --batch-size", "go on with a smaller `batch_size`"),
        ("or calibrate with `--layers 4`", "or calibrate with `layers=4`"),
        ("choose layers it has, or --layers all", "choose layers it has, or layers='all'"),
        ("use --dtype bfloat16, or another --device", "use dtype='bfloat16', or another `device`"),
        ("give it: --prior FILE, or --prior NAME=FILE for +NAME", "give it: prior=FILE, or prior={'NAME': FILE} for +NAME"),
        ("run `biaskit calibrate --model …` for this one", "run `biaskit calibrate --model …` for this one"),
        ("keep each head's with --heads", "keep each head's with `per_head`"),
        ("run it with --force_simple", "run it with --force_simple"),  # another program's option
        ("a -- b, x--y, 1 -- 2", "a -- b, x--y, 1 -- 2"),
    ],
)
def test_hints_in_python(hint, python):
    assert in_python(hint) == python


@pytest.mark.parametrize("error", [CalibrationError("gone", "use --restart"), ImageSkipped("spoilt")])
def test_errors_survive_pickling_whole(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (again.message, again.hint, again.__notes__) == (error.message, error.hint, error.__notes__)
