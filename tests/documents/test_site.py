"""The documentation site: everything public is in it, and every command of its pages is one. `make docs` builds it, in CI as well."""

from __future__ import annotations

import html
import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.main import get_command

import biaskit
from biaskit.cli.app import app
from biaskit.prior.bias.measures import MEASURES

ROOT = Path(__file__).parents[2]
COMMANDS = get_command(app)
BUILD = ROOT / "docs/site/build.py"


@pytest.fixture(scope="module")
def builder():
    spec = importlib.util.spec_from_file_location("site_build", BUILD)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_public_name_is_in_the_reference(builder):
    text = builder.api()
    for name in (*biaskit._PUBLIC, *biaskit._MODULES):
        assert f"## `biaskit.{name}`\n" in text
    assert "### `biaskit.select.relative_attention`\n" in text


def test_every_measure_is_explained():
    page = (ROOT / "docs/concepts.md").read_text(encoding="utf-8")
    assert all(f"\n| `{name}` | " in page for name in MEASURES)


def test_every_page_of_the_site_is_there_and_found_from_its_menu(builder, tmp_path):
    builder.stage(tmp_path)
    named = re.findall(r": (\S+\.md)$", (ROOT / "docs/site/mkdocs.yml").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert all((tmp_path / name).is_file() for name in named)
    guides = {f"docs/guides/{path.name}" for path in (ROOT / "docs/guides").glob("*.md")}
    assert guides | {"README.md", "docs/faq.md", "docs/concepts.md", "docs/commands.md", "docs/api.md", "docs/log.md"} <= {*named}


def test_a_site_without_a_command_an_option_or_a_name_is_refused(builder, tmp_path):
    """`make docs`, a step of .ci/run, builds the site strictly and then asks this."""
    source = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    for page, text in (("commands", source), ("api", builder.api())):
        (tmp_path / "docs" / page).mkdir(parents=True)
        (tmp_path / "docs" / page / "index.html").write_text(f"<p>{html.escape(text)}</p>", encoding="utf-8")
    assert builder.missing(tmp_path) == []
    for page, text in (("commands", source.replace("--retention", "")), ("api", builder.api().replace("load_prior", ""))):
        (tmp_path / "docs" / page / "index.html").write_text(f"<p>{html.escape(text)}</p>", encoding="utf-8")
    assert {*builder.missing(tmp_path)} == {"--retention", "biaskit.load_prior"}


def test_ci_builds_the_site():
    assert "make docs" in (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    assert "bash .ci/run" in (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")


def typed(page):
    """The commands of a page: those to type, and those it names in passing."""
    text = page.read_text(encoding="utf-8")
    blocks = "".join(re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)).replace("\\\n", " ")
    for line in re.findall(r"^\$ (.*)", blocks, flags=re.MULTILINE):
        words = shlex.split(line, comments=True)
        if "biaskit" in words and words[0] != "lmms-eval":
            yield words[words.index("biaskit") + 1 :], True
    for code in re.findall(r"`biaskit ([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        yield shlex.split(code.replace("…", "")), False


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "priors/README.md", *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "commands.md"], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_is_one(page):
    for words, whole in typed(page):
        command, inside = COMMANDS, []
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words[0]]
            inside.append(words.pop(0))
        try:
            command.make_context(" ".join(inside), words)
        except typer.Exit:
            pass
        except Exception as error:
            incomplete = type(error).__name__ in ("MissingParameter", "NoArgsIsHelpError") or "requires an argument" in str(error)
            assert incomplete and not whole, (inside, words, str(error))


def test_every_picture_is_shown_somewhere():
    """A picture of docs/ that no page shows is looked at by nobody."""
    shown = set()
    for page in PAGES:
        for link in re.findall(r"!\[[^\]]*\]\(([^)]+\.png)\)", page.read_text(encoding="utf-8")):
            shown.add((page.parent / link).resolve())
    assert sorted({path.resolve() for path in (ROOT / "docs").rglob("*.png")} - shown) == []
