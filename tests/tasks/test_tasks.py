"""What every task keeps: the contract, run over the registry; views, samples and break-downs; the scenes as their own evaluation scores."""

from __future__ import annotations

import ast
import json
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import boxes, wording
from PIL import Image

import biaskit
from biaskit.calibration.prompts import TASKS, read_prompts
from biaskit.errors import BiaskitError, TaskError
from biaskit.families import families
from biaskit.images.scenes.draw import draw_scene
from biaskit.images.scenes.held_out import NEW_TOKENS, question_about, summarise
from biaskit.tasks import Seen, Task, TaskView, breakdown, open_task, task_class, tasks
from biaskit.tasks.conventions import Wording
from biaskit.tasks.wording import ask_presence, read_wording

FAMILIES = ["llava", "llava_next", "llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl", "future"]
SCENE = Seen((168, 168), (168, 168), boxes=boxes("llava", "demo"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A file for every task that needs one, four questions each."""
    root = tmp_path_factory.mktemp("data")
    for k in range(2):
        Image.fromarray(draw_scene(1, k).pixels).save(root / f"{k}.png")
    rows = {
        "refcoco_val.jsonl": [{"image": f"{k % 2}.png", "sent": f"thing {k}", "bbox": [10 + k, 20, 60, 90 + k]} for k in range(4)],
        "pope.jsonl": [
            {"image": f"{k % 2}.png", "text": f"Is there a thing {k}?", "label": ("yes", "no")[k % 2], "subset": "random"} for k in range(4)
        ],
        "vqa.jsonl": [{"image": f"{k % 2}.png", "question": f"What is {k}?", "answer": f"thing {k}"} for k in range(4)],
    }
    for name in ("refcoco+", "refcocog"):
        rows[f"{name}_val.jsonl"] = rows["refcoco_val.jsonl"]
    for name, many in rows.items():
        (root / name).write_text("".join(json.dumps(row) + "\n" for row in many))
    return root


def opened(name, data):
    if name.startswith("scenes"):
        return open_task(name, n=4)
    return open_task(name, data / "vqa.jsonl" if name == "vqa" else data)


@pytest.mark.parametrize("name", [name for name, _ in tasks])
def test_contract(name, data):
    task, again = opened(name, data), opened(name, data)
    assert len(task) == 4 and task.fingerprint() == again.fingerprint() and len(task.fingerprint()) == 64
    assert task.name.split(":")[0] == name and task_class(task.name) is type(task) is tasks.get(name)
    assert task.max_new_tokens >= 1 and all((task.title, task.needs, task.dataset, type(task).__doc__))
    ids = [task.identify(i) for i in range(4)]
    assert len(set(ids)) == 4 and [task[i] for i in range(4)] == ids and task[-1] == ids[-1] and all(one.startswith(name) for one in ids)
    with pytest.raises(IndexError):
        task[4]
    shown = Seen((168, 168), (168, 168), boxes=boxes("qwen3_vl"))
    records = []
    for i in range(4):
        image = task.image(i)
        assert image.mode == "RGB" and np.array_equal(np.asarray(image), np.asarray(task.image(i)))
        assert task.image_name(i) == again.image_name(i) and not task.image_name(i).startswith("/")
        assert json.loads(json.dumps(task.truth(i))) == task.truth(i)
        assert all(isinstance(kind, str) and isinstance(value, str) for kind, value in task.tags(i).items())
        assert all(
            task.prompt(i, wording(kind)).strip() and task.prompt(i, wording(kind)) == again.prompt(i, wording(kind)) for kind in FAMILIES
        )
        region = task.region(i)
        assert region is None or (0 <= region[0] < region[2] <= 1 and 0 <= region[1] < region[3] <= 1)
        for answer in ("", "yes", "No.", "[100, 200, 300, 400]", "<loc01> <loc02> <loc30> <loc40>", "\ud800", "x" * 5000):
            scores = task.score(i, answer, shown)
            assert set(scores) == set(task.score(0, "", shown)) and {task.metric, "parsed"} <= set(scores) and scores["parsed"] in (0, 1)
            assert all(isinstance(value, float) and 0 <= value <= 1 and math.isfinite(value) for value in scores.values())
            records.append({"scores": scores, "tags": task.tags(i)})
    found = type(task).summarise(records)
    assert found["n"] == len(records) and {task.metric, "parsed"} <= set(found)
    assert found[task.metric] == pytest.approx(np.mean([record["scores"][task.metric] for record in records]))
    assert task.summarise([]) == {"n": 0}
    for values in breakdown(task, records).values():
        assert sum(one["n"] for one in values.values()) <= len(records)


@pytest.mark.parametrize("name", ["refcoco", "pope", "scenes-presence"])
def test_views(name, data):
    task = opened(name, data)
    view = task[1:][::-1][:2]
    assert isinstance(view, TaskView) and len(view) == 2 and [view[0], view[1]] == [task[3], task[2]]
    assert view.name == task.name and view.metric == task.metric and view.max_new_tokens == task.max_new_tokens
    assert view.truth(0) == task.truth(3) and view.tags(1) == task.tags(2) and view.region(0) == task.region(3)
    assert view.prompt(0, wording("llava")) == task.prompt(3, wording("llava")) and view.image_name(0) == task.image_name(3)
    assert np.array_equal(np.asarray(view.image(0)), np.asarray(task.image(3)))
    assert view.score(0, "yes", SCENE) == task.score(3, "yes", SCENE)
    assert view.fingerprint() != task.fingerprint() == task[:].fingerprint()
    records = [{"scores": view.score(i, "yes", SCENE), "tags": {}} for i in range(2)]
    assert view.summarise(records) == task.summarise(records) == view[:1].summarise(records)


def test_samples_grow():
    task = open_task("scenes-where", n=50)
    small, large = task.sample(5, seed=3), task.sample(20, seed=3)
    assert [large[i] for i in range(5)] == [small[i] for i in range(5)], "a larger sample only adds"
    assert len({large[i] for i in range(20)}) == 20 and [task.sample(5, seed=4)[i] for i in range(5)] != [small[i] for i in range(5)]
    assert task.sample(None) is task.sample(50) is task.sample(99) is task and len(task.sample(0)) == 0
    assert task.sample(5, seed=3).fingerprint() == small.fingerprint()


def test_breakdown():
    """Means by value of each tag, records without it left out, values in order."""
    records = [
        {"scores": {"iou50": 1.0, "iou": 0.75}, "tags": {"row": "top"}},
        {"scores": {"iou50": 0.0, "iou": 0.25}, "tags": {"row": "top", "size": "small"}},
        {"scores": {"iou50": 1.0, "iou": 1.0}, "tags": {"row": "bottom"}}, {"scores": {"iou50": 1.0, "iou": 0.5}, "tags": {}},
    ]  # fmt: skip
    assert breakdown(task_class("refcoco:val"), records) == {
        "row": {"bottom": {"n": 1, "iou50": 1, "iou": 1}, "top": {"n": 2, "iou50": 0.5, "iou": 0.5}},
        "size": {"small": {"n": 1, "iou50": 0, "iou": 0.25}},
    }
    assert list(breakdown(task_class("refcoco"), records)["row"]) == ["bottom", "top"]


def test_breakdown_has_the_scores_of_its_task():
    task = open_task("scenes-presence", n=6)
    records = [{"scores": task.score(i, "yes", SCENE), "tags": task.tags(i)} for i in range(6)]
    found = breakdown(task, records)["truth"]
    assert (
        found["yes"]["f1"] == 1 and found["no"]["f1"] == 0 and found["no"]["yes_share"] == 1 and found["yes"]["n"] == found["no"]["n"] == 3
    )


def loc(*places):
    return " ".join(f"<loc{place:02d}>" for place in places)


place = st.integers(0, 47)
answers = st.one_of(
    st.tuples(place, place, place, place).map(lambda v: loc(min(v[0], v[2]), min(v[1], v[3]), max(v[0], v[2]), max(v[1], v[3]))),
    st.tuples(place, place, place).map(lambda v: loc(*v)),
    st.sampled_from(["yes", "no", "yes red", "no circle", "red", "circle", "<loc10>", "", "large", "is the", "no . yes", "yes no"]),
)


@pytest.mark.parametrize("placement", ["uniform", "photo"])
@pytest.mark.parametrize("kind", ["where", "presence", "attribute"])
def test_scenes_score_as_the_held_out_questions(kind, placement):
    """Same questions, same images, and the same numbers as the embedded model's own evaluation, for right, wrong and broken answers."""

    task = open_task(f"scenes-{kind}:{placement}", n=40)
    scenes = [draw_scene(9000, i, placement) for i in range(40)]
    questions = [question_about(scene.things, kind, 9000, i) for i, scene in enumerate(scenes)]
    assert [task.prompt(i, wording("llava", "demo")) for i in range(40)] == [question.text for question in questions]
    assert task.max_new_tokens == NEW_TOKENS[kind] and np.array_equal(np.asarray(task.image(7)), scenes[7].pixels)
    right = [task.score(i, question.answer, SCENE)[task.metric] for i, question in enumerate(questions)]
    assert sum(right) >= (36 if kind == "where" else 40), "location words are 3.5 pixels wide"

    @settings(max_examples=25)
    @given(st.lists(answers, min_size=40, max_size=40), st.lists(st.booleans(), min_size=40, max_size=40))
    def check(said, keep):
        said = [questions[i].answer if keep[i] else text for i, text in enumerate(said)]
        theirs = summarise(kind, questions, said)
        ours = task.summarise([{"scores": task.score(i, text, SCENE)} for i, text in enumerate(said)])
        names = {"iou50" if kind == "where" else "correct": "accuracy", "iou": "miou", "f1": "f1", "yes_share": "said_yes"}
        compared = {mine: ours[mine] for mine in names if mine in ours}
        assert compared == pytest.approx({mine: theirs[names[mine]] for mine in compared})
        assert len(compared) == {"where": 2, "presence": 3, "attribute": 1}[kind]

    check()


def test_scenes_arguments():
    assert open_task("scenes-where").name == "scenes-where" and len(open_task("scenes-where")) == 1000
    task = open_task("scenes-where:photo:seed=9001", n=3)
    assert task.name == "scenes-where:photo:seed=9001" and open_task(task.name, n=3).fingerprint() == task.fingerprint()
    assert task[2] == "scenes-where:photo:seed=9001/2" and task.image_name(2) == "scene-photo-9001-000002"
    assert len({open_task(spec, n=3).fingerprint() for spec in ("scenes-where", "scenes-where:photo", "scenes-where:seed=9001")}) == 3
    assert set(task.tags(0)) == {"size", "row", "ring", "things"}
    for spec, says in {
        "scenes-where:empty": "no placement 'empty'", "scenes-where:seed=3": "cannot take seed=3",
        "scenes-where:seed=x": "cannot take seed=x",
        "scenes-where:n=3": "cannot take n=3", "scenes-where:": "empty argument", "scenes-wher": "unknown task 'scenes-wher'",
    }.items():  # fmt: skip
        with pytest.raises(BiaskitError, match=says):
            open_task(spec)
    with pytest.raises(TaskError, match="takes no data"):
        open_task("scenes-where", "somewhere")
    with pytest.raises(TaskError, match="cannot have 0 questions"):
        open_task("scenes-where", n=0)


def test_published_wording():
    common = "Please provide the bounding box coordinate of the region this sentence describes: "
    said = {
        "llava": f"{common}the dog",
        "llava_next": f"{common}the dog",
        "llava_onevision": f"{common}the dog",
        "future": f"{common}the dog",
        "qwen2_vl": f"{common}the dog",
        "qwen2_5_vl": "Locate the dog in this image and output the bbox coordinates in JSON format.",
        "qwen3_vl": 'Locate every object that matches the description "the dog" in the image. Report bbox coordinates in JSON format.',
        "internvl": f"{common}<ref>the dog</ref>",
    }
    assert {kind: wording(kind).ask_region("the dog") for kind in FAMILIES} == said
    for kind, base in (("llava", "demo"), ("qwen2_5_vl", "demo-qwen")):
        assert wording(kind, base).ask_region("red circle") == "where is the red circle ?"
        assert wording(kind, base).ask_short("is it ?") == wording(kind, base).ask_yes_no("is it ?") == "is it ?"
    assert wording("qwen3_vl").ask_region("{0} {x}").count("{0} {x}") == 1, "braces of an expression stay"
    short = "Answer the question using a single word or phrase."
    assert {kind: wording(kind).ask_short("Is it?") for kind in FAMILIES} == {
        kind: f"Is it? {short}" if kind == "internvl" else f"Is it?\n{short}" for kind in FAMILIES
    }
    assert {kind: wording(kind).ask_yes_no("Is it?") for kind in FAMILIES} == {
        kind: f"Is it?\n{short} " if kind == "internvl" else f"Is it?\n{short}" for kind in FAMILIES
    }, "InternVL's evaluation reads LLaVA's lines, newline and all, and adds a blank"
    assert [ask_presence(thing) for thing in ("dog", "apple")] == ["Is there a dog in the image?", "Is there an apple in the image?"]


def test_a_template_of_its_own_has_a_source_of_its_own():
    """A family that replaces a template says where it was published."""
    default = Wording()
    for name, family in families:
        for template, text in family.wording.templates().items():
            source = getattr(family.wording, f"{template}_source")
            assert source and (text == getattr(default, template) or source != getattr(default, f"{template}_source")), (name, template)


def test_a_file_replaces_some_templates(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"region": 'Find "{}" as {"box": []}.'}), encoding="utf-8")
    found = read_wording(path, wording("internvl"))
    assert found.ask_region("the {} dog") == 'Find "the {} dog" as {"box": []}.' and found.region_source == "given by the user: mine.json"
    assert found.templates() == {**wording("internvl").templates(), "region": 'Find "{}" as {"box": []}.'}


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('{"regoin": "{}"}', "has 'regoin'", "region"),
        ('{"region": "where"}', "region in .* is 'where'", "one {}"),
        ('{"short": "{} {}"}', "short in .* is '{} {}'", "one {}"),
        ('{"short": 3}', "short in .* is 3", "one {}"),
        ("{}", "names no question", '{"region"'),
        ("[]", "names no question", '{"region"'),
        ("where is {}?", "is not JSON", '{"region"'),
    ],
)
def test_a_wording_of_another_form_is_refused(tmp_path, text, message, hint):
    (tmp_path / "mine.json").write_text(text, encoding="utf-8")
    with pytest.raises(TaskError, match=message) as caught:
        read_wording(tmp_path / "mine.json", Wording())
    assert hint in caught.value.hint
    with pytest.raises(TaskError, match="cannot be read"):
        read_wording(tmp_path / "missing.json", Wording())


