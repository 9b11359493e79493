"""The embedded models' training: its shortcuts are exact, it learns, it resumes, and what it writes loads as a stock checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

from biaskit.demo.evaluate import answers_of
from biaskit.demo.training.architectures import NAMES, architecture_of, find
from biaskit.demo.training.language_stage import LanguageStage, schedule
from biaskit.demo.training.layers import preference, recall, shuffled, top
from biaskit.demo.training.muon import Muon, orthogonal
from biaskit.demo.training.packing import SLOT, pack, prompt_ids
from biaskit.demo.training.pictures import draw_pictures
from biaskit.demo.training.shared_prefix import SharedPrefix
from biaskit.demo.training.train import main
from biaskit.demo.training.vision_stage import _labels, to_pixel_values
from biaskit.engine.attention import attention_rows
from biaskit.errors import BiaskitError
from biaskit.families import families
from biaskit.families.checkpoints.processors import load_processor
from biaskit.images.scenes.draw import Scene, draw_scene
from biaskit.images.scenes.questions import ask
from biaskit.images.scenes.vocabulary import ID, VISUAL, WORDS


@pytest.fixture(scope="module", params=NAMES)
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    made = find(request.param).make_model(layers=6)
    with torch.no_grad():  # attention that differs from uniform, and biases where the class has them
        for layer in made.model.language_model.layers:
            layer.self_attn.q_proj.weight.mul_(8)
            layer.self_attn.k_proj.weight.mul_(8)
            for part in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
                if part.bias is not None:
                    part.bias.normal_()
    return made.eval()


@pytest.fixture(scope="module")
def processor(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory = tmp_path_factory.mktemp("processor")
    model.config.save_pretrained(directory)
    architecture_of(model).save_processor(directory)
    return load_processor(families.get(model.config.model_type), str(directory))


def pixels_of(*scenes: Scene) -> torch.Tensor:
    return to_pixel_values(np.stack([scene.pixels for scene in scenes]))


@torch.inference_mode()
def test_shared_prefix_is_the_stock_model(model: Any, processor: Any) -> None:
    """Every slot, asked alone through the stock processor and forward, has the same logits and the same attention."""
    architecture, family = architecture_of(model), families.get(model.config.model_type)
    scenes = [draw_scene(0, i) for i in range(2)]
    rng = np.random.default_rng(0)
    questions = [[ask(rng, scene.things) for _ in range(5)] for scene in scenes]
    packed = pack(questions, np.stack([scene.owner.ravel() for scene in scenes]))
    features = architecture.see(architecture.tower(model), pixels_of(*scenes))
    run = SharedPrefix(model, SLOT, dtype=torch.float32)
    states, seen = run(features, packed.ids, {1: 2, 4: 5}, packed.asked, states_at=3)
    first = architecture.visual_start
    for row, (b, s) in enumerate(zip(packed.asked[0].tolist(), packed.asked[1].tolist(), strict=True)):
        n = int(packed.lengths[b, s])
        image = Image.fromarray(scenes[b].pixels)
        inputs = family.prepare(processor, model.config, [[image]], [questions[b][s].text]).inputs
        assert inputs["input_ids"][0].tolist() == [*architecture.prefix, *packed.ids[b, s, :n].tolist()]
        stock = model(**inputs, output_hidden_states=True)
        torch.testing.assert_close(model.lm_head(states[b, s, n - 1]), stock.logits[0, -1], atol=2e-5, rtol=1e-4)
        assert seen.visual is not None
        torch.testing.assert_close(seen.visual[b], stock.hidden_states[3][0, first : first + VISUAL], atol=2e-5, rtol=1e-4)
        rows = attention_rows(model, inputs, [1, 4], per_head=True)[:, 0, :, first : first + VISUAL]
        torch.testing.assert_close(seen.attention[1][row], rows[0, :2], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(seen.attention[4][row], rows[1], atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_tower_pass_is_the_stock_tower() -> None:
    """Oracle: the stock image features, tower and merger, of what the stock image processor makes of a scene."""
    torch.manual_seed(0)
    architecture = find("qwen")
    model = architecture.make_model(layers=1).eval()
    for weight in model.model.visual.parameters():
        weight.normal_(std=0.05 if weight.ndim == 5 else 1.2 * weight.shape[-1] ** -0.5 if weight.ndim == 2 else 0.3)
    scenes = [draw_scene(0, i) for i in range(3)]
    features = architecture.see(architecture.tower(model), pixels_of(*scenes))
    mine = architecture.project(model, features)
    images, _ = architecture.processor_files()
    batch = images([Image.fromarray(scene.pixels) for scene in scenes], return_tensors="pt")
    stock = model.model.get_image_features(batch["pixel_values"], batch["image_grid_thw"]).pooler_output
    torch.testing.assert_close(mine, torch.stack(stock), atol=1e-4, rtol=1e-4)


def test_relative_labels_are_those_of_the_scene_seen_from_the_patch() -> None:
    scene = draw_scene(0, 3)
    facts = np.full((1, 10, 7), -1, np.float32)
    for row, thing in enumerate(scene.things):
        facts[0, row] = (*thing.key, *thing.box)
    plain, covered = _labels(scene.owner.ravel()[None], facts, flip=False, relative=False)
    seen, same = _labels(scene.owner.ravel()[None], facts, flip=False, relative=True)
    assert torch.equal(covered, same)
    for patch in covered[0].nonzero()[:, 0].tolist():
        row, col = divmod(patch, 12)
        x, y = 14 * col + 7, 14 * row + 7
        thing = scene.things[scene.owner[row, col]]
        expected = [thing.box[0] - x, thing.box[1] - y, thing.box[2] - x, thing.box[3] - y]
        assert seen[0, patch, 3:].tolist() == pytest.approx([value + 84 for value in expected], abs=1e-3)
        assert plain[0, patch, 3:].tolist() == pytest.approx(list(thing.box), abs=1e-3)
    assert torch.equal(seen[..., :3], plain[..., :3])


@torch.inference_mode()
def test_who_knows_the_place_of_a_patch(model: Any) -> None:
    """On an empty picture: CLIP's patches differ, those of Qwen's tower are one and the same; in the decoder all tokens differ."""
    architecture = architecture_of(model)
    features = architecture.see(architecture.tower(model), torch.full((1, 3, 168, 168), 0.3))
    spread = (features - features.mean(1, keepdim=True)).abs().max() / features.abs().max()
    assert spread < 1e-5 if architecture.relative else spread > 1e-2
    _, seen = SharedPrefix(model, SLOT, dtype=torch.float32)(features, torch.zeros(1, 1, SLOT, dtype=torch.long), states_at=3)
    assert seen.visual is not None
    grid = seen.visual[0].view(12, 12, -1)
    for neighbours in (grid[1:] - grid[:-1], grid[:, 1:] - grid[:, :-1]):
        assert neighbours.norm(dim=-1).min() > 1e-3 * grid.norm(dim=-1).mean()


@torch.inference_mode()
def test_dropped_tokens_are_as_if_they_were_not_there(model: Any, processor: Any) -> None:
    """Oracle: the stock decoder layers one by one; from layer 2 on the dropped rows are cut out by hand, position ids kept."""
    scene = draw_scene(0, 1)
    architecture, family = architecture_of(model), families.get(model.config.model_type)
    prompt = prompt_ids("where is the red circle ?")
    features = architecture.see(architecture.tower(model), pixels_of(scene))
    kept = torch.rand(1, 144, generator=torch.Generator().manual_seed(1)) < 0.3
    ids = torch.zeros(1, 1, SLOT, dtype=torch.long)
    ids[0, 0, : len(prompt)] = torch.tensor(prompt)
    states, _ = SharedPrefix(model, SLOT, dtype=torch.float32)(features, ids, keep=(2, kept))
    text = model.model.language_model
    inputs = family.prepare(processor, model.config, [[Image.fromarray(scene.pixels)]], ["where is the red circle ?"]).inputs
    taken: dict[str, Any] = {}
    handle = text.register_forward_pre_hook(lambda _, args, given: taken.update(given), with_kwargs=True)
    model.model(**inputs)
    handle.remove()
    rows, place = taken["inputs_embeds"], taken["position_ids"]
    place = torch.arange(rows.shape[1])[None] if place is None else place[-3:] if place.ndim == 3 else place
    first = architecture.visual_start
    stay = torch.ones(rows.shape[1], dtype=torch.bool)
    stay[first : first + VISUAL] = kept[0]
    for number, layer in enumerate(text.layers):
        if number == 2:
            rows, place = rows[:, stay], place[..., stay]
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


@pytest.mark.parametrize("name", NAMES)
def test_tokenizer_splits_as_people_write(name: str) -> None:
    tokenizer = find(name).make_tokenizer()
    ids = tokenizer("Where is the small red circle?")["input_ids"]
    assert [WORDS[i] for i in ids] == ["where", "is", "the", "small", "red", "circle", "?"]
    assert tokenizer("Please describe the provided image.")["input_ids"].count(ID["<unk>"]) == 0
    assert tokenizer.decode([ID["<loc03>"], ID["<loc47>"]]) == "<loc03> <loc47>"
    assert tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))) == list(find(name).words)


def test_written_processor_makes_the_prompt_of_the_training(model: Any, processor: Any) -> None:
    architecture, family = architecture_of(model), families.get(model.config.model_type)
    scene = draw_scene(0, 0)
    text = "where is the small red circle ?"
    prepared = family.prepare(processor, model.config, [[Image.fromarray(scene.pixels)]], [text])
    assert prepared.inputs["input_ids"][0].tolist() == [*architecture.prefix, *prompt_ids(text)]
    values = prepared.inputs["pixel_values"]
    if architecture.name == "qwen":  # a list of patches
        values = values.view(1, 12, 12, 3, 14, 14).permute(0, 3, 1, 4, 2, 5).reshape(1, 3, 168, 168)
    torch.testing.assert_close(values, pixels_of(scene), atol=1e-5, rtol=1e-5)
    first = architecture.visual_start
    assert prepared.layouts[0].positions.tolist() == list(range(first, first + VISUAL))


def test_the_sibling_takes_pictures_of_any_shape() -> None:
    """About 144 visual tokens, in the picture's own proportions."""
    images, _ = find("qwen").processor_files()
    for width, height in ((640, 480), (168, 168), (100, 400), (60, 60)):
        _, rows, cols = images([Image.new("RGB", (width, height))], return_tensors="pt")["image_grid_thw"][0].tolist()
        assert 90 <= rows * cols <= 160
        assert rows / cols == pytest.approx(height / width, rel=0.25)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_lowers_the_loss_of_its_batch(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = find(name).make_model(layers=5)
    pictures = draw_pictures(tmp_path, 4, 1, lambda line: None)
    features = np.random.default_rng(0).normal(size=(4, 144, 128)).astype(np.float16)
    stage = LanguageStage(model, pictures, features, tmp_path, 400, 0, "cpu")
    losses = [stage.step(100)["loss"] for _ in range(6)]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_smoke_training_resumes_and_writes_a_stock_checkpoint(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--architecture", name, "--scenes", "40", "--vision-steps", "2", "--held-out", "2", "--device", "cpu"]
    options += ["--work", str(tmp_path / "work")]
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
    assert f"`{type(model).__name__}`" in card
    scene = draw_scene(5, 0)
    rng = np.random.default_rng(0)
    processor = load_processor(families.get(model.config.model_type), str(out))
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


def test_shuffling_moves_tokens_and_leaves_nothing_behind(model: Any) -> None:
    run = SharedPrefix(model, SLOT)
    features = torch.randn(2, 144, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        plain = run.project(features)
        with shuffled(model):
            mixed = run.project(features)
        assert torch.equal(run.project(features), plain)
    assert not torch.equal(mixed, plain)
    torch.testing.assert_close(mixed.sort(1).values, plain.sort(1).values)
