"""Text from others is shown and never acted upon: by a terminal, a spreadsheet, a page, a JSON reader."""

from __future__ import annotations

import ast
import csv
import html
import io
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

import biaskit
from biaskit.text import for_csv, for_html, for_json, for_markdown, lines, visible

CLI = Path(biaskit.__file__).parent / "cli"
ANY = st.text(st.characters(codec=None), max_size=60)
HOSTILE = st.text(st.sampled_from("=+-@\t\r\n\0\x1b\x7f\x9b\u200e\u202e\u2066\u2028\ud800<>&\"'[]()!*_`#|\\~1. a"), max_size=30)
TEXT = ANY | HOSTILE


@given(TEXT)
def test_a_terminal_gets_nothing_that_steers_it(text):
    shown = visible(text)
    assert not re.search("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", shown)
    shown.encode("utf-8")
    assert lines(text).count("\n") == text.count("\n")


@pytest.mark.parametrize("text", ["日本語　全角", "één, naïve", "\u0915\u094d\u200d\u0937", "a\u00a0b", "👩\u200d👧"])
def test_what_people_write_stays(text):
    assert visible(text) == text


@given(TEXT)
def test_json_says_the_same_and_is_plain(text):
    made = for_json({"a": [text, 1, None, True]}, 1)
    assert json.loads(made) == {"a": [text, 1, None, True]}
    assert made == lines(made)


def test_json_has_no_numbers_that_json_does_not_have():
    assert json.loads(for_json([float("nan"), float("inf"), -float("inf"), 1e308, (1.5,)])) == [None, None, None, 1e308, [1.5]]


@given(TEXT)
def test_a_spreadsheet_gets_no_formula(text):
    out = io.StringIO()
    csv.writer(out).writerow([for_csv(text)])
    cell = next(csv.reader(io.StringIO(out.getvalue(), newline="")))[0]
    started = cell.lstrip()[:1]
    assert started not in "=+-@" or not started or re.fullmatch(r"\s*[+-][\d_.einfatyEINFATY+-]+\s*", cell)


def test_numbers_stay_numbers():
    assert [for_csv(value) for value in (-0.5, 3, None, "-0.5", "+1", "1e-3")] == [-0.5, 3, None, "-0.5", "+1", "1e-3"]
    assert for_csv("-2+cmd|' /C calc'!A0") == "'-2+cmd|' /C calc'!A0"


@given(TEXT)
@settings(max_examples=300)
def test_markdown_shows_the_text_and_nothing_else(text):
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(f"{for_markdown(text)}\n")
    assert [token.type for token in tokens] in ([], ["paragraph_open", "inline", "paragraph_close"])
    parts = [part for token in tokens for part in token.children or []]
    assert {part.type for part in parts} <= {"text", "text_special"}
    assert "".join(part.content for part in parts).split() == visible(text.replace("\n", " ")).split()


@given(TEXT)
def test_html_shows_the_text(text):
    made = for_html(text)
    assert not re.search("[<>\"']", made)
    assert html.unescape(made) == lines(text)


@pytest.mark.parametrize("path", sorted(CLI.glob("*.py")), ids=lambda path: path.name)
def test_commands_print_through_one_module(path):
    """`console` escapes what others wrote; whatever prints besides it does not."""
    if path.name == "console.py":
        return
    calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)}
    assert not {name for name in calls if name in ("print", "Console") or name.endswith(("typer.echo", "secho", ".print", "stdout.write"))}