@pytest.mark.parametrize("kind", FAMILIES)
def test_calibration_asks_in_the_same_words_as_validation(kind, data):
    """The prompts of `task:NAME` are what the task would ask a model of that family, to the letter."""
    assert set(TASKS) <= {name for name, _ in tasks}, "what a prior can be calibrated for can be validated"
    refcoco, pope = open_task("refcoco", data), open_task("pope", data)
    asked = refcoco.prompt(0, wording(kind)).replace(refcoco.expressions[0].text, "the person on the left")
    assert read_prompts(["task:refcoco"], wording(kind))[0] == asked
    asked = pope.prompt(0, wording(kind)).replace("Is there a thing 0?", "Is there a person in the image?")
    assert read_prompts(["task:pope"], wording(kind))[0] == asked


def strings(tree):
    """Constants of a module, docstrings left out, and every name in it."""
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef)
    told = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, owners) and isinstance(node.body[0], ast.Expr)}
    for before, after in (pair for node in ast.walk(tree) if isinstance(node, owners) for pair in pairwise(node.body)):
        if isinstance(before, ast.Assign | ast.AnnAssign) and isinstance(after, ast.Expr):
            told.add(id(after.value))  # what stands below a constant
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.value
        elif isinstance(node, ast.Name | ast.Attribute | ast.arg | ast.keyword):
            yield str(node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else node.arg)


