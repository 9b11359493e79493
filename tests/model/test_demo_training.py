"""The embedded model's training: its shortcuts are exact, it learns, it resumes, and what it writes loads as a stock checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, LlavaForConditionalGeneration

from biaskit.attention import attention_rows
from biaskit.demo.architecture import make_config, save_processor
from biaskit.demo.evaluate import answers_of
from biaskit.demo.language_stage import LanguageStage, schedule
from biaskit.demo.layers import preference, recall, shuffled, top
from biaskit.demo.muon import Muon, orthogonal
from biaskit.demo.packing import SLOT, pack, prompt_ids
from biaskit.demo.pictures import draw_pictures
from biaskit.demo.questions import ask
from biaskit.demo.scenes import draw_scene
from biaskit.demo.shared_prefix import SharedPrefix
from biaskit.demo.train import main
from biaskit.demo.vision_stage import to_pixel_values
from biaskit.demo.vocabulary import ID, PREFIX, WORDS, make_tokenizer
from biaskit.errors import BiaskitError
from biaskit.families import families
from biaskit.families.processors import load_processor


@pytest.fixture(scope="module")
def model() -> LlavaForConditionalGeneration:
    torch.manual_seed(0)
    made = LlavaForConditionalGeneration(make_config(layers=6))
    with torch.no_grad():  # attention that differs from uniform
        for layer in made.model.language_model.layers:
            layer.self_attn.q_proj.weight.mul_(8)
            layer.self_attn.k_proj.weight.mul_(8)
    return made.eval()


@torch.inference_mode()
def test_shared_prefix_is_the_stock_model(model: LlavaForConditionalGeneration) -> None:
    """Every slot, asked alone through the stock forward, has the same states and the same attention."""
    scenes = [draw_scene(0, i) for i in range(2)]
    rng = np.random.default_rng(0)
    questions = [[ask(rng, scene.things) for _ in range(5)] for scene in scenes]
    packed = pack(questions, np.stack([scene.owner.ravel() for scene in scenes]))
    pixels = to_pixel_values(np.stack([scene.pixels for scene in scenes]))
    features = model.model.vision_tower(pixel_values=pixels).last_hidden_state[:, 1:]
    states, seen = SharedPrefix(model, SLOT, dtype=torch.float32)(features, packed.ids, {1: 2, 4: 5}, packed.asked)
    for row, (b, s) in enumerate(zip(packed.asked[0].tolist(), packed.asked[1].tolist(), strict=True)):
        n = int(packed.lengths[b, s])
        ids = torch.tensor([[*PREFIX, *packed.ids[b, s, :n].tolist()]])
        inputs = {"input_ids": ids, "pixel_values": pixels[b : b + 1], "attention_mask": torch.ones_like(ids)}
        stock = model.model(**inputs).last_hidden_state[0, -1]
        torch.testing.assert_close(states[b, s, n - 1], stock, atol=2e-5, rtol=1e-4)
        rows = attention_rows(model, inputs, [1, 4], per_head=True)[:, 0, :, 2:146]
        torch.testing.assert_close(seen[1][row], rows[0, :2], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(seen[4][row], rows[1], atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_dropped_tokens_are_as_if_they_were_not_there(model: LlavaForConditionalGeneration) -> None:
    """Oracle: the stock decoder layers one by one; from layer 2 on the dropped rows are cut out by hand, position ids kept."""
    scene = draw_scene(0, 1)
    prompt = prompt_ids("where is the red circle ?")
    features = model.model.vision_tower(pixel_values=to_pixel_values(scene.pixels[None])).last_hidden_state[:, 1:]
    kept = torch.rand(1, 144, generator=torch.Generator().manual_seed(1)) < 0.3
    ids = torch.zeros(1, 1, SLOT, dtype=torch.long)
    ids[0, 0, : len(prompt)] = torch.tensor(prompt)
    states, _ = SharedPrefix(model, SLOT, dtype=torch.float32)(features, ids, keep=(2, kept))
    text = model.model.language_model
    rows = text.embed_tokens(torch.tensor([[*PREFIX, *prompt]]))
    rows[:, 2:146] = model.model.multi_modal_projector(features)
    place = torch.arange(rows.shape[1])[None]
    for number, layer in enumerate(text.layers):
        if number == 2:
            stay = torch.cat([torch.ones(2, dtype=torch.bool), kept[0], torch.ones(len(prompt), dtype=torch.bool)])
            rows, place = rows[:, stay], place[:, stay]
        length = rows.shape[1]
        mask = torch.full((length, length), float("-inf")).triu(1)[None, None]
        rows = layer(rows, attention_mask=mask, position_ids=place, position_embeddings=text.rotary_emb(rows, place))
    torch.testing.assert_close(states[0, 0, len(prompt) - 1], text.norm(rows)[0, -1], atol=2e-5, rtol=1e-4)


def test_orthogonal_has_singular_values_near_one() -> None:
    for shape in ((3, 20, 50), (2, 50, 20)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(0))))
        assert values.min() > 0.5
        assert values.max() < 1.4


def test_muon_descends_and_its_state_can_be_taken_up() -> None:
    def run(steps: int, weight: torch.nn.Parameter, muon: Muon) -> None:
        for _ in range(steps):
            muon.zero_grad()
            (weight - torch.eye(4, 6)).pow(2).sum().backward()
            muon.step()

    one = torch.nn.Parameter(torch.zeros(4, 6))
    optimiser = Muon([one], lr=0.02)
    run(30, one, optimiser)
    half = torch.nn.Parameter(torch.zeros(4, 6))
    first = Muon([half], lr=0.02)
    run(10, half, first)
    second = Muon([half], lr=0.5)
    second.load_state_dict(first.state_dict())
    run(20, half, second)
    assert (one - torch.eye(4, 6)).norm() < 1
    assert torch.equal(one, half)


def test_schedule() -> None:
    assert schedule(0, 1000) == (0.01, 1.0)
    assert schedule(450, 1000)[1] == 0
    assert schedule(400, 1000)[0] == 1
    assert schedule(999, 1000)[0] == 0.02


def test_tokenizer_splits_as_people_write() -> None:
    tokenizer = make_tokenizer()
    ids = tokenizer("Where is the small red circle?")["input_ids"]
    assert [WORDS[i] for i in ids] == ["where", "is", "the", "small", "red", "circle", "?"]
    assert tokenizer("Please describe the provided image.")["input_ids"].count(ID["<unk>"]) == 0
    assert tokenizer.decode([ID["<loc03>"], ID["<loc47>"]]) == "<loc03> <loc47>"


def test_written_processor_makes_the_prompt_of_the_training(tmp_path: Path) -> None:
    save_processor(tmp_path)
    family = families.get("llava")
    config = make_config(layers=2)
    config.save_pretrained(tmp_path)
    processor = load_processor(family, str(tmp_path))
    from PIL import Image

    scene = draw_scene(0, 0)
    text = "where is the small red circle ?"
    prepared = family.prepare(processor, config, [[Image.fromarray(scene.pixels)]], [text])
    assert prepared.inputs["input_ids"][0].tolist() == [*PREFIX, *prompt_ids(text)]
    torch.testing.assert_close(prepared.inputs["pixel_values"], to_pixel_values(scene.pixels[None]), atol=1e-5, rtol=1e-5)
    assert prepared.layouts[0].positions.tolist() == list(range(2, 146))


def test_a_step_lowers_the_loss_of_its_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(make_config(layers=5))
    pictures = draw_pictures(tmp_path, 4, 1, lambda line: None)
    features = np.random.default_rng(0).normal(size=(4, 144, 128)).astype(np.float16)
    stage = LanguageStage(model, pictures, features, tmp_path, 400, 0, "cpu")
    losses = [stage.step(100)["loss"] for _ in range(6)]
    assert losses[-1] < 0.8 * losses[0]


def test_smoke_training_resumes_and_writes_a_stock_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--scenes", "40", "--vision-steps", "2", "--held-out", "2", "--work", str(tmp_path / "work"), "--device", "cpu"]
    out = tmp_path / "model"
    assert main(["--out", str(out), "--language-steps", "2", *options]) == 0
    weights = (out / "model.safetensors").read_bytes()
    capsys.readouterr()
    assert main(["--out", str(tmp_path / "again"), "--language-steps", "2", *options]) == 0
    assert "language 2/2" not in capsys.readouterr().err
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == weights
    with pytest.raises(BiaskitError, match="language_steps"):
        main(["--out", str(out), "--language-steps", "3", *options])
    assert len(weights) < 10e6
    card, record = (out / "README.md").read_text(), json.loads((out / "training.json").read_text())
    assert "| uniform | " in card
    assert record["recipe"]["language_steps"] == 2
    model = AutoModelForImageTextToText.from_pretrained(str(out))
    scene = draw_scene(5, 0)
    rng = np.random.default_rng(0)
    processor = load_processor(families.get("llava"), str(out))
    assert len(answers_of(model.float(), processor, [scene] * 3, [ask(rng, scene.things) for _ in range(3)], 2)) == 3


def test_recall_and_preference_by_hand() -> None:
    target = np.zeros((1, 144), bool)
    target[0, :4] = True
    others = np.zeros((1, 144), bool)
    others[0, 4:8] = True
    scores = np.zeros((2, 1, 144), np.float32)
    scores[0, 0, :4] = 1  # the target on top
    scores[1, 0, 8:50] = 1  # background on top; target and others level
    scores[1, 0, 0] = 2
    assert recall(scores, target) == [1.0, 0.25]
    assert preference(scores, target, others) == [1.0, pytest.approx(0.25 + 0.75 * 0.5)]
    assert top(scores[0], 4)[0, :4].all()


def test_shuffling_moves_tokens_and_leaves_nothing_behind(model: LlavaForConditionalGeneration) -> None:
    projector = model.model.multi_modal_projector
    features = torch.randn(2, 144, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        plain = projector(features)
        with shuffled(model):
            mixed = projector(features)
        assert torch.equal(projector(features), plain)
    assert not torch.equal(mixed, plain)
    torch.testing.assert_close(mixed.sort(1).values, plain.sort(1).values)
