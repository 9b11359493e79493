"""Questions about scenes: their answers are true, "no" is as frequent as "yes", and every word is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biaskit.demo.training.packing import IGNORE, SLOT, pack, prompt_ids
from biaskit.grid import overlap
from biaskit.images.scenes.draw import COLOUR_NAMES, EDGE, SHAPES, SIZES, Thing, draw_scene, things_of
from biaskit.images.scenes.held_out import interval, iou_of, question_about, summarise
from biaskit.images.scenes.questions import KINDS, Question, ask, presence
from biaskit.images.scenes.vocabulary import ID, WORDS, box_text, ids_of, read_box


def fitting(things: tuple[Thing, ...], phrase: str) -> list[int]:
    """Oracle: read a phrase word by word and return the things it fits."""
    found = list(range(len(things)))
    for word in phrase.split():
        for column, names in enumerate((SIZES, COLOUR_NAMES, SHAPES)):
            if word in names:
                found = [i for i in found if things[i].key[column] == names.index(word)]
    return found


@given(st.integers(0, 10_000), st.integers(0, 1000), st.sampled_from(["uniform", "photo"]))
@settings(max_examples=150, deadline=None)
def test_answers_are_true(seed: int, index: int, placement: str) -> None:
    things = things_of(seed, index, placement)
    rng = np.random.default_rng([seed, index])
    for kind in KINDS:
        question = ask(rng, things, kind)
        assert ids_of(f"{question.text} {question.answer}")
        found = fitting(things, question.phrase)
        if kind == "presence":
            assert (question.answer == "yes") == bool(found)
            assert question.target == (found[0] if len(found) == 1 else -1)
        elif kind != "describe":
            assert found == [question.target]
            thing = things[question.target]
            assert question.target in question.related
            if question.kind == "where":
                assert question.box == thing.box
                assert question.answer == box_text(thing.box)
            else:
                assert question.answer == (COLOUR_NAMES[thing.colour] if "colour" in question.text else SHAPES[thing.shape])
                assert question.answer not in question.phrase


def test_related_shares_a_named_colour_or_shape() -> None:
    rng = np.random.default_rng(0)
    for index in range(50):
        things = things_of(0, index)
        question = ask(rng, things, "where")
        words = set(question.phrase.split()) - set(SIZES) - {"object"}
        named = {i for i, thing in enumerate(things) if {COLOUR_NAMES[thing.colour], SHAPES[thing.shape]} & words}
        if words:
            assert set(question.related) == named


def test_presence_is_balanced_and_adversarial() -> None:
    rng = np.random.default_rng(1)
    asked = [presence(rng, things_of(0, i % 200), adversarial=1.0) for i in range(1000)]
    assert abs(np.mean([q.answer == "yes" for q in asked]) - 0.5) < 0.05
    hard = 0
    negatives = [(i, q) for i, q in enumerate(asked) if q.answer == "no"]
    for i, question in negatives:
        things = things_of(0, i % 200)
        hard += all(fitting(things, word) for word in question.phrase.split())
    assert hard / len(negatives) > 0.97


def test_held_out_questions_are_exactly_balanced_and_of_their_task() -> None:
    for task in ("where", "presence", "attribute"):
        asked = [question_about(things_of(9000, i), task, 9000, i) for i in range(200)]
        assert {q.kind for q in asked} == {task}
    answers = [question_about(things_of(9000, i), "presence", 9000, i).answer for i in range(200)]
    assert answers == ["yes", "no"] * 100
    assert question_about(things_of(9000, 7), "where", 9000, 7) == question_about(things_of(9000, 7), "where", 9000, 7)


@given(st.tuples(st.floats(0, EDGE / 2), st.floats(0, EDGE / 2), st.floats(1, EDGE / 2), st.floats(1, EDGE / 2)))
def test_boxes_as_words_are_off_by_half_a_bin_at_most(numbers: tuple[float, float, float, float]) -> None:
    x, y, wide, high = numbers
    box = (x, y, x + wide, y + high)
    read = read_box(box_text(box))
    assert read is not None
    assert max(abs(a - b) for a, b in zip(read, box, strict=True)) <= EDGE / 48 / 2 + 1e-6


@pytest.mark.parametrize(
    "text", ["", "yes", "<loc01> <loc02> <loc03>", "<loc01> <loc02> <loc03> <loc48>", "red <loc01> <loc02> <loc03> <loc04>"]
)
def test_what_is_no_box(text: str) -> None:
    assert read_box(text) is None


def test_overlap_by_hand() -> None:
    assert overlap((0, 0, 2, 2), (1, 1, 3, 3)) == pytest.approx(1 / 7)
    assert overlap((0, 0, 2, 2), (0, 0, 2, 2)) == 1
    assert overlap((0, 0, 1, 1), (2, 2, 3, 3)) == 0
    assert overlap((2, 2, 0, 0), (0, 0, 2, 2)) == 0


def test_scores_by_hand() -> None:
    yes, no = (Question("presence", "is there a ring ?", word) for word in ("yes", "no"))
    scores = summarise("presence", [yes, yes, no, no], ["yes", "no", "yes", "no"])
    assert (scores["accuracy"], scores["f1"], scores["said_yes"]) == (0.5, 0.5, 0.5)
    where = Question("where", "where is the ring ?", box_text((10, 10, 40, 40)), box=(10, 10, 40, 40))
    assert iou_of("no", where) == 0
    assert summarise("where", [where, where], [where.answer, "<loc40> <loc40> <loc44> <loc44>"])["accuracy"] == 0.5
    assert interval(0.5, 1000) == pytest.approx(0.0309, abs=1e-3)


def test_packing_asks_for_the_token_that_follows() -> None:
    scene = draw_scene(0, 3)
    rng = np.random.default_rng(0)
    questions = [[ask(rng, scene.things) for _ in range(40)]]
    packed = pack(questions, scene.owner.reshape(1, -1))
    for slot, question in enumerate(questions[0]):
        ids, labels = packed.ids[0, slot].tolist(), packed.labels[0, slot].tolist()
        n = int(packed.lengths[0, slot])
        assert ids[:n] == prompt_ids(question.text)
        asked = [label for label in labels if label != IGNORE]
        truth = [*ids_of(question.answer), ID["</s>"]]
        assert asked == truth[: len(asked)]
        assert len(asked) >= len(truth) - 1
        assert labels[n - 1] == truth[0]
        assert all(ids[i + 1] == label for i, label in enumerate(labels[:-1]) if label not in (IGNORE, ID["</s>"]))
    image, slot, position = packed.asked
    assert (packed.labels[image, slot, position] != IGNORE).all()
    assert (packed.ids[image, slot, position] == ID["assistant:"]).all()
    assert packed.target.any(1).sum() > 10
    assert len(WORDS) == len(ID)
    assert packed.ids.shape[-1] == SLOT
