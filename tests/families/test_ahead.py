"""Workers are quiet about a main process that was interrupted, and about nothing else."""

from __future__ import annotations

import resource
import signal
import sys

import pytest
import torch
from torch.utils.data import Dataset

from biaskit.errors import BiaskitError
from biaskit.families.checkpoints.ahead import _unless_parent_left, ahead


def test_only_a_broken_connection_is_not_told(capsys):
    for error in (ConnectionResetError("reset by peer"), BrokenPipeError(), EOFError()):
        _unless_parent_left(type(error), error, None)
    assert capsys.readouterr().err == ""
    _unless_parent_left(ValueError, ValueError("a fault of ours"), None)
    assert "ValueError: a fault of ours" in capsys.readouterr().err


class Unsendable(Dataset):
    """Items that a worker makes and cannot hand over."""

    def __init__(self, how):
        self.how = how

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if self.how == "shared memory is full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            return torch.zeros(1000)
        return lambda: None


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the system")
@pytest.mark.parametrize("how", ["shared memory is full", "not picklable"])
def test_what_cannot_be_handed_over_is_an_error_and_no_hang(how):
    with pytest.raises(BiaskitError, match="the preprocessing workers died") as caught:
        list(ahead(Unsendable(how), workers=1, pin=False))
    assert "workers" in caught.value.hint
