"""Several processes: the bytes of one, whatever their number, whoever is killed, and however many go on."""

from __future__ import annotations

import signal

import numpy as np
import pytest
from PIL import Image
from processes import dying, together, torchrun_that_loses_rank_1

from biaskit.calibration.ranks import Ranks
from biaskit.calibration.run import calibrate
from biaskit.calibration.state import States
from biaskit.errors import BiaskitError, CalibrationError, ImageSkipped
from biaskit.families.checkpoints.load import Loaded, load_model
from biaskit.families.checkpoints.tiny import tiny_model
from biaskit.images import open_source
from biaskit.images.base import View, order
from biaskit.images.generated import GeneratedSource

N = 14


class Pictures(View):
    """Generated pictures of several sizes, some of which cannot be read."""

    def __init__(self, n=24, bad=(2, 3, 9)):
        super().__init__(GeneratedSource(n, 0), range(n))
        self.bad = {int(order(self, 0)[place]) for place in bad}

    def load(self, index):
        if index in self.bad:
            raise ImageSkipped(f"{self.identify(index)} is spoilt")
        picture = super().load(index)
        return picture.resize((picture.width // (1 + index % 3), picture.height), Image.Resampling.BILINEAR)


@pytest.fixture(scope="module")
def unit():
    """Widths of the pictures differ, and with them the padding in a batch: who is batched with whom shows in the last bits."""
    model, processor, family = tiny_model("qwen2.5-vl")
    return Loaded(model, processor, family, "qwen2.5-vl", "test")


def run(unit, out, **more):
    settings = {"samples": N, "batch_size": 2, "workers": 0, "layers": "all", "save_every": 0.0, "progress": False, **more}
    return calibrate(unit, more.pop("source", None) or Pictures(), out=out, **{k: v for k, v in settings.items() if k != "source"})


@pytest.fixture(scope="module")
def whole(unit):
    return run(unit, None).to_bytes()


def kill(unit, out, count, victim, after):
    """Let so many processes count so many batches each, then kill one of them; the others are ended as torchrun does."""
    reports = dying(count, victim, after, out.parent.parent / f"{out.parent.name}-notes")
    codes = together(count, lambda rank: run(unit, out, report=reports(rank)))
    assert codes[victim] == -signal.SIGKILL and all(codes)


@pytest.mark.parametrize("count", [2, 3, 9])
def test_any_number_of_processes_gives_the_bytes_of_one(unit, whole, tmp_path, count):
    out = tmp_path / "prior.safetensors"
    assert together(count, lambda rank: run(unit, out)) == [0] * count
    assert out.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("counts", "victims"), [((1, 2), (0,)), ((2, 1), (1,)), ((2, 3), (0,)), ((3, 2, 1), (2, 0)), ((2, 2), (1,)), ((1, 3, 1), (0, 1))]
)
def test_a_state_goes_on_under_any_number_of_processes(unit, whole, tmp_path, counts, victims):
    out = tmp_path / "prior.safetensors"
    for count, victim in zip(counts, victims, strict=False):
        kill(unit, out, count, victim, after=2)
        assert not out.exists() and States(out, 0).files()
    seen = []

    def last(rank):
        if counts[-1] == 1:
            run(unit, out, report=lambda progress: seen.append(progress.done))
            assert seen[0] >= 2, "what the killed processes did counts"
        else:
            run(unit, out)

    assert together(counts[-1], last) == [0] * counts[-1]
    assert out.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [out]


def test_the_others_notice_a_lost_process_and_keep_what_they_did(unit, whole, tmp_path):
    """Without torchrun, which would end them: an error that says what to do, and no work lost."""
    out, words = tmp_path / "prior.safetensors", tmp_path / "words"

    def act(rank):
        report = dying(1, 1, 1, tmp_path.parent / f"{tmp_path.name}-notes")(rank) if rank == 1 else None
        try:
            run(unit, out, save_every=1e6, report=report)
        except BiaskitError as error:
            words.write_text(f"{error.message}\n{error.hint}")
            raise SystemExit(3) from None

    assert together(2, act, stop=False) == [3, -signal.SIGKILL]
    message, hint = words.read_text().splitlines()
    assert message.startswith("process 0 of 2 has lost the others") and "the same command resumes" in hint
    words.unlink()
    first = []
    assert run(unit, out, report=lambda progress: first.append(progress.done)).to_bytes() == whole
    assert first[0] >= 6, "the survivor's share was kept"
    assert list(tmp_path.iterdir()) == [out]


def test_a_state_that_was_taken_in_and_not_deleted_is_not_counted_again(unit, whole, tmp_path):
    out = tmp_path / "prior.safetensors"
    kill(unit, out, 2, 0, after=2)
    files = States(out, 0).files()
    old = {path: path.read_bytes() for path in files}
    assert len(files) == 2

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(unit, out, report=stop)
    assert [path.name for path in States(out, 0).files()] == [f"{out.name}.partial"]
    (left,) = (path for path in old if path.name.endswith(".partial.1"))
    left.write_bytes(old[left])  # as if killed before deleting it
    assert run(unit, out).to_bytes() == whole
    assert list(tmp_path.iterdir()) == [out]


def test_states_of_the_same_images_are_refused(unit, tmp_path):
    out = tmp_path / "prior.safetensors"
    for name in (".partial", ".partial.1"):

        def stop(progress):
            if progress.done:
                raise KeyboardInterrupt

        other = tmp_path / name / "prior.safetensors"
        with pytest.raises(KeyboardInterrupt):
            run(unit, other, report=stop)
        other.with_name(f"{other.name}.partial").rename(f"{out}{name}")
    with pytest.raises(CalibrationError, match=r"\.partial\.1 has [0-9]+ images that another state has, too"):
        run(unit, out)


@pytest.mark.parametrize("count", [1, 2])
def test_too_many_skips_on_any_process_stop_all_and_are_tried_again(unit, tmp_path, count):
    out = tmp_path / "prior.safetensors"
    calm = run(unit, None, source=Pictures(bad=()), max_skips=1).to_bytes()

    def act(rank):
        try:
            run(unit, out, source=Pictures(bad=(2, 3, 7, 9)), max_skips=1)
        except CalibrationError as error:
            raise SystemExit(7 if "images could not be used" in error.message else 1) from None

    assert 7 in together(count, act)
    assert together(3 - count, lambda rank: run(unit, out, source=Pictures(bad=()), max_skips=1)) == [0] * (3 - count)
    assert out.read_bytes() == calm
    assert list(tmp_path.iterdir()) == [out]


def test_a_prior_that_was_written_ends_the_run_on_all_processes(unit, whole, tmp_path):
    """Killed after writing the prior and before deleting the states; and an older prior is refused by all, not waited for."""
    out = tmp_path / "prior.safetensors"
    kill(unit, out, 2, 0, after=2)
    states = {path: path.read_bytes() for path in States(out, 0).files()}
    assert run(unit, out).to_bytes() == whole
    for path, data in states.items():
        path.write_bytes(data)
    assert together(2, lambda rank: run(unit, out)) == [0, 0]
    assert list(tmp_path.iterdir()) == [out] and out.read_bytes() == whole

    assert together(3, lambda rank: run(unit, out)) == [0, 0, 0], "a finished run is finished for all"
    out.write_bytes(b"of another program")

    def refused(rank):
        with pytest.raises(BiaskitError, match="prior"):
            run(unit, out)

    assert together(3, refused) == [0, 0, 0]


def test_restart_throws_away_the_states_of_all(unit, whole, tmp_path):
    out = tmp_path / "prior.safetensors"
    kill(unit, out, 3, 0, after=2)
    (tmp_path / f"{out.name}.partial.0of2").write_bytes(b"of an older version")
    with pytest.raises(CalibrationError, match="not a state of a calibration"):
        run(unit, out)
    first = []
    assert run(unit, out, restart=True, report=lambda progress: first.append(progress.done)).to_bytes() == whole
    assert first[0] == 0 and list(tmp_path.iterdir()) == [out]


def test_what_cannot_be_reached_is_said(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(BiaskitError, match="process 0 of 2 has lost the others") as caught:
        Ranks()
    assert "torchrun" in caught.value.hint


def test_torchrun_a_killed_rank_and_another_number(tmp_path, checkpoint):
    """The command itself: rank 1 is killed from outside, one process goes on; the bytes are those of a run that nobody disturbed."""
    folder, out = str(checkpoint("llava-1.5")), tmp_path / "two.safetensors"
    words = ["calibrate", "--model", folder, "--data", "generated", "-n", "60", "--batch-size", "1", "--workers", "0", "--save-every", "0"]
    words += ["--device", "cpu", "--out", str(out)]
    torchrun_that_loses_rank_1(words, *(tmp_path / f"{out.name}.partial{rank}" for rank in ("", ".1")))
    assert not out.exists() and len(States(out, 0).files()) == 2
    first = []
    settings = {"samples": 60, "batch_size": 1, "workers": 0}
    unit, source = load_model(folder), open_source("generated", n=60, seed=0)
    calibrate(unit, source, out=out, report=lambda progress: first.append(progress.done), **settings)
    assert first[0] >= 1
    assert out.read_bytes() == calibrate(unit, source, **settings).to_bytes()
    assert list(tmp_path.iterdir()) == [out]


def test_means_are_those_of_a_plain_average(unit, whole):
    """The exact sums give what NumPy gives, to rounding."""
    from biaskit.prior.value import Prior

    found = Prior.from_bytes(whole).planes["image"]
    weights = found.group_count / found.group_count.sum()
    np.testing.assert_allclose(found.mean, np.tensordot(weights, found.group_mean, 1), rtol=1e-5)
