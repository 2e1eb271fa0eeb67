"""Notices among processes that come before somebody waits for them, or as what they end has ended."""

import logging
import queue
import signal
import socket
import threading
import time
import types
from functools import partial
from multiprocessing import Pipe

import pytest
import torch

from bayes_panns.core.errors import ProcessError
from bayes_panns.ranks import crew, helper, interruption, processes
from bayes_panns.ranks.job import ASK, DONE, END, ERROR, JOB, MADE, PIECE, SAID, Job
from bayes_panns.ranks.links import SILENCE, Link, _notice_silence
from tests.harness.waiting import PATIENCE, until

LONG = PATIENCE
"""Seconds after which something has waited in vain."""


@pytest.fixture
def links():
    """Both ends of a connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other = server.accept()[0]
    found = Link(one), Link(other)
    yield found
    for link in found:
        link.close()


def beside(work):
    """Do something in another thread; what to wait for it with."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(("here", "limit"), [("127.", 0), ("none", 120_000)], ids=["within-a-host", "between-hosts"])
def test_a_silent_host_is_lost_after_two_minutes(here, limit, links, monkeypatch):
    # Within a host, a process that is stopped for a while is waited for.
    monkeypatch.setattr("bayes_panns.ranks.links._LOOPBACK", here)
    for link in links:
        with socket.fromfd(link.connection.fileno(), socket.AF_INET, socket.SOCK_STREAM) as connected:
            _notice_silence(connected)
            assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            if hasattr(socket, "TCP_KEEPIDLE"):
                names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
                idle, every, times, unread = (
                    connected.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names
                )
                assert idle + every * times == SILENCE == 120
                assert unread == limit


def test_a_message_that_a_signal_interrupts_is_sent_whole(links):
    ours, theirs = links
    heard = []

    def listen():
        # It has begun to be sent, and nobody takes it; then Ctrl-C comes.
        theirs.connection.poll(LONG)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        interrupted.wait(LONG)
        heard.extend(theirs.receive() for _ in range(2))

    interrupted = threading.Event()
    thread = beside(listen)
    with pytest.raises(KeyboardInterrupt):
        ours.send("first", torch.ones(8_000_000))
    interrupted.set()
    ours.send("second")
    thread.join(LONG)
    assert [kind for kind, _ in heard] == ["first", "second"]
    assert heard[0][1].sum() == 8_000_000


def test_nothing_can_be_sent_on_a_closed_connection(links):
    links[0].close()
    with pytest.raises(OSError, match="closed"):
        links[0].send("late")
    with pytest.raises(EOFError):
        links[1].receive()


def test_an_interrupt_that_is_sent_as_a_block_ends_arrives_in_it(monkeypatch):
    sent, block = [], interruption.Interruption()

    def arrives(*_):
        if sent:
            sent.clear()
            raise KeyboardInterrupt

    # A signal is certain to arrive at the next system call only.
    monkeypatch.setattr(signal, "pthread_kill", lambda *signal: sent.append(signal))
    monkeypatch.setattr(signal, "pthread_sigmask", arrives)
    with pytest.raises(KeyboardInterrupt), block.block():
        block.ask()
    assert not sent
    block.ask()
    assert not sent
    begun = []
    with pytest.raises(KeyboardInterrupt), block.block():
        begun.append(True)
    assert not begun


def test_a_signal_that_comes_just_before_the_waiting_is_noticed():
    messages = queue.SimpleQueue()

    def interrupt():
        # One that another thread takes does not wake the main thread, as if it had come before that slept.
        noticed.wait(0.3)
        signal.raise_signal(signal.SIGINT)
        if not noticed.wait(LONG):
            late.append(True)
            messages.put("to go on")

    noticed, late = threading.Event(), []
    thread = beside(interrupt)
    with pytest.raises(KeyboardInterrupt):
        interruption.taken(messages)
    noticed.set()
    thread.join(LONG)
    assert not late


def piece_by_piece(found):
    """A job: says that it has a piece, and waits to be interrupted."""

    def make(piece):
        found.append(piece)
        if not threading.Event().wait(LONG):
            found.append("waited in vain")
        yield piece

    return make


def first(link, *answers, until=ASK):
    """The other side of a helper: gives a job, and answers what is asked; then it ends well."""

    def give():
        link.send(JOB, Job(started, None))
        for answer in answers:
            while link.receive()[0] != until:
                pass
            link.send(*answer)

    return beside(give)


taken_pieces = []


def started(setup):
    return piece_by_piece(taken_pieces)


def test_a_process_does_not_go_on_with_a_piece_that_is_not_wanted(links, monkeypatch):
    taken_pieces.clear()
    monkeypatch.setattr(helper, "_LAST_WORD", 0)

    class Ends(list):
        def append(self, piece):
            super().append(piece)
            links[0].send(END)

    monkeypatch.setitem(globals(), "taken_pieces", Ends())
    thread = first(links[0], (PIECE, "a"))
    helper.Helper(links[1]).work()
    thread.join(LONG)
    assert taken_pieces == ["a"]


