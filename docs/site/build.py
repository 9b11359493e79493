"""Build the documentation site: `python docs/site/build.py OUT`. Offline; a dead link, a missing name or a broken page ends it.

The pages are the Markdown files of the repository where they are: they are copied into a staging folder with everything they link to, so
that a link is right here and on the site. Only the reference of the API is made.
"""

from __future__ import annotations

import html
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


def missing(site: Path) -> list[str]:
    """The commands, options and public names that a built site has not, in the order of their pages."""
    import biaskit

    def words(page: str) -> str:
        return html.unescape(re.sub(r"<[^>]*>", "", (site / page / "index.html").read_text(encoding="utf-8")))

    commands, reference = words("docs/commands"), words("docs/api")
    source = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    wanted = re.findall(r"^## `([^`]+)`", source, flags=re.MULTILINE)
    options = re.findall(r"^\* `(-[^`]+)`: ", source, flags=re.MULTILINE)
    wanted += [name for option in options for name in re.findall(r"(?<!\S)--?[a-z][a-z-]*", option)]
    names = [f"biaskit.{name}" for name in (*biaskit._PUBLIC, *biaskit._MODULES)]
    return [word for word in wanted if word not in commands] + [name for name in names if name not in reference]


def build(out: Path) -> int:
    """Build the site, strictly; return mkdocs' exit code, or 1 where something public is not in it."""
    with tempfile.TemporaryDirectory() as folder:
        stage(Path(folder))
        settings = Path(folder).with_suffix(".yml")
        config = ROOT / "docs/site/mkdocs.yml"
        settings.write_text(f"INHERIT: {config}\ndocs_dir: {folder}\nsite_dir: {out.resolve()}\n", encoding="utf-8")
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-f", str(settings)]
        try:
            code = subprocess.run(command, check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}).returncode
        finally:
            settings.unlink()
    lacking = [] if code else missing(out)
    if lacking:
        print(f"not in the site: {', '.join(lacking)}", file=sys.stderr)
    return code or int(bool(lacking))


if __name__ == "__main__":
    sys.exit(build(Path(sys.argv[1])))
