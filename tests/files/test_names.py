"""Names from others become one part of a path, and stay apart."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from biaskit.files import file_part, of_system


@given(st.text(st.characters(codec=None), max_size=300))
@example(":.00000000*")
def test_any_text_is_one_visible_part_of_a_path(text):
    part = file_part(text)
    assert part
    assert len(part.encode()) <= 100
    assert os.path.basename(part) == part  # noqa: PTH119
    assert not part.startswith(".")
    assert not part.endswith((".", " "))
    assert all(letter.isalnum() or letter in "_.+-" or letter.isprintable() for letter in part)


@pytest.mark.parametrize("name", ["000000000139.jpg", "scenes-where", "d2pruner+prior", "a_b.c", "图片", "ä.png"])
def test_good_names_stay(name):
    assert file_part(name) == name


def test_what_is_lost_is_told_apart():
    odd = ["<b>", "(b)", "[b]", "b\0", "b\u202e", "b\n", ".b", "..b", "b.", "../b", "", ".", "..", "nul", "COM1.txt", "b" * 300, "b" * 301]
    parts = [file_part(text) for text in odd]
    assert len(set(parts)) == len(odd)
    assert not any(part.lower().startswith(("nul.", "com1.")) or part.lower() == "nul" for part in parts)
    assert file_part("b" * 300 + ".jpg").endswith(".jpg")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.ELOOP, errno.EROFS, errno.ENAMETOOLONG, errno.EFBIG])
def test_errors_of_the_system_say_what_to_do(number):
    for place in ("a.json", b"a.json"):
        found = of_system(OSError(number, os.strerror(number), place))
        assert found.message == f"a.json: {os.strerror(number)}"
        assert found.hint != of_system(OSError(9999, "?")).hint
    assert of_system(OSError(number, os.strerror(number))).message.startswith("standard output or a file: ")
