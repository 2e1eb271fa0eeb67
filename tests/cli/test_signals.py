"""Signals that come where what is raised is dropped: in ``__del__``, in callbacks, in reports, in code in C."""

import contextlib
import signal
import subprocess
import sys
import threading
import time

import pytest
from click.testing import CliRunner

from bayes_panns.cli.main import Commands
from bayes_panns.cli.signals import signals_exit
from bayes_panns.core.errors import StoreError
from tests.harness.waiting import PATIENCE

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no kill")

PROGRAM = """
import time, weakref
from pathlib import Path

from bayes_panns.cli.main import main
from bayes_panns.core.files import whole_file

class Thing:
    pass

def say_and_wait(_):
    print('in a callback', flush=True)
    time.sleep(1000)
    print('the callback went on', flush=True)

class Slow:
    def __del__(self):
        thing = Thing()
        kept = weakref.ref(thing, say_and_wait)
        del thing
        # What is raised again comes here, and is dropped once more.
        time.sleep(1000)
        print('__del__ went on', flush=True)

@main.command()
def write_slowly():
    with whole_file(Path('out.txt')) as part:
        part.write_text('half')
        Slow()
        time.sleep(1000)
        print('the command went on', flush=True)

main(['write-slowly'])
"""


class Raising:
    """Raises in ``__del__``, where Python drops it."""

    def __init__(self, error):
        self.error = error

    def __del__(self):
        raise self.error


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGTERM, 143, ""),
        (signal.SIGINT, 130, "bayes-panns: interrupted\n"),
        (signal.SIGUSR1, 75, ""),
    ],
    ids=str,
)
def test_a_signal_in_a_callback_ends_the_command_all_the_same(tmp_path, number, code, said):
    command = [sys.executable, "-W", "error", "-c", PROGRAM]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "in a callback\n", process.communicate()
        process.send_signal(number)
        try:
            shown = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert (process.returncode, *shown) == (code, "", said)
    assert list(tmp_path.iterdir()) == []


def test_other_dropped_exceptions_are_reported_as_before(monkeypatch):
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", reported.append)
    before = sys.unraisablehook
    with signals_exit():
        Raising(ZeroDivisionError())
        assert [each.exc_type for each in reported] == [ZeroDivisionError]
    assert sys.unraisablehook is before


def test_a_signal_in_a_report_is_not_lost(monkeypatch):
    reported = []

    def report(dropped):
        signal.raise_signal(signal.SIGTERM)
        reported.append(dropped.exc_type)

    monkeypatch.setattr(sys, "unraisablehook", report)
    with pytest.raises(SystemExit) as end:
        _dropped_and_waiting()
    assert end.value.code == 143
    assert reported == [ZeroDivisionError]


@signals_exit()
def _dropped_and_waiting():
    Raising(ZeroDivisionError())
    time.sleep(1000)


def test_a_second_signal_does_not_cut_the_cleaning_up_short():
    cleaned = []
    with pytest.raises(SystemExit) as end:
        _told_twice(cleaned)
    assert end.value.code == 75
    assert cleaned == [True]


@signals_exit()
def _told_twice(cleaned):
    try:
        signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.raise_signal(signal.SIGTERM)
        cleaned.append(True)


def test_what_was_lost_is_not_sent_after_the_block(monkeypatch):
    sent, threads = [], []
    monkeypatch.setattr("_thread.start_new_thread", lambda *thread: threads.append(thread))
    monkeypatch.setattr("signal.pthread_kill", lambda *signal: sent.append(signal))
    with signals_exit():
        Raising(KeyboardInterrupt())
        ((send, arguments),) = threads
        send(*arguments)
        assert sent == [(threading.get_ident(), signal.SIGINT)]
    send(*arguments)
    assert len(sent) == 1


@pytest.mark.parametrize("times", [1, 3])
def test_a_signal_that_is_dropped_without_a_report_is_raised_again(monkeypatch, times):
    """As by code in C that takes whatever is raised for a mistake of its own."""
    monkeypatch.setattr("bayes_panns.cli.signals._WATCH", 0.01)
    with pytest.raises(SystemExit) as end:
        _dropped_silently(times)
    assert end.value.code == 143


@signals_exit()
def _dropped_silently(times):
    for number in range(times):
        with contextlib.suppress(SystemExit):
            signal.raise_signal(signal.SIGTERM) if number == 0 else time.sleep(1000)
    time.sleep(1000)


def test_an_error_instead_of_the_signal_counts_as_the_signal():
    group = Commands("group")

    @group.command()
    def replaced():
        with contextlib.suppress(SystemExit):
            signal.raise_signal(signal.SIGTERM)
        raise StoreError("damaged")

    result = CliRunner().invoke(group, ["replaced"])
    assert (result.exit_code, result.output) == (143, "")
