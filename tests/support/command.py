"""`biaskit` as a user runs it: a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = str(Path(__file__).parents[2])


def environment(**more):
    """This process's environment without a local COCO, with this checkout first on the path."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BIASKIT_COCO")}
    clean["PYTHONPATH"] = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH")]))
    return {**clean, **more}


def biaskit(*words, cwd=None, **more):
    command = [sys.executable, "-m", "biaskit", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment(**more), timeout=300, check=False)
