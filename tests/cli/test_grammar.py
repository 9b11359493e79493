"""One grammar for all commands: an option means one thing wherever it stands, and an old spelling names the new one."""

from __future__ import annotations

import inspect
import shlex

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from biaskit.cli.app import app
from biaskit.cli.examples import EXAMPLES
from biaskit.errors import BiaskitError
from biaskit.pruners.notation import build, parse_method, preset_depth

NUMBER, TEXT, FLAG, PATH = "number", "text", "flag", "path"

MEANING = {
    "--ablation": (FLAG, "also D2Pruner's parts"), "--analyse": (FLAG, "measure every selection"),
    "--as": (TEXT, "what imported values are"), "--attention": (TEXT, "attention implementation"),
    "--authors-up-to": (NUMBER, "N without the authors' algorithms beyond"), "--baseline-images": (NUMBER, "images of the baseline"),
    "--batch-size": (NUMBER, "samples a forward pass"), "--blank": (TEXT, "pictures without content"),
    "--budget": (NUMBER, "visual tokens kept"), "--cmap": (TEXT, "colour map of a figure"),
    "--coco-root": (PATH, "local COCO"), "--compare": (TEXT, "further methods"),
    "--conversation": (TEXT, "chat template"), "--cpu-time": (FLAG, "count the process's own time"), "--data": (TEXT, "what is run on"),
    "--device": (TEXT, "where it runs"), "--device-map": (TEXT, "spread over devices"), "--dim": (NUMBER, "channels"),
    "--dtype": (TEXT, "number format"), "--force": (FLAG, "overwrite"), "--format": (TEXT, "what a report is written as"),
    "--generation": (TEXT, "a setting of generate()"), "--grid": (TEXT, "a map's grid, ROWSxCOLS"), "--heads": (FLAG, "each head's mean"),
    "--hub": (FLAG, "look on the hub"),
    "--image": (PATH, "one picture"), "--image-mode": (TEXT, "pad or crop"),
    "--image-size": (TEXT, "pictures, WIDTHxHEIGHT"), "--images": (TEXT, "directory of the images"),
    "--images-per-prompt": (NUMBER, "pictures a prompt"), "--importance": (TEXT, "which importance"), "--interval": (TEXT, "its kind"),
    "--json": (FLAG, "print JSON"), "--k": (NUMBER, "K: tokens are dropped before this decoder layer"),
    "--keep-indices": (FLAG, "list the kept tokens"), "--key": (TEXT, "which array of a file"), "--labels": (TEXT, "names in a figure"),
    "--layers": (TEXT, "decoder layers whose attention is meant, from 0"), "--match": (TEXT, "what a retention is of"),
    "--max-new-tokens": (NUMBER, "length of answers"),
    "--max-pixels": (NUMBER, "most pixels"), "--max-skips": (NUMBER, "unusable images before giving up"),
    "--max-tiles": (NUMBER, "most tiles"), "--min-pixels": (NUMBER, "least pixels"), "--minutes": (NUMBER, "time limit"),
    "--model": (TEXT, "the checkpoint"), "--model-type": (TEXT, "the architecture"), "--new-tokens": (NUMBER, "tokens generated"),
    "--note": (TEXT, "where a file comes from"), "--out": (PATH, "where results go"), "--overlap": (TEXT, "measure of overlap"),
    "--overlay": (PATH, "figure of the kept tokens"), "--placement": (TEXT, "where drawn things lie"), "--plan": (TEXT, "which benchmarks"),
    "--plane": (TEXT, "planes of the layout"), "--planes": (TEXT, "planes of the layout"), "--preset": (TEXT, "a method's preset"),
    "--prior": (TEXT, "a prior for +prior"), "--private": (FLAG, "a repository nobody else sees"),
    "--prompt": (TEXT, "what is asked"), "--prompt-tokens": (NUMBER, "text tokens"),
    "--pruner": (TEXT, "methods"), "--published-as": (TEXT, "checkpoint of the papers' tables"),
    "--questions": (NUMBER, "questions of each task"), "--quiet": (FLAG, "say nothing of progress"),
    "--random-weights": (FLAG, "no weights"),
    "--repeats": (NUMBER, "rounds"), "--resamples": (NUMBER, "of the bootstrap"), "--restart": (FLAG, "throw an unfinished run away"),
    "--retention": (TEXT, "shares of visual tokens kept"), "--revision": (TEXT, "commit of a checkpoint"),
    "--rows": (TEXT, "whose attention"), "--samples": (NUMBER, "images"),
    "--scale": (TEXT, "colours of a figure"),
    "--save-every": (NUMBER, "seconds between states"), "--schedule": (FLAG, "FitPrune's schedule, no prior"),
    "--seed": (NUMBER, "of what is random"), "--set": (TEXT, "a method's parameter"),
    "--show": (TEXT, "which figure of a prior"),
    "--shrink": (TEXT, "a smaller model, CHANNELSxLAYERS"), "--split": (TEXT, "part of COCO"), "--splits": (NUMBER, "random splits"),
    "--sweep": (TEXT, "a parameter's values"), "--task": (TEXT, "tasks"), "--threads": (NUMBER, "of the CPU"), "--title": (TEXT, "heading"),
    "--tokens": (NUMBER, "numbers of visual tokens"), "--version": (FLAG, "print the version"), "--warmup": (NUMBER, "rounds before"),
    "--wording": (PATH, "how tasks ask"), "--workers": (NUMBER, "preprocessing processes"),
}  # fmt: skip
"""Option → what its value is, and its one meaning."""
SHORT = {
    "-d": "--data", "-i": "--image", "-m": "--model", "-n": "--samples", "-o": "--out", "-p": "--pruner", "-q": "--quiet",
    "-r": "--retention",
    "-t": "--task",
}  # fmt: skip
ALIASES = {"--layer": "--layers", "--plane": "--planes"}
NUMBERS_IN_TURN = {"--batch-size", "--images-per-prompt", "--tokens", "--authors-up-to"}  # "1,2,4": a text for the parser