def test_tasks_and_images_know_nothing_of_models():
    package = Path(biaskit.__file__).parent
    words = {"model_type", *(name.split("_")[0] for name, _ in families), "qwen"}
    for folder in ("tasks", "images"):
        for path in (package / folder).rglob("*.py"):
            texts = strings(ast.parse(path.read_text(encoding="utf-8")))
            found = {text for text in texts if any(word in text.lower() for word in words) and not text.endswith(".jsonl")}  # data files
            assert not found, f"{path}: {sorted(found)}"


def test_importing_tasks_is_light():
    heavy = "('torch', 'transformers', 'pycocotools', 'pyarrow')"
    code = f"import sys, biaskit.tasks; list(biaskit.tasks.tasks); print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_task_of_somebody_else(monkeypatch):
    """It comes in by its entry point, and is then as good as a built-in one."""

    class Point:
        name, value = "theirs", "their_tasks.theirs"

        def load(self):
            base = task_class("scenes-presence")

            @tasks.register("theirs")
            class Theirs(base):
                """Theirs."""

                def prompt(self, i, wording):
                    return f"Theirs: {super().prompt(i, wording)}"

    groups = []
    monkeypatch.setattr("biaskit.registry.entry_points", lambda group: groups.append(group) or [Point()])
    for name, value in (("_loaded", False), ("_items", dict(tasks._items)), ("_classes", dict(tasks._classes))):
        monkeypatch.setattr(tasks, name, value)
    assert open_task("theirs:photo", n=2).prompt(0, wording("llava")).startswith("Theirs: is there a ") and groups == ["biaskit.tasks"]


def test_tasks_are_abstract():
    with pytest.raises(TypeError, match="abstract"):
        Task()
