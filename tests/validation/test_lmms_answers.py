"""What the model for lmms-eval does, without lmms-eval: requests in, batches through stock generate() under pruning, answers out."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from reference import Anywhere, Top, model_of, picture, positions_left

from biaskit import prune
from biaskit.engine.reference import reference_logits
from biaskit.errors import BiaskitError, SourceError
from biaskit.families.checkpoints.load import Loaded
from biaskit.families.checkpoints.tiny import TINY
from biaskit.images.scenes.draw import draw_scene
from biaskit.images.scenes.held_out import question_about
from biaskit.validation.lmms.answers import Answers, Request
from biaskit.validation.lmms.conversation import from_messages, from_visuals
from biaskit.validation.lmms.options import cut, read_options
from biaskit.validation.lmms.settings import PrunedModel, open_model

TEXTS = ("what is in these two?", "hi", "describe the picture, please", "say hello", "and this?")
IMAGES = ([picture(224, 224, 1), picture(300, 150, 2)], [], [picture(150, 300, 3)], [], [picture(64, 64, 4)])


def opened(name, pruner=None):
    return PrunedModel(Loaded(*model_of(name), name, "test"), pruner, None)


def requests(options, rows=(0, 1, 2, 3, 4)):
    return [Request(f"request {i}", lambda i=i: from_visuals(TEXTS[i], IMAGES[i]), options) for i in rows]


def alone(name, row, pruner, n_new):
    """One answer the plain way: the family's own preparation where there is an image, the tokenizer where there is none."""
    model, processor, family = model_of(name)
    if IMAGES[row]:
        inputs = family.prepare(processor, model.config, [IMAGES[row]], [TEXTS[row]]).inputs
    else:
        turns = [{"role": "user", "content": [{"type": "text", "text": TEXTS[row]}]}]
        inputs = dict(processor.tokenizer(processor.apply_chat_template(turns, add_generation_prompt=True), return_tensors="pt"))
        inputs.pop("token_type_ids", None)
    inputs = {key: value.to(model.dtype) if value.is_floating_point() else value for key, value in inputs.items()}
    with torch.inference_mode(), prune(model, pruner):
        output = model.generate(**inputs, max_new_tokens=n_new, do_sample=False)
    return processor.tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("name", TINY)
def test_mixed_batches_answer_as_each_alone(name):
    """Several images, one, and none, in one batch, in their order."""
    pruner = Top(layer=3, budget=4)
    answers = Answers(opened(name, pruner), 3, 0, pytest.fail)
    done = []
    found = answers.answer(requests(read_options({"max_new_tokens": 4, "temperature": 0})), done.append)
    assert found == [alone(name, row, pruner, 4) for row in range(len(TEXTS))]
    assert sum(done) == len(TEXTS) and len(set(found)) > 1
    assert answers.costs.prompts == 3 and answers.costs.means()["kept_tokens"] == 4


def test_without_a_pruner_it_is_the_stock_model():
    whole = Anywhere(budget=10**6)
    answers = Answers(opened("qwen2-vl"), 2, 0, pytest.fail)
    assert answers.answer(requests(read_options({"max_new_tokens": 4}))) == [alone("qwen2-vl", row, whole, 4) for row in range(len(TEXTS))]
    assert answers.costs.means()["kept_tokens"] == answers.costs.means()["visual_tokens"] > 20


def test_requests_to_be_answered_differently_share_no_batch():
    answers = Answers(opened("llava-1.5", Top()), 8, 0, pytest.fail)
    short, long = (requests(read_options({"max_new_tokens": n}), [4]) for n in (2, 6))
    one, two, three = answers.answer([*long, *short, *long])
    assert one == three and one.startswith(two) and len(two) < len(one)


def test_a_stop_string_ends_an_answer_and_saves_the_rest():
    answers = Answers(opened("qwen2-vl", Top()), 5, 0, pytest.fail)
    whole = answers.answer(requests(read_options({"max_new_tokens": 24})))
    full = answers.costs.new_tokens
    stop = next(text for text in whole[0] if text.isascii() and 0 < whole[0].index(text) < 8)
    ended = answers.answer(requests(read_options({"max_new_tokens": 24, "until": [stop, ""]})))
    assert ended == [text.split(stop)[0] for text in whole]
    alone_before = answers.costs.new_tokens
    answers.answer(requests(read_options({"max_new_tokens": 24, "until": stop}), [0]))
    assert answers.costs.new_tokens - alone_before < 24
    assert alone_before - full <= full