def commands(command=None, words=()):
    command = get_command(app) if command is None else command
    yield " ".join(words), command
    for name, inside in getattr(command, "commands", {}).items():
        yield from commands(inside, (*words, name))


OPTIONS = [
    (name, option) for name, command in commands() for option in command.params
    if option.param_type_name == "option" and not {"--install-completion", "--show-completion"} & set(option.opts)
]  # fmt: skip


def long_names(option):
    return [name for name in option.opts if name.startswith("--")]


@pytest.mark.parametrize(("command", "option"), OPTIONS, ids=lambda value: value if isinstance(value, str) else value.opts[0])
def test_an_option_is_in_the_table_and_takes_what_it_says(command, option):
    first, *others = long_names(option)
    kind, _ = MEANING[first]
    assert option.is_flag == (kind == FLAG), first
    if kind == NUMBER and first not in NUMBERS_IN_TURN:
        assert option.type_descriptor.annotation is not str, (command, first)
    for other in others:
        assert ALIASES.get(other) == first, (command, option.opts)
    shorts = [name for name in option.opts if not name.startswith("--")]
    assert all(SHORT[name] == first for name in shorts), (command, option.opts)
    assert shorts or first not in SHORT.values(), f"{command}: {first} has a short form elsewhere"


def test_nothing_in_the_table_is_gone():
    assert {name for _, option in OPTIONS for name in long_names(option)} == {*MEANING, *ALIASES}


@pytest.mark.parametrize("name", ["--k", "--layers", "--image-size", "--grid", "--seed", "--device", "--dtype", "--revision", "--json"])
def test_sizes_layers_and_devices_are_declared_alike(name):
    found = {(option.metavar or "") for _, option in OPTIONS if name in option.opts}
    assert len(found) == 1 or name == "--layers", found
    wanted = {"--image-size": "WIDTHxHEIGHT", "--grid": "ROWSxCOLS"}.get(name)
    assert wanted is None or found == {wanted}


