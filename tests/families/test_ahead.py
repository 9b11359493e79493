"""Workers are quiet about a main process that was interrupted, and about nothing else."""

from __future__ import annotations

from biaskit.families.checkpoints.ahead import _unless_parent_left


def test_only_a_broken_connection_is_not_told(capsys):
    for error in (ConnectionResetError("reset by peer"), BrokenPipeError(), EOFError()):
        _unless_parent_left(type(error), error, None)
    assert capsys.readouterr().err == ""
    _unless_parent_left(ValueError, ValueError("a fault of ours"), None)
    assert "ValueError: a fault of ours" in capsys.readouterr().err
