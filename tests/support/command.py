"""`biaskit` as a user runs it: in a process of its own, or, where nothing of the process is tested, in this one, which starts at once."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from biaskit.cli.app import app
from biaskit.cli.console import run

ROOT = str(Path(__file__).parents[2])


class Done(NamedTuple):
    """How a command ended, as `subprocess.run` says it."""

    returncode: int
    stdout: str
    stderr: str


def environment(**more):
    """This process's environment without a local COCO, with this checkout first on the path."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BIASKIT_COCO")}
    clean["PYTHONPATH"] = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH")]))
    return {**clean, **more}


def biaskit_process(*words, cwd=None, **more):
    command = [sys.executable, "-m", "biaskit", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment(**more), timeout=300, check=False)


def biaskit(*words, cwd=None, **more):
    """Run a command in this process, without a local COCO, with more variables of the environment."""
    out, err = StringIO(), StringIO()
    kept, typed = dict(os.environ), sys.argv
    sys.argv = ["biaskit", *map(str, words)]
    for name in kept:
        if name.startswith("BIASKIT_COCO"):
            del os.environ[name]
    os.environ.update(more)
    try:
        with chdir(cwd or "."), redirect_stdout(out), redirect_stderr(err):
            run(app)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = typed
        os.environ.clear()
        os.environ.update(kept)
    return Done(code, out.getvalue(), err.getvalue())
