"""Yes or no, and short answers: every score against something that was not written from it."""

from __future__ import annotations

import re
from functools import cache

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from biaskit.tasks.answers import METRICS, anls, edit_distance, exact, normalise, relaxed, vqa_accuracy
from biaskit.tasks.contractions import CONTRACTIONS
from biaskit.tasks.yes_no import read_yes, score_yes, summarise_yes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Yes", True), ("no", False), ("yes.", True), (" No, there is not.", False), ("Yes, there is no doubt about it.", True),
        ("There is a dog in the image.", True), ("There is no dog.", False), ("There isn't a dog", False), ("There isn’t a dog", False),
        ("The image does not show a dog. Yes.", False), ("NO", False), ("YES!", True), ("**Yes**", True), ("Answer: yes", True),
        ("The answer is no", False), ("Yes\nNo", True), ("", None), ("...", None), ("maybe", None), ("a dog", None), ("1", None),
        ("Nope", False), ("I know", None), ("Noon", None), ("yesterday", None), ("None.", False),
    ],
)  # fmt: skip
def test_yes_or_no(text, says):
    assert read_yes(text) is says


@given(st.text(max_size=60))
def test_yes_or_no_of_anything(text):
    assert read_yes(text) in (True, False, None)
    first = re.match(r"\W*(yes|no)\b", text.lower())
    if first:
        assert read_yes(text) is (first[1] == "yes")


def records(pairs):
    return [{"scores": score_yes({True: "Yes", False: "no", None: "a dog"}[said], true)} for said, true in pairs]


def test_pope_by_hand():
    """3 right yeses, 1 wrong yes, 2 missed, 3 right noes, 1 unread: precision 3/4, recall 3/6 (the unread one was a yes), accuracy 6/10."""
    pairs = [(True, True)] * 3 + [(True, False)] + [(False, True)] * 2 + [(False, False)] * 3 + [(None, True)]
    assert summarise_yes(records(pairs)) == pytest.approx(
        {"n": 10, "correct": 0.6, "precision": 0.75, "recall": 0.5, "f1": 0.6, "yes_share": 0.4, "parsed": 0.9}
    )


@given(st.lists(st.tuples(st.sampled_from([True, False, None]), st.booleans()), max_size=40))
@example([])
@example([(False, False)])
@example([(None, False)])
def test_pope_by_counting(pairs):
    """F1 as the harmonic mean of precision and recall, from the four cells."""
    found = summarise_yes(records(pairs))
    assert found["n"] == len(pairs)
    if not pairs:
        return
    tp = sum(said is True and true for said, true in pairs)
    fp = sum(said is True and not true for said, true in pairs)
    fn = sum(said is not True and true for said, true in pairs)
    tn = sum(said is False and not true for said, true in pairs)
    precision, recall = tp / (tp + fp) if tp + fp else 0, tp / (tp + fn) if tp + fn else 0
    assert found["precision"] == pytest.approx(precision) and found["recall"] == pytest.approx(recall)
    assert found["f1"] == pytest.approx(2 * precision * recall / (precision + recall) if precision + recall else 0)
    assert found["correct"] == pytest.approx((tp + tn) / len(pairs))
    assert found["yes_share"] == pytest.approx((tp + fp) / len(pairs))


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("The dog", "dog"), ("a  cat", "cat"), ("Two", "2"), ("ten dogs", "10 dogs"), ("none", "0"), ("dont", "don't"),
        ("couldnt've", "couldn't've"), ("it's", "it's"), ("red, white", "red white"), ("red,white", "red white"), ("1,000", "1000"),
        ("1,000 a-b", "1000 ab"),
        ("3.14", "3.14"), ("yes.", "yes"), ("u.s.", "us"), ("what?", "what"), ("a/b", "b"), ("t-shirt", "t shirt"),
        ("t - shirt", "t shirt"), ("YES", "yes"),
        ("line\nbreak\ttab", "line break tab"), ("an", ""), ("", ""), (" (left) ", "left"), ('"stop"', "stop"), ("10:30", "10:30"),
        ("$5", "$5"),
    ],
)  # fmt: skip
def test_normalise_by_hand(text, plain):
    """Worked out from the rules of the official evaluation (the last letter of "a/b" stays: its "a" is an article)."""
    assert normalise(text) == plain


def test_contractions():
    """Spot checks of the official table; its upper-case entries can never match, for words are compared in lower case."""
    some = {
        "aint": "ain't",
        "hed've": "he'd've",
        "he'dve": "he'd've",
        "oclock": "o'clock",
        "twas": "'twas",
        "yall": "y'all",
        "maam": "ma'am",
    }
    assert some.items() <= CONTRACTIONS.items()
    assert CONTRACTIONS["ow's'at"] == CONTRACTIONS["'ows'at"] == CONTRACTIONS["'ow'sat"] == "'ow's'at"
    assert not {"well", "were", "its", "shed", "wed", "ill", "hell"} & set(CONTRACTIONS), "words of their own"
    assert all(
        key.count("'") == word.count("'") - 1 and key.replace("'", "") == word.replace("'", "") for key, word in CONTRACTIONS.items()
    )


