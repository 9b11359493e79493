"""Several processes as torchrun starts them, forked from the tests, so that nothing is imported again."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time

import psutil
from command import environment

_PATIENCE = 60.0  # seconds


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _enter(act, rank, count, port):
    faulthandler.dump_traceback_later(_PATIENCE - 5, file=2)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    act(rank)


def together(count, act, *, stop=True, kill=None):
    """Call `act(rank)` in so many processes; return their exit codes.

    Args:
        stop: end the others when one is lost, as torchrun does; else they must notice it themselves.
        kill: (rank, seconds) kills one of them so much later, if it still runs.
    """
    port = free_port()
    context = multiprocessing.get_context("fork")
    if count == 1:
        group = [context.Process(target=act, args=(0,))]
    else:
        group = [context.Process(target=_enter, args=(act, rank, count, port)) for rank in range(count)]
    for one in group:
        one.start()
    began = time.monotonic()
    end = began + _PATIENCE
    while any(one.is_alive() for one in group):
        if kill is not None and time.monotonic() > began + kill[1]:
            group[kill[0]].kill()
        if stop and any(one.exitcode for one in group):
            for one in group:
                one.terminate()
        if time.monotonic() > end:
            for one in group:
                one.kill()
            raise AssertionError("the processes hang")
        time.sleep(0.02)
    return [one.exitcode for one in group]


def torchrun_that_loses_rank_1(words, *until, cwd=None):
    """Run `biaskit WORDS` under torchrun in two processes, and kill the second from outside once the files `until` are there."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "biaskit", *words]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    agent = subprocess.Popen(command, cwd=cwd, env=environment(OMP_NUM_THREADS="1"), **quiet)
    try:
        end = time.monotonic() + 2 * _PATIENCE
        while not all(path.exists() for path in until) and agent.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        for child in psutil.Process(agent.pid).children():
            if child.environ().get("RANK") == "1":
                child.kill()
        assert agent.wait(_PATIENCE) != 0
    finally:
        agent.kill()


def dying(count, victim, after, notes):
    """Return what makes a report for each process: the victim kills itself after so many calls, once all others have come as far.

    Args:
        notes: a folder of its own, for how far they are. The others then wait for whoever ends them.
    """
    notes.mkdir(exist_ok=True)
    for old in notes.iterdir():
        old.unlink()

    def reports(rank):
        seen = []

        def report(progress):
            seen.append(progress)
            if len(seen) <= after:
                return
            (notes / str(rank)).touch()
            end = time.monotonic() + _PATIENCE
            while time.monotonic() < end and (rank != victim or len(list(notes.iterdir())) < count):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)

        return report

    return reports