@pytest.mark.parametrize("name", ["llava-1.5", "qwen2.5-vl"])
def test_likelihoods_are_those_of_the_pruned_model(name):
    """Against the slow reference: no cache, rows dropped by hand. The given answer takes no part in the choice of tokens."""
    pruner, endings = Top(layer=2, budget=5), ["yes", "no, three"]
    rows = [0, 2]
    loaded = opened(name, pruner)
    answers = Answers(loaded, 2, 0, pytest.fail)
    found = answers.losses(requests(read_options({}), rows), endings)
    model, processor, family = model_of(name)
    for row, ending, (loss, greedy) in zip(rows, endings, found, strict=True):
        inputs = family.prepare(processor, model.config, [IMAGES[row]], [TEXTS[row]]).inputs
        inputs = {key: value.to(model.dtype) if value.is_floating_point() else value for key, value in inputs.items()}
        with torch.inference_mode(), prune(model, pruner) as pruning:
            model.generate(**inputs, max_new_tokens=1, do_sample=False)
        tokens = torch.tensor([processor.tokenizer(ending, add_special_tokens=False)["input_ids"]])
        logits = reference_logits(model, inputs, tokens, positions_left(inputs, pruning.samples, model.config))[0]
        chosen = torch.log_softmax(logits, -1).gather(1, tokens[0][:, None])
        assert loss == pytest.approx(-float(chosen.mean()), abs=1e-5)
        assert greedy == bool((logits.argmax(-1) == tokens[0]).all())


@pytest.mark.parametrize("settings", [{}, {"pruner": "fastv", "retention": 0.6}])
def test_what_the_model_writes_is_its_greedy_answer(settings):
    """And what it writes to another question is not."""
    scenes = [draw_scene(9100, i, "photo") for i in range(4)]
    asked = [question_about(scene.things, "where", 9100, i).text for i, scene in enumerate(scenes)]
    talks = [from_visuals(text, [Image.fromarray(scene.pixels)]) for text, scene in zip(asked, scenes, strict=True)]
    answers = Answers(open_model("demo", device="cpu", say=lambda line: None, **settings), 4, 0, pytest.fail)
    ours = [Request("a question", lambda talk=talk: talk, read_options({"max_new_tokens": 5})) for talk in talks]
    said = answers.answer(ours)
    other = [next(text for text in said if text != mine) for mine in said]
    assert all(greedy for _, greedy in answers.losses(ours, said)) and not any(greedy for _, greedy in answers.losses(ours, other))


def test_an_ending_is_tokenised_apart_where_the_seam_would_change_the_prompt():
    """The embedded model's words end at blanks: "assistant:yes" would be an unknown word."""
    embedded = open_model("demo", device="cpu", say=lambda line: None)
    talk = from_visuals("is there a circle ?", [picture(168, 168)])
    one, two = Answers(embedded, 2, 0, pytest.fail).losses([Request("a question", lambda: talk, read_options({}))] * 2, ["yes", " yes"])
    assert one == two


def test_an_empty_ending_has_no_likelihood():
    answers = Answers(opened("llava-1.5"), 2, 0, pytest.fail)
    with pytest.raises(BiaskitError, match="the given answer '' has no tokens") as caught:
        answers.losses(requests(read_options({}), [0]), [""])
    assert caught.value.__notes__[-1] == "while answering request 0"


def test_what_generate_does_not_know_is_said_once():
    said = []
    answers = Answers(opened("llava-1.5"), 2, 0, said.append)
    for _ in range(2):
        answers.answer(requests(read_options({"max_new_tokens": 1, "image_aspect_ratio": "pad"}), [0, 2]))
    assert len(said) == 1 and "image_aspect_ratio is not used" in said[0]


@pytest.mark.parametrize(
    ("given", "length", "until", "more"),
    [
        ({}, 1024, (), {"do_sample": False}),
        ({"max_new_tokens": 16, "temperature": 0, "top_p": 1.0, "num_beams": 1}, 16, (), {"do_sample": False, "num_beams": 1}),
        ({"max_gen_toks": 8, "until": "\n", "temperature": None}, 8, ("\n",), {"do_sample": False}),
        ({"temperature": 0.7, "top_p": 0.9, "top_k": None}, 1024, (), {"do_sample": True, "temperature": 0.7, "top_p": 0.9}),
        ({"temperature": 0, "do_sample": True, "top_p": 0.9}, 1024, (), {"do_sample": False}),
        ({"temperature": 0.7, "do_sample": False}, 1024, (), {"do_sample": False}),
        ({"until": ["\n\n", "Q:", ""]}, 1024, ("Q:",), {"do_sample": False}),
    ],
)  # fmt: skip
def test_generation_settings(given, length, until, more):
    options = read_options(given)
    assert (options.max_new_tokens, options.until, dict(options.more), options.unused) == (length, until, more, ())