def oracle_vqa(answer, truths):
    """The published formula as a loop: leave one annotator out, count who of the others agrees, a third each up to 1."""
    scores = []
    for left_out in range(len(truths)):
        agreeing = 0
        for other in range(len(truths)):
            if other != left_out and truths[other] == answer:
                agreeing += 1
        scores.append(min(1, agreeing / 3))
    return sum(scores) / len(scores)


words = st.sampled_from(["red", "blue", "two dogs", "left"])


@given(words, st.lists(words, min_size=4, max_size=12))
@example("red", ["red"] * 3 + ["blue"] * 7)
@example("red", ["red"] * 10)
@example("red", ["blue"] * 10)
def test_vqa_accuracy(answer, truths):
    assert vqa_accuracy(answer, truths) == pytest.approx(oracle_vqa(answer.replace("two", "2"), [t.replace("two", "2") for t in truths]))
    assert vqa_accuracy(f"The {answer.upper()}.", truths) == vqa_accuracy(answer, truths)


def test_vqa_accuracy_by_hand():
    """10 annotators: 1 agrees → (9·1/3 + 0)/10 = 0.3; 2 → (8·2/3 + 2·1/3)/10 = 0.6; 3 → (7·1 + 3·2/3)/10 = 0.9; 4 → 1."""
    for agreeing, score in enumerate((0, 0.3, 0.6, 0.9, 1.0, 1.0)):
        assert vqa_accuracy("cat", ["cat"] * agreeing + ["dog"] * (10 - agreeing)) == pytest.approx(score)
    assert vqa_accuracy("cat", ["Cat."]) == 1 and vqa_accuracy("cat", ["cat", "dog", "cow"]) == 1 and vqa_accuracy("cat", ["dog"]) == 0


def oracle_distance(one, other):
    """Levenshtein by the recursion of its definition."""

    @cache
    def distance(i, j):
        if i == 0 or j == 0:
            return i + j
        if one[i - 1] == other[j - 1]:
            return distance(i - 1, j - 1)
        return 1 + min(distance(i - 1, j), distance(i, j - 1), distance(i - 1, j - 1))

    return distance(len(one), len(other))


letters = st.text("abc ", max_size=9)


@given(letters, letters)
def test_edit_distance(one, other):
    assert edit_distance(one, other) == edit_distance(other, one) == oracle_distance(one, other)


@given(letters, st.lists(letters, min_size=1, max_size=4))
def test_anls(answer, truths):
    said = " ".join(answer.split())
    best = 0
    for truth in truths:
        true = " ".join(truth.split())
        nl = oracle_distance(said, true) / max(len(said), len(true), 1)
        best = max(best, 1 - nl if nl < 0.5 else 0)
    assert anls(answer.upper(), truths) == pytest.approx(best)


def test_anls_by_hand():
    assert anls("Coca Cola", ["coca cola", "coca cola company"]) == 1
    assert anls("coca cole", ["coca cola"]) == pytest.approx(8 / 9)
    assert anls("abcd", ["abxy"]) == 0, "half is too far"
    assert anls("abcde", ["abcxy"]) == pytest.approx(0.6)
    assert anls("x" * 50_000, ["x"]) == 0


@pytest.mark.parametrize(
    ("answer", "truth", "right"),
    [
        ("10", "10", 1), ("10.5", "10", 1), ("10.51", "10", 0), ("9.5", "10", 1), ("9.49", "10", 0), ("-10.5", "-10", 1),
        ("10", "-10", 0),
        ("50%", "0.5", 1), ("52.5 %", "50%", 1), ("53%", "50%", 0), ("50", "50%", 0), ("1,000", "1000", 1), ("$1,040", "1000", 1),
        ("0", "0", 1),
        ("0.0", "0", 0), ("yes", "Yes", 1), ("yes.", "Yes", 1), ("no", "yes", 0), ("2019", "2019", 1), ("", "5", 0), ("five", "5", 0),
        ("10 dogs", "10", 0), ("1e1", "10", 1), ("nan", "1", 0), ("inf", "1", 0), ("10.", "10", 1),
    ],
)  # fmt: skip
def test_relaxed(answer, truth, right):
    assert relaxed(answer, [truth]) == right
    assert relaxed(answer, ["unlike", truth]) == right


@given(st.floats(0.01, 1e6), st.floats(-0.2, 0.2))
def test_relaxed_is_five_percent(true, off):
    if abs(abs(off) - 0.05) > 1e-6:
        assert relaxed(f"{true * (1 + off):.12f}", [f"{true:.12f}"]) == (abs(off) < 0.05)


@given(st.text(max_size=40), st.lists(st.text(max_size=20), min_size=1, max_size=5))
def test_every_metric_is_a_share(answer, truths):
    for metric in METRICS.values():
        assert 0 <= metric(answer, truths) <= 1
        assert metric(truths[0], truths[:1]) == 1
    assert exact(answer, truths) <= max(vqa_accuracy(answer, truths[:3]), exact(answer, truths[3:]) if truths[3:] else 0)