@pytest.mark.parametrize(
    ("words", "new"),
    [
        (["prune", "--layer", "2"], "--k"),
        (["validate", "--layer=2"], "--k"),
        (["validate", "--limit", "2"], "--questions"),
        (["validate", "-n2"], "--questions"),
        (["bench", "--layer", "2"], "--k"),
        (["bench", "--images", "2"], "--images-per-prompt"),
        (["bench", "calibrate", "--images", "2"], "--samples"),
        (["bench", "grow", "--images", "2"], "--images-per-prompt"),
        (["bench", "select", "--sizes", "2"], "--tokens"),
        (["bench", "select", "--methods", "all"], "--pruner"),
        (["bench", "select", "--batch", "2"], "--batch-size"),
        (["study", "transfer", "--layer", "2"], "--k"),
        (["study", "content-free", "--layer", "2"], "--k"),
        (["study", "transfer", "--size", "3x4"], "--image-size"),
        (["models", "inspect", "demo", "--size", "3x4"], "--image-size"),
        (["scenes", "--n", "2"], "--samples"),
        (["priors", "import", "a.npy", "--rows", "2"], "--grid"),
        (["priors", "import", "a.npy", "--cols", "2"], "--grid"),
        (["priors", "verify", "a", "--model", "llava"], "--model-type"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_an_old_spelling_is_refused_with_the_new_one_named(words, new):
    done = CliRunner().invoke(app, words)
    old = next(word for word in words if word.startswith("-")).partition("=")[0]
    told = " ".join(done.stderr.replace("│", " ").split())
    assert done.exit_code == 2
    assert f"it is {new} now" in told and (old if old.startswith("--") else old[:2]) in told


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("fastv@layer=3", "a method's layer is written k", "k=3"),
        ("d2pruner:localization", "a preset is written with an @", "d2pruner@preset=localization"),
        ("d2pruner:localization+prior", "a preset is written with an @", "d2pruner@preset=localization"),
    ],
)
def test_an_old_notation_of_a_method_is_refused(text, message, hint):
    with pytest.raises(BiaskitError, match=message) as caught:
        parse_method(text)
    assert hint in caught.value.hint


def test_a_question_behind_p_is_told_where_it_goes():
    done = CliRunner().invoke(app, ["prune", "-m", "demo", "-i", "a.png", "-p", "Where is it?"])
    assert done.exit_code == 2 and "--prompt" in done.stderr


def test_all_commands_read_layers_alike(tmp_path):
    for words in (
        ["calibrate", "-m", "demo", "-d", "generated", "-o", str(tmp_path / "p.safetensors")],
        ["heatmap", "p"],
        ["priors", "show", "p"],
        ["bench", "calibrate", "-m", "demo"],
        ["study", "enough", "-m", "demo", "-o", str(tmp_path)],
    ):
        done = CliRunner().invoke(app, [*words, "--layers", "3-1"])
        assert "write numbers and ranges" in done.stderr or "write numbers and ranges" in str(getattr(done.exception, "hint", "")), words


def test_the_preset_s_k_is_that_of_all():
    methods = [parse_method(text) for text in ("fastv", "d2pruner+prior", "fastv@k=3", "divprune")]
    k = preset_depth(methods, "localization", "llava")
    assert [build(method, k=k, preset="localization", model_type="llava", retention=0.1).layer for method in methods] == [5, 5, 3, 0]
    with pytest.raises(BiaskitError, match="no method here has the preset 'localisation'") as caught:
        preset_depth(methods, "localisation")
    assert "localization" in caught.value.hint


RUNNABLE = {words: command for words, command in commands() if not hasattr(command, "commands") or words in ("validate", "bench")}


@pytest.mark.parametrize("words", RUNNABLE)
def test_every_command_has_examples_that_parse(words):
    command = RUNNABLE[words]
    found = [line.removeprefix("$ biaskit ") for line in (command.epilog or "").splitlines() if line.startswith("$ ")]
    assert found, words
    for example in found:
        typed = shlex.split(example)
        inside = words.split()
        assert typed[: len(inside)] == inside
        command.make_context(words, typed[len(inside) :])
    shown = CliRunner().invoke(app, [*words.split(), "--help"])
    assert shown.exit_code == 0 and "Examples:" in shown.stdout and "```" not in shown.stdout


@pytest.mark.parametrize("words", RUNNABLE)
def test_what_a_function_says_of_its_command_is_shown(words):
    """A group's own help replaces that of the function behind it, so that what stands there alone is never seen."""
    command = RUNNABLE[words]
    told = (inspect.getdoc(command.callback) or "").split("\n\n")[1:]
    shown = " ".join((command.help or "").split())
    assert all(" ".join(paragraph.split()) in shown for paragraph in told), words


def test_no_example_is_of_a_command_that_is_gone():
    assert {*EXAMPLES} == {*RUNNABLE}
