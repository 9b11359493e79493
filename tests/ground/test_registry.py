"""Built-ins and entry points come in by the same door."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading

import pytest

from biaskit.errors import BiaskitError
from biaskit.families import families
from biaskit.registry import Registry


def test_unknown_names_offer_the_nearest():
    with pytest.raises(BiaskitError, match="unknown model family 'llava_nxt'") as caught:
        families.get("llava_nxt")
    assert "llava_next" in caught.value.hint


def test_a_name_cannot_be_taken_twice():
    with pytest.raises(ValueError, match="already Llava"):

        @families.register("llava")
        class Impostor:
            pass


def test_plug_ins_come_in_by_entry_point(tmp_path):
    """A package of somebody else's announces a family, and a broken one does not take the toolkit down."""
    (tmp_path / "their_family.py").write_text(
        textwrap.dedent(
            """
            from biaskit.families import families
            from biaskit.families.llava import Llava

            @families.register("their_llava")
            class Theirs(Llava):
                title = "Theirs"
            """
        )
    )
    info = tmp_path / "their_family-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-family\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[biaskit.families]\ntheirs = their_family\nbroken = no_such_module\n")
    code = "from biaskit.families import families; print(families.get('their_llava').title, 'llava' in families)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_path(tmp_path))
    assert done.stdout.strip() == "Theirs True"
    assert "'broken' (no_such_module) failed to load" in done.stderr


@pytest.fixture
def package(tmp_path, monkeypatch, request):
    """A package of two built-ins, the second of which begins with some code; and its registry."""
    name = f"house_{abs(hash(request.node.name))}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("from biaskit.registry import Registry\nthings = Registry('thing', __name__)\ntold = []\n")
    for module, code in {"first": "", "second": request.param}.items():
        head = f"from {name} import things, told\n@things.register('{module}')\nclass Thing: pass\n"
        (tmp_path / name / f"{module}.py").write_text(head + textwrap.dedent(code))
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__(name)
    for module in [module for module in sys.modules if module.startswith(name)]:
        del sys.modules[module]


FIRST_TIME = "told.append(1)\nif len(told) == 1: raise {}('the first time')\n"


@pytest.mark.parametrize("package", [FIRST_TIME.format("KeyboardInterrupt"), FIRST_TIME.format("ImportError")], indirect=True)
def test_an_interrupt_on_first_use_is_made_good_by_the_second(package):
    things: Registry = package.things
    with pytest.raises((KeyboardInterrupt, ImportError)):
        things.names()
    assert things.names() == ["first", "second"]
    assert len(package.told) == 2


@pytest.mark.parametrize("package", ["import time\ntime.sleep(0.5)\n"], indirect=True)
def test_a_second_thread_waits_for_all_of_it(package):
    found: list[list[str]] = []
    threads = [threading.Thread(target=lambda: found.append(package.things.names())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == [["first", "second"]] * 3


@pytest.mark.parametrize("package", ["told.append(sorted(things._items) and things.names())\n"], indirect=True)
def test_a_built_in_may_ask_while_it_is_imported(package):
    assert package.things.names() == ["first", "second"]
    assert package.told == [["first", "second"]]


BROKEN = {
    "raises": "raise RuntimeError('their fault')",
    "leaves": "import sys; sys.exit(3)",
    "half": """
        from biaskit.pruners import Pruner, pruners

        @pruners.register("half")
        class Half(Pruner):
            \"\"\"Registered before the module fails.\"\"\"
        raise ImportError("half of it")
    """,
    "none": """
        from biaskit.pruners import pruners

        @pruners.register("none_at_all")
        class NoPruner:
            pass
    """,
    "hangs": "import time; time.sleep(3600)",
}


def test_broken_plug_ins_are_named_and_left_out(tmp_path):
    """One that raises, one that exits, one that fails half-way, one that is no pruner and one that hangs: the others are listed."""
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[biaskit.pruners]\n" + "".join(f"{name} = their_{name}\n" for name in BROKEN))
    for name, code in BROKEN.items():
        (tmp_path / f"their_{name}.py").write_text(textwrap.dedent(code))
    code = "import biaskit.registry; biaskit.registry.PATIENCE = 1.0; from biaskit.cli.app import app; app(['pruners', 'list', '--json'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_path(tmp_path), timeout=60)
    assert done.returncode == 0, done.stderr
    listed = done.stdout
    assert '"fastv"' in listed
    assert '"half"' not in listed
    assert "none_at_all" not in listed
    for name, why in {
        "raises": "RuntimeError: their fault", "leaves": "SystemExit: 3", "half": "ImportError: half of it", "none": "is not a Pruner",
        "hangs": "not imported within 1 s",
    }.items():  # fmt: skip
        assert any(f"{name!r}" in line and why in line and "left out" in line for line in done.stderr.splitlines()), (name, done.stderr)


def _path(extra):
    import os

    return {**os.environ, "PYTHONPATH": f"{extra}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
