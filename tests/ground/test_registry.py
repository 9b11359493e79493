"""Built-ins and entry points come in by the same door."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from biaskit.errors import BiaskitError
from biaskit.families import families


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
        "raises": "RuntimeError: their fault", "leaves": "SystemExit: 3", "half": "ImportError: half of it", "none": "is no Pruner",
        "hangs": "not imported within 1 s",
    }.items():  # fmt: skip
        assert any(f"{name!r}" in line and why in line and "left out" in line for line in done.stderr.splitlines()), (name, done.stderr)


def _path(extra):
    import os

    return {**os.environ, "PYTHONPATH": f"{extra}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
