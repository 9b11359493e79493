"""A text, a file, a task."""

from __future__ import annotations

import pytest

from biaskit.calibration.prompts import PROMPT, TASKS, read_prompts
from biaskit.errors import BiaskitError


def test_texts_files_and_tasks_are_joined_in_order(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("What is it?\n\n  Who is it?  \n", encoding="utf-8")
    found = read_prompts(["first", str(path), "task:pope"])
    assert found[:3] == ("first", "What is it?", "Who is it?")
    assert "Is there an umbrella in the image?\nAnswer the question using a single word or phrase." in found[3:]
    assert read_prompts([]) == (PROMPT,)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_gives_different_questions_and_the_same_ones_again(task):
    found = read_prompts([f"task:{task}"])
    assert len(set(found)) > 20 and all(text.strip() for text in found)
    assert found == read_prompts([f"task:{task}"])


def test_grounding_questions_have_the_published_wording():
    assert all(
        text.startswith("Please provide the bounding box coordinate of the region this sentence describes: the ")
        for text in read_prompts(["task:refcoco"])
    )
    assert all(text.startswith("where is the ") for text in read_prompts(["task:scenes-where"]))


def test_wrong_words(tmp_path):
    with pytest.raises(BiaskitError, match="unknown task 'refcoc'") as caught:
        read_prompts(["task:refcoc"])
    assert "refcoco" in caught.value.hint
    with pytest.raises(BiaskitError, match="a prompt is empty"):
        read_prompts([" "])
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(BiaskitError, match="has no prompt"):
        read_prompts([str(tmp_path / "empty")])
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(BiaskitError, match="cannot read the prompts"):
        read_prompts([str(tmp_path / "binary")])