def test_a_blank_line_ends_an_answer_on_request():
    assert read_options({"until": ["\n\n"]}, blank_line_stops=True).until == ("\n\n",)


@pytest.mark.parametrize(
    ("given", "message"),
    [({"max_new_tokens": 0}, "max_new_tokens is 0"), ({"max_new_tokens": "9"}, "max_new_tokens is '9'"), ({"until": 3}, "until is 3")],
)
def test_generation_settings_that_mean_nothing(given, message):
    with pytest.raises(BiaskitError, match=message):
        read_options(given)


def test_the_first_stop_string_cuts():
    assert [cut(text, ("b", "cd")) for text in ("abcd", "acdb", "xyz", "b")] == ["a", "a", "xyz", ""]


def test_placeholders_say_where_pictures_stand():
    one, two = IMAGES[0]
    kinds = [
        [part["type"] for part in from_visuals(text, [one, two]).messages[0]["content"]]
        for text in ("<image> or <image>?", "which? <image>")
    ]
    assert kinds == [["image", "text", "image", "text"], ["image", "image", "text"]]


def test_turns_keep_their_pictures_in_place(tmp_path):
    one, two = IMAGES[0]
    two.save(tmp_path / "two.png")
    shown = [{"type": "text", "text": "first"}, {"type": "image", "url": one.convert("L")}]
    turns = [{"role": "system", "content": "be brief"}, {"role": "user", "content": shown}]
    turns += [{"role": "assistant", "content": "ok"}, {"role": "user", "content": [{"type": "image", "url": str(tmp_path / "two.png")}]}]
    found = from_messages(turns)
    assert [[part["type"] for part in turn["content"]] for turn in found.messages] == [["text"], ["text", "image"], ["text"], ["image"]]
    assert [image.mode for image in found.images] == ["RGB", "RGB"] and np.array_equal(found.images[1], two)


@pytest.mark.parametrize(
    ("visual", "error", "message"),
    [
        ("film.mp4", BiaskitError, "the file film.mp4"),
        (np.zeros((8, 4, 4, 3)), BiaskitError, "a model ndarray, not an image"),
        ({"type": "video", "url": "film.mp4"}, BiaskitError, "a model dict"),
        ("https://example.org/a.png", BiaskitError, "by its address"),
        ("gone.png", SourceError, "cannot read gone.png"),
    ],
)
def test_what_is_no_still_image_is_refused(visual, error, message):
    with pytest.raises(error, match=message):
        from_visuals("what?", [visual])
    with pytest.raises(BiaskitError, match="the task shows a model video"):
        from_messages([{"role": "user", "content": [{"type": "video", "url": visual}]}])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"pretrained": None}, "no model is named"),
        ({"retention": 0.1}, "pruner=none takes no retention=0.1"),
        ({"prior": "x", "alpha": 1}, "pruner=none takes no prior=x, alpha=1"),
        ({"pruner": "fastv", "retention": 0.1, "budget": 3}, "retention=0.1 and budget=3 are both given"),
        ({"pruner": "fastv", "retention": 0.1, "alhpa": 1}, "fastv has no parameter 'alhpa'"),
        ({"pruner": "fastv", "retention": 0.1, "k": 9}, "the model has layers 0 … 8"),
        ({"pruner": "fastv", "retention": 0.1, "layer": 9}, "a method's layer is written k"),
        ({"pruner": "d2pruner", "retention": 0.1}, "d2pruner needs a prior"),
        ({"pruner": "fastv", "retention": 0.1, "prior": "gone"}, "no prior 'gone'"),
    ],
)
def test_settings_that_do_not_fit_together(words, message):
    with pytest.raises(BiaskitError, match=message):
        open_model(**{"pretrained": "demo", "say": lambda line: None, **words})


def test_its_entry_point_costs_nothing():
    """lmms-eval imports it whenever it lists its models."""
    code = "import sys, biaskit.validation.lmms; assert not {'torch', 'transformers', 'lmms_eval'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
