"""Build the documentation site: `python docs/site/build.py OUT`. Offline; a dead link, a missing name or a broken page ends it.

The pages are the Markdown files of the repository where they are: they are copied into a staging folder with everything they link to, so
that a link is right here and on the site. Only the reference of the API is made.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "CITATION.cff",
    "LICENSE",
    "docs",
    "priors/README.md",
    "priors/index.json",
    "notebooks",
)
LINK = re.compile(r"\]\(([^)\s#]+)")


def stage(folder: Path) -> None:
    """Copy the pages and all that they link to, and write the reference."""
    for name in PAGES:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("site"))
        else:
            shutil.copy(source, target)
    todo = list(folder.rglob("*.md"))
    while todo:
        page = todo.pop()
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            if re.match(r"[a-z]+:", link):
                continue
            place = Path(os.path.normpath(page.parent.relative_to(folder) / link.replace("%20", " ")))
            source, target = ROOT / place, folder / place
            if source.is_file() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
                todo += [target] if target.suffix == ".md" else []
    (folder / "docs/api.md").write_text(api(), encoding="utf-8")


def api() -> str:
    """The reference: every public name of biaskit, and what its public modules export."""
    import biaskit

    lines = ["# Python", ""]
    for name, module in sorted(biaskit._PUBLIC.items()):
        lines += [f"## `biaskit.{name}`", "", f"::: biaskit.{module}.{name}", "    options:", "      show_root_heading: false", ""]
    for module in biaskit._MODULES:
        lines += [f"## `biaskit.{module}`", "", f"::: biaskit.{module}", "    options:", "      show_root_heading: false", ""]
        for name in getattr(getattr(biaskit, module), "__all__", ()):
            value = getattr(getattr(biaskit, module), name)
            home = getattr(value, "__module__", "")
            if home.startswith("biaskit.") and hasattr(value, "__qualname__"):
                lines += [f"### `biaskit.{module}.{name}`", "", f"::: {home}.{value.__qualname__}", "    options:",
                          "      show_root_heading: false", ""]  # fmt: skip
    return "\n".join(lines)


def build(out: Path) -> int:
    """Build the site, strictly; return mkdocs' exit code."""
    with tempfile.TemporaryDirectory() as folder:
        stage(Path(folder))
        config = ROOT / "docs/site/mkdocs.yml"
        settings = Path(folder).with_suffix(".yml")
        settings.write_text(f"INHERIT: {config}\ndocs_dir: {folder}\nsite_dir: {out.resolve()}\n", encoding="utf-8")
        try:
            return subprocess.run(
                [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-f", str(settings)], check=False
            ).returncode
        finally:
            settings.unlink()


if __name__ == "__main__":
    sys.exit(build(Path(sys.argv[1])))
