"""Priors are pushed to the hub and pulled from it: huggingface_hub itself, against a stand-in of the hub on this machine."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from biaskit.cli.app import app
from biaskit.errors import FileError, PriorError
from biaskit.prior import store
from biaskit.prior.hub import pull_prior
from biaskit.prior.publish import card, push_prior
from biaskit.prior.value import PlaneStats, Prior


def prior(seed=0):
    mean = np.random.default_rng(seed).gamma(9, 0.1, (2, 4, 5)).astype(np.float32)
    meta = {"model": "org/model", "model_type": "llava", "kind": "calibrated", "n_images": "7", "prompt": '["a | b"]'}
    return Prior({"image": PlaneStats(mean)}, (1, 4), np.full(2, 0.5, np.float32), meta)


class Hub(BaseHTTPRequestHandler):
    """Just so much of the hub as a push and a pull need; commits are kept whole: sha → files."""

    def answer(self, body=b"", code=200, **headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        state = self.server.state
        state.asked.append(self.path)
        if state.refuse:
            self.answer(b'{"error": "no token"}', 401)
        elif self.path.startswith("/api/repos/create"):
            state.private = json.loads(body).get("private") or json.loads(body).get("visibility") == "private"
            self.answer(json.dumps({"url": f"{state.url}/{json.loads(body)['organization']}/{json.loads(body)['name']}"}).encode())
        elif self.path == "/api/validate-yaml":
            assert json.loads(body)["content"].startswith("---\n")
            self.answer(b'{"warnings": [], "errors": []}')
        elif "/preupload/" in self.path:
            files = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
            self.answer(json.dumps({"files": files}).encode())
        else:
            lines = [json.loads(line) for line in body.splitlines()]
            files = {line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"}
            sha = hashlib.sha1(body).hexdigest()
            state.commits[sha], state.head = {**state.commits.get(state.head, {}), **files}, sha
            repo = self.path.removeprefix("/api/models/").partition("/commit/")[0]
            self.answer(json.dumps({"commitUrl": f"{state.url}/{repo}/commit/{sha}", "commitOid": sha}).encode())

    def do_GET(self):
        state = self.server.state
        state.asked.append(self.path)
        if self.path.startswith("/api/models/"):
            revision = self.path.partition("?")[0].partition("/revision/")[2] or "main"
            sha = state.head if revision == "main" else revision
            if sha not in state.commits:
                self.answer(b"{}", 404, X_Error_Code="RevisionNotFound")
            else:
                self.answer(json.dumps({"id": "org/repo", "sha": sha, "siblings": []}).encode(), Content_Type="application/json")
            return
        revision, _, file = self.path.partition("?")[0].partition("/resolve/")[2].partition("/")
        found = state.commits.get(revision, {}).get(file)
        if found is None:
            self.answer(b"", 404, X_Error_Code="EntryNotFound")
        else:
            self.answer(found, X_Repo_Commit=revision, ETag=f'"{hashlib.sha1(found).hexdigest()}"')

    do_HEAD = do_GET

    def log_message(self, *words):
        pass


def made_for(url):
    make = huggingface_hub.HfApi.__init__
    return lambda api, **more: make(api, **{**more, "endpoint": url})


@pytest.fixture
def hub(tmp_path, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    state = SimpleNamespace(commits={}, head=None, asked=[], refuse=False, private=None, url=f"http://127.0.0.1:{server.server_port}")
    server.state = state
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.HfApi, "__init__", made_for(state.url))
    download = huggingface_hub.hf_hub_download
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda *words, **more: download(*words, endpoint=state.url, cache_dir=tmp_path / "hub", **more)
    )
    monkeypatch.chdir(tmp_path)
    yield state
    server.shutdown()
    server.server_close()


def test_what_is_pushed_is_pulled_at_its_commit_with_its_checksum(hub):
    pushed = push_prior(prior(), "org/repo", private=True)
    assert hub.private and pushed.revision == hub.head
    files = hub.commits[hub.head]
    assert files["prior.safetensors"] == prior().to_bytes()
    assert files["SHA256SUMS"].decode() == f"{pushed.sha256}  prior.safetensors\n"
    again = push_prior(prior(1), "org/repo")
    newest = pull_prior("org/repo", Path("priors"))
    assert (newest.revision, newest.sha256, newest.checked) == (again.revision, again.sha256, True)
    assert newest.path == Path("priors/repo.safetensors") and newest.path.read_bytes() == prior(1).to_bytes()
    old = pull_prior("org/repo", Path("old.safetensors"), revision=pushed.revision)
    assert old.path.read_bytes() == prior().to_bytes() and old.revision == pushed.revision
    with pytest.raises(FileError, match="exists"):
        pull_prior("org/repo", Path("priors"))
    assert store.load_prior("repo").to_bytes() == prior(1).to_bytes()
    places = {(item.name, item.place) for item in store.list_priors()}
    assert {("repo", "local"), ("org/repo", "cached")} <= places


def test_a_file_that_is_not_the_published_one_is_refused(hub):
    push_prior(prior(), "org/repo")
    hub.commits[hub.head]["prior.safetensors"] = prior(1).to_bytes()
    with pytest.raises(PriorError, match="published is") as caught:
        pull_prior("org/repo", Path("priors"))
    assert "do not use it" in caught.value.hint and not Path("priors").exists()
    del hub.commits[hub.head]["SHA256SUMS"]
    push_prior(prior(), "org/other")
    hub.commits[hub.head]["prior.safetensors"] = b"nonsense"
    hub.commits[hub.head]["SHA256SUMS"] = b""
    with pytest.raises(PriorError, match="not a safetensors file"):
        pull_prior("org/other", Path("priors"))


def test_without_a_published_checksum_it_is_said(hub):
    push_prior(prior(), "org/repo")
    del hub.commits[hub.head]["SHA256SUMS"]
    done = CliRunner().invoke(app, ["priors", "pull", "org/repo"])
    assert done.exit_code == 0 and done.stdout == "priors/repo.safetensors\n" and "no checksum is published there" in done.stderr


def test_the_commands(hub):
    prior().save("mine.safetensors")
    pushed = CliRunner().invoke(app, ["priors", "push", "mine.safetensors", "org/repo", "--json"])
    assert pushed.exit_code == 0, pushed.exception
    facts = json.loads(pushed.stdout)
    pulled = CliRunner().invoke(app, ["priors", "pull", "org/repo", "--revision", facts["revision"], "--json"])
    assert json.loads(pulled.stdout) == {"path": "priors/repo.safetensors", **facts, "checked": True}
    listed = CliRunner().invoke(app, ["priors", "list"]).stdout
    assert "local" in listed and "packaged" in listed and "cached" in listed


def test_who_may_not_write_is_told_to_log_in(hub):
    hub.refuse = True
    with pytest.raises(PriorError) as caught:
        push_prior(prior(), "org/repo")
    assert "hf auth login" in caught.value.hint
    with pytest.raises(PriorError, match="cannot be a hub repository"):
        push_prior(prior(), "repo")


def test_the_card_says_what_the_file_says():
    text = card(prior(), "org/repo", "0" * 64)
    front = text.split("---")[1]
    assert "base_model: org/model" in front and "library_name: biaskit" in front
    assert '| prompt | ["a \\| b"] |' in text and "| n_images | 7 |" in text and "0" * 64 in text
    assert "$ biaskit priors pull org/repo" in text and "| 4 | image |" in text
