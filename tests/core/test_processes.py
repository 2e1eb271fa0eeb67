"""Processes of another one: what they do with signals."""

import importlib
import multiprocessing
import os
import signal
import types
from concurrent.futures import Future
from pathlib import Path

import pytest

from bayes_panns.core.processes import signals_held, subordinate
from bayes_panns.ranks import processes

ALL = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]


def blocked():
    return signal.pthread_sigmask(signal.SIG_BLOCK, [])


def bear(connection):
    """Hear signals before and after the beginning of a life."""
    for number in ALL:
        os.kill(os.getpid(), number)
    subordinate()
    for number in ALL:
        os.kill(os.getpid(), number)
    connection.send(blocked().isdisjoint(ALL))


def test_signals_are_left_to_the_process_that_starts():
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=bear, args=(theirs,), daemon=True)
    with signals_held():
        process.start()
        theirs.close()
    assert blocked().isdisjoint(ALL)
    assert ours.recv() is True
    process.join()
    assert process.exitcode == 0


def test_processes_of_a_crew_start_so(monkeypatch):
    started = []

    def process(**given):
        return types.SimpleNamespace(
            start=lambda: started.append(blocked()), join=lambda seconds: None, is_alive=lambda: False
        )

    context = types.SimpleNamespace(Pipe=multiprocessing.Pipe, Process=process)
    monkeypatch.setattr(processes.multiprocessing, "get_context", lambda kind: context)
    assert list(processes.by_processes(iter([]), print, None, 2)) == []
    assert [set(ALL) <= each for each in started] == [True, True]


@pytest.mark.parametrize(("jobs", "held"), [(2, True), (1, False)])
def test_processes_that_decode_start_so_and_threads_do_not(jobs, held, monkeypatch):
    # The programs that threads start would not hear SIGTERM either.
    started = []

    class Pool:
        def __init__(self, *given):
            pass

        def submit(self, work, piece):
            started.append(set(ALL) <= blocked())
            done = Future()
            done.set_result(work(piece))
            return done

        def shutdown(self, **options):
            pass

    # The package has a function of that name.
    pack = importlib.import_module("bayes_panns.clips.pack")
    monkeypatch.setattr(pack, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(pack, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(pack, "PROCESSES_FROM", 1)
    with pack._decoding(Path("out.h5"), str.upper, ["a", "b"], jobs, 10) as from_index:
        assert list(from_index(0)) == ["A", "B"]
    assert started == [held, held]
