"""Finding priors by name: order of the places, near names, unreadable files, the hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from biaskit.errors import PriorError
from biaskit.prior import store
from biaskit.prior.value import PlaneStats, Prior


def prior(model: str) -> Prior:
    ones = np.ones((1, 2, 2), np.float32)
    return Prior({"image": PlaneStats(ones)}, (1,), np.ones(1, np.float32), {"model": model, "model_type": "llava"})


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with an empty `priors/`, beside the packaged priors `llava` and `qwen`."""
    (tmp_path / "work" / "priors").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(store, "packaged", lambda: tmp_path / "packaged")
    prior("packaged llava").save(tmp_path / "packaged" / "LLaVA-1.5.safetensors")
    prior("packaged qwen").save(tmp_path / "packaged" / "qwen.safetensors")
    return tmp_path


def test_path_then_local_then_packaged(places: Path) -> None:
    assert store.load_prior("qwen").model == "packaged qwen"
    prior("local qwen").save("priors/qwen.safetensors")
    assert store.load_prior("qwen").model == "local qwen"
    assert store.load_prior("qwen.safetensors").model == "local qwen"
    prior("path qwen").save("qwen")
    assert store.load_prior("qwen").model == "path qwen"
    assert store.load_prior(places / "packaged" / "qwen.safetensors").model == "packaged qwen"
    assert store.load_prior("LLaVA-1.5").model == "packaged llava"


def test_folder_of_the_same_name_is_passed_over(places: Path) -> None:
    Path("qwen").mkdir()
    assert store.load_prior("qwen").model == "packaged qwen"


def test_not_found_lists_places_and_near_names(places: Path) -> None:
    with pytest.raises(PriorError, match=r"no prior 'quen': looked at the path quen, priors/, .*packaged/") as caught:
        store.load_prior("quen")
    assert caught.value.hint == "did you mean qwen?"
    with pytest.raises(PriorError) as caught:
        store.load_prior("llava-1.6")
    assert caught.value.hint == "did you mean LLaVA-1.5?"
    with pytest.raises(PriorError) as caught:
        store.load_prior("zzz")
    assert caught.value.hint.startswith("there are LLaVA-1.5, qwen: make one with `biaskit calibrate")


def test_not_found_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(store, "packaged", lambda: tmp_path / "none")
    with pytest.raises(PriorError) as caught:
        store.load_prior("x")
    assert caught.value.hint.startswith("there are none yet")
    assert store.list_priors() == []


@pytest.mark.parametrize("name", ["priors", "."])
def test_a_folder_is_no_prior(places: Path, name: str) -> None:
    with pytest.raises(PriorError, match="no prior") as caught:
        store.load_prior(name)
    assert "is a folder: name a file in it" in caught.value.hint


@pytest.mark.parametrize("name", ["", "..", "../packaged/qwen", "/tmp/none.safetensors", "~/qwen"])
def test_names_do_not_walk_out_of_the_folders(places: Path, name: str) -> None:
    with pytest.raises(PriorError, match="no prior"):
        store.load_prior(name)


def test_damaged_file_is_reported_not_skipped(places: Path) -> None:
    Path("priors/qwen.safetensors").write_bytes(b"")
    with pytest.raises(PriorError, match=r"priors/qwen\.safetensors is empty"):
        store.load_prior("qwen")


def test_list_names_unreadable_files(places: Path) -> None:
    Path("priors/bad.safetensors").write_bytes(b"nonsense, and enough of it")
    Path("priors/README.md").write_text("not a prior")
    prior("local").save("priors/zebra.safetensors")
    found = store.list_priors()
    assert [item.name for item in found] == ["bad", "zebra", "LLaVA-1.5", "qwen"]
    assert found[0].prior is None
    assert found[0].error is not None
    assert "not a safetensors file" in found[0].error.message
    assert found[1].prior is not None
    assert found[1].prior.model == "local"
    assert all(item.error is None for item in found[1:])


def test_checkout_listed_once(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "packaged", lambda: places / "work" / "priors")
    prior("local").save("priors/one.safetensors")
    assert [item.name for item in store.list_priors()] == ["one"]


def test_packaged_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "biaskit"
    package.mkdir()
    monkeypatch.setattr(store, "__file__", str(package / "prior" / "store.py"))
    assert store.packaged() == package / "_priors"  # site-packages/priors would be somebody else's
    (tmp_path / "pyproject.toml").write_text("")
    assert store.packaged() == tmp_path / "priors"
    (package / "_priors").mkdir()
    assert store.packaged() == package / "_priors"