def test_an_end_in_place_of_a_piece_is_heard(links):
    first(links[0], (END,))
    worker = helper.Helper(links[1])
    # In another thread, which is not interrupted: it has to notice by itself.
    thread = beside(worker.work)
    thread.join(LONG)
    assert not thread.is_alive()


def test_an_end_is_heard_by_who_fails_as_it_comes(links, monkeypatch):
    def fails(link, kind, content=None):
        if link is links[0]:
            send(link, kind, content)
            return
        if kind == ERROR:
            # The connection is closed, and the end was not read yet.
            beside(lambda: (threading.Event().wait(0.2), links[0].send(END)))
        raise BrokenPipeError

    send = Link.send
    monkeypatch.setattr(Link, "send", fails)
    monkeypatch.setattr(helper, "_LAST_WORD", 0)
    links[0].send(JOB, Job(started, None))
    helper.Helper(links[1]).work()


@pytest.fixture
def elsewhere(links, monkeypatch):
    """What another process does of pieces of work; the other process is the second link."""

    def of(pieces, ahead=None):
        monkeypatch.setattr(crew, "group", lambda: types.SimpleNamespace(size=2))
        crew._free[:] = [(1, links[0])]
        return crew.Elsewhere(crew.Pieces(pieces), Job(started, None), ahead)

    yield of
    crew._free.clear()


def test_a_failure_elsewhere_lets_no_own_work_begin(elsewhere, links):
    def unreadable():
        raise FileNotFoundError("a.wav is gone")
        yield

    there = elsewhere(unreadable())
    assert links[1].receive()[0] == JOB
    links[1].send(ASK)
    # It is about what was read, not about the process that asked for it.
    with pytest.raises(FileNotFoundError):
        list(there.rest())
    begun = []
    with pytest.raises(FileNotFoundError), there.unless_failed():
        begun.append(True)
    assert not begun


def test_what_was_made_before_somebody_waits_is_not_lost(elsewhere, links):
    there = elsewhere(["a"])
    said = [links[1].receive()]
    links[1].send(ASK)
    said.append(links[1].receive())
    for kind in (MADE, DONE):
        links[1].send(kind, "made")
    while not crew._free:
        threading.Event().wait(0.01)
    assert [kind for kind, _ in said] == [JOB, PIECE]
    assert [*there.arrived(), *there.rest()] == ["made"]


def test_no_more_is_made_while_results_wait_to_be_taken(elsewhere, links, caplog):
    there = elsewhere(range(9), 2)
    assert links[1].receive()[0] == JOB
    for number in range(2):
        links[1].send(ASK)
        assert links[1].receive() == (PIECE, number)
        links[1].send(MADE, number)
    links[1].send(ASK)
    # What comes later is heard, so the question was.
    links[1].send(SAID, ("bayes_panns", logging.WARNING, "still here"))
    until(lambda: "still here" in caplog.text)
    assert not links[1].connection.poll()
    assert list(there.arrived()) == [0, 1]
    assert links[1].receive() == (PIECE, 2)
    links[1].send(DONE)
    assert list(there.rest()) == []


def test_a_lost_host_is_named():
    with pytest.raises(ProcessError, match="rank 3 has not answered for 120 s"), crew._named(3):
        raise TimeoutError(110, "Connection timed out")
    with pytest.raises(ProcessError, match="rank 3 was killed"), crew._named(3):
        raise EOFError


def test_a_process_that_is_killed_before_it_gets_a_piece_is_named():
    ours, theirs = Pipe()
    theirs.close()
    process = types.SimpleNamespace(join=lambda seconds: None, exitcode=-9)
    with pytest.raises(ProcessError, match="exit code -9"):
        processes._Worker(process, ours).given(iter(["piece"]))
    ours.close()


def test_an_error_before_the_first_piece_is_not_taken_for_a_kill():
    ours, theirs = Pipe()
    theirs.send((processes._ERROR, ValueError("no such model")))
    theirs.close()
    process = types.SimpleNamespace(join=lambda seconds: None, exitcode=0)
    with pytest.raises(ValueError, match="no such model"):
        processes._Worker(process, ours).given(iter(["piece"]))
    ours.close()


@pytest.mark.long
def test_a_signal_that_comes_just_before_processes_are_waited_for_is_noticed(monkeypatch):
    waiting, noticed, late = threading.Event(), threading.Event(), []

    def wait(*arguments):
        waiting.set()
        return waited(*arguments)

    def interrupt():
        waiting.wait()
        noticed.wait(0.3)
        signal.raise_signal(signal.SIGINT)
        if not noticed.wait(LONG):
            late.append(True)

    waited = processes.wait
    monkeypatch.setattr(processes, "wait", wait)
    thread = beside(interrupt)
    with pytest.raises(KeyboardInterrupt):
        # A process that sleeps for longer than that.
        list(processes.by_processes(iter([3 * LONG]), partial, time.sleep, 1))
    noticed.set()
    thread.join()
    assert not late
