"""Progress: silent unless it is shown, and then on standard error."""

import io
import os
import subprocess
import sys
from contextlib import contextmanager, redirect_stderr

import pytest

from bayes_panns.core import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """A terminal as standard error, wherever progress is shown."""
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    shown = progress.shown

    @contextmanager
    def shown_there(visible=True):
        with redirect_stderr(stream), shown(visible):
            yield

    monkeypatch.setattr(progress, "shown", shown_there)
    return stream


def work():
    with progress.task("packing", total=3, unit="clip", done=1) as task:
        task.advance()
        task.show("loss 0.25")
        task.advance()


def test_nothing_is_shown_by_default(capfd):
    work()
    assert list(progress.track("abc", "reading", total=3, unit="file")) == ["a", "b", "c"]
    assert not progress.visible()
    assert capfd.readouterr() == ("", "")


def test_a_shown_task_has_its_words_and_counts_from_what_was_done(terminal, capfd):
    with progress.shown():
        assert progress.visible()
        with progress.task("packing", total=3, unit="clip", done=1) as task:
            task.advance()
            task.show("loss 0.25")
            bars = progress._bars.get()
            (bar,) = bars.tasks
            assert (bar.description, bar.completed, bar.total) == ("packing", 2, 3)
            assert bar.fields == {"unit": "clip", "text": "loss 0.25"}
            bars.refresh()
        assert bars.tasks == []
    assert not progress.visible()
    shown = terminal.getvalue()
    for words in ("packing", "2/3", "clip", "loss 0.25"):
        assert words in shown
    assert capfd.readouterr().out == ""


def test_tracked_items_count_when_the_next_is_asked_for(terminal):
    with progress.shown():
        bars, seen = progress._bars.get(), []
        for item in progress.track("abc", "reading", total=3, unit="file"):
            seen.append((item, bars.tasks[0].completed))
        assert seen == [("a", 0), ("b", 1), ("c", 2)]
        assert bars.tasks == []


def test_a_failing_task_takes_its_bar_away(terminal):
    def fail():
        with progress.task("packing", total=None, unit="clip"):
            raise RuntimeError

    with progress.shown():
        with pytest.raises(RuntimeError):
            fail()
        assert progress._bars.get().tasks == []
    assert not progress.visible()


def test_bars_are_shown_once_and_only_where_asked(terminal):
    with progress.shown(False):
        assert not progress.visible()
    with progress.shown():
        bars = progress._bars.get()
        with progress.shown(), progress.shown(False):
            assert progress._bars.get() is bars
        assert progress.visible()


def test_square_brackets_are_words(terminal):
    with progress.shown(), progress.task("[red]a[/]", total=1, unit="[b]") as task:
        task.show("[i]")
        progress._bars.get().refresh()
    for words in ("[red]a[/]", "[b]", "[i]"):
        assert words in terminal.getvalue()


RESULTS = """
import sys
from bayes_panns.core import progress
with progress.shown(sys.stderr.isatty()):
    with progress.task("packing", total=3, unit="clip") as task:
        task.advance()
        print("a row of results")
        print("a warning", file=sys.stderr)
    print("the last row")
"""


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_results_go_to_standard_output_while_a_terminal_shows_bars():
    import pty

    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "160"}
    command = [sys.executable, "-c", RESULTS]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, env=environment, text=True, check=True)
    os.close(theirs)
    shown = b""
    try:
        while block := os.read(ours, 4096):
            shown += block
    except OSError:  # the end, on Linux
        pass
    os.close(ours)
    assert done.stdout == "a row of results\nthe last row\n"
    assert b"packing" in shown
    # A warning has a line of its own, from its beginning.
    assert b"\x1b[2Ka warning\r\n" in shown


def test_a_log_has_a_line_every_few_minutes(monkeypatch, caplog):
    clock = iter([0, *range(100, 2000, 100)])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with caplog.at_level("INFO"), progress.task("packing", total=4000, unit="clip", done=1000, logged=True) as task:
        for _ in range(7):
            task.advance(150)
    assert [record.message for record in caplog.records] == [
        "packing: 1,450 of 4,000 clips, 1.5 a second, 28 min left",
        "packing: 1,900 of 4,000 clips, 1.5 a second, 23 min left",
    ]
    caplog.clear()
    with caplog.at_level("INFO"), progress.task("fitting", total=4, unit="epoch") as task:
        task.advance()
    assert not caplog.records