# --- the hub -------------------------------------------------------------------------------------------------------------------------


def hub(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[tuple[str, str]]:
    """Let the hub answer with a path or an error; returns the calls."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    calls: list[tuple[str, str]] = []

    def download(repo: str, file: str) -> str:
        calls.append((repo, file))
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return calls


def test_hub_only_when_asked(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = hub(monkeypatch, places / "packaged" / "qwen.safetensors")
    with pytest.raises(PriorError, match="no prior 'org/repo'") as caught:
        store.load_prior("org/repo")
    assert "--hub" in caught.value.hint
    assert calls == []
    assert store.load_prior("org/repo", hub=True).model == "packaged qwen"
    assert store.load_prior("org/repo/sub/file.safetensors", hub=True).model == "packaged qwen"
    assert calls == [("org/repo", "prior.safetensors"), ("org/repo", "sub/file.safetensors")]


def test_local_wins_over_the_hub(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = hub(monkeypatch, OSError("must not be asked"))
    prior("path").save("org/repo")
    assert store.load_prior("org/repo", hub=True).model == "path"
    assert store.load_prior("qwen", hub=True).model == "packaged qwen"
    with pytest.raises(PriorError, match="no prior 'plain'") as caught:
        store.load_prior("plain", hub=True)
    assert "org/repo" in caught.value.hint
    assert calls == []


@pytest.mark.parametrize(
    ("kind", "message", "hint"),
    [
        ("GatedRepoError", "org/repo is gated", "accept its terms"),
        ("RepositoryNotFoundError", "no org/repo on the hub", "spelling"),
        ("LocalEntryNotFoundError", "cannot be reached", "HF_HUB_OFFLINE"),
        ("EntryNotFoundError", "org/repo has no file prior.safetensors", "org/repo/FILE.safetensors"),
        ("HFValidationError", "cannot be a hub repository", "org/repo"),
        ("OfflineModeIsEnabled", "HF_HUB_OFFLINE is set", "unset it"),
    ],
)
def test_hub_errors(places: Path, monkeypatch: pytest.MonkeyPatch, kind: str, message: str, hint: str) -> None:
    errors = pytest.importorskip("huggingface_hub.errors")
    # A child with a plain constructor: the real ones want the answer of a server.
    plain = type("Plain", (getattr(errors, kind),), {"__init__": lambda self: None, "__str__": lambda self: "why"})
    hub(monkeypatch, plain())
    with pytest.raises(PriorError, match=message) as caught:
        store.load_prior("org/repo", hub=True)
    assert hint in caught.value.hint


def test_hub_offline_for_real(places: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(PriorError, match=r"could not be fetched|cannot be reached"):
        store.load_prior("org/repo", hub=True)


def test_hub_wants_safetensors(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = hub(monkeypatch, places / "packaged" / "qwen.safetensors")
    with pytest.raises(PriorError, match="does not name a prior"):
        store.load_prior("org/repo/pickle.bin", hub=True)
    assert calls == []


def test_hub_file_is_validated(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = places / "bad.safetensors"
    bad.write_bytes(replace(prior("x")).to_bytes()[:-1])
    hub(monkeypatch, bad)
    with pytest.raises(PriorError, match="damaged"):
        store.load_prior("org/repo", hub=True)


@pytest.mark.parametrize("error", [RuntimeError("release unlocked lock"), ValueError("a size that lies"), KeyError("etag"), EOFError()])
def test_whatever_a_broken_answer_makes_of_the_hub_s_code(places: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    hub(monkeypatch, error)
    with pytest.raises(PriorError, match=r"org/repo/prior\.safetensors could not be fetched: .") as caught:
        store.load_prior("org/repo", hub=True)
    assert "try again" in caught.value.hint


def test_an_answer_that_never_ends(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    import huggingface_hub

    over = threading.Event()
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda where, file: over.wait(60))
    monkeypatch.setattr("biaskit.prior.hub.HUB_SECONDS", 0.2)
    with pytest.raises(PriorError, match=r"could not be fetched: not done within 0\.2 s"):
        store.load_prior("org/repo", hub=True)
    over.set()


def test_a_bad_file_in_the_hub_s_cache_is_fetched_again(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    cached = places / "cached.safetensors"
    cached.write_bytes(b"<html>")

    def download(where: str, file: str, force_download: bool = False) -> str:
        if force_download:
            cached.write_bytes((places / "packaged" / "qwen.safetensors").read_bytes())
        return str(cached)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert store.load_prior("org/repo", hub=True).model == "packaged qwen"
