"""The results directory under odd files and a full disk."""

from __future__ import annotations

import errno
import os

import pytest

from biaskit.errors import FileError, PriorError
from biaskit.validation.results.directory import MANIFEST, RESULTS, TIMING, Directory

RECORD = {"task": "t", "cell": "none", "id": "1", "scores": {"correct": 1.0}}


@pytest.mark.parametrize("name", [RESULTS, MANIFEST, TIMING])
@pytest.mark.parametrize("force", [False, True])
def test_a_pipe_under_a_name_of_ours_is_refused_and_stays(tmp_path, name, force):
    os.mkfifo(tmp_path / name)
    with pytest.raises(FileError, match=f"{name} is a pipe"), Directory(tmp_path).held(force=force):
        pytest.fail("it was taken")
    assert (tmp_path / name).is_fifo()


def test_a_full_disk_is_no_fault_of_a_prior(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    directory = Directory(tmp_path)
    with directory.held(force=False):
        directory.append([RECORD], "correct", {"seconds": 1.0})
        before = directory.results.read_bytes()
        monkeypatch.setattr(os, "fsync", full)
        for call in (lambda: directory.write_manifest({"schema": 1}), lambda: directory.rewrite([])):
            with pytest.raises(FileError, match="No space left") as caught:
                call()
            assert not isinstance(caught.value, PriorError)
    assert directory.results.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [RESULTS, TIMING]
