"""The processes of a launcher as one crew: the first runs a job, and gives the others pieces of it to do.

A piece goes to whoever asks for one, so that none waits while there are some. No collective operation is used: a
process may work on a piece for days. When a process ends early, by an error or a kill, its connection closes, and the
others end too.
"""

import contextvars
import logging
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from typing import Generic, TypeVar

from bayes_panns.core.errors import ProcessError
from bayes_panns.core.launch import launch
from bayes_panns.ranks.group import group
from bayes_panns.ranks.helper import Helper
from bayes_panns.ranks.interruption import Interruption, taken
from bayes_panns.ranks.job import ASK, DONE, END, ENOUGH, ERROR, JOB, MADE, PIECE, SAID, Job
from bayes_panns.ranks.links import SILENCE, Door, Link, use_own_gpu

_Work = TypeVar("_Work")
_Made = TypeVar("_Made")
_Result = TypeVar("_Result")

_GRACE = 3.0
"""Seconds for a signal to arrive that has ended another process and is on its way to this one too."""

_SOON = 0.02
"""Seconds between two looks at whether the first process has taken what was made, while others wait for that."""


def led(job: Callable[[], _Result]) -> _Result | None:
    """Run a job, with the help of the other processes if a launcher has started several.

    Args:
        job: Run by the first process only. What it shares out by :func:`~bayes_panns.ranks.shared_out` is done by all.

    Returns:
        What the job returns; None in the processes that helped.

    Raises:
        SystemExit: In a process that helped: the job has failed, which the first one has said.
    """
    if launch().world == 1:
        return job()
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # As in the background of a shell, from where it is inherited.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    use_own_gpu()
    door = Door() if launch().first else None
    meeting = group().from_first(None if door is None else door.meeting)
    if door is None:
        assert meeting is not None
        Helper(meeting.connect(launch().rank)).work()
        return None
    with _leading(door.admit(launch().world - 1)):
        return job()


_free: list[tuple[int, Link]] = []
"""The ranks that have nothing to do, and the first process's connections to them."""


@contextmanager
def _leading(links: dict[int, Link]) -> Iterator[None]:
    _free[:] = links.items()
    try:
        yield
        for link in links.values():
            # Who is gone by now has done its share.
            with suppress(OSError):
                link.send(END)
    finally:
        _free.clear()
        for link in links.values():
            link.close()


def helped() -> bool:
    """Whether other processes would help with a piece of work now."""
    # Within a piece there is no help.
    return bool(_free) and group().size > 1


class Pieces(Generic[_Work]):
    """Pieces of work, which any thread may take."""

    def __init__(self, work: Iterable[_Work]) -> None:
        self._work, self._lock, self._over = iter(work), threading.Lock(), False

    def __iter__(self) -> Iterator[_Work]:
        return self

    def __next__(self) -> _Work:
        with self._lock:
            if self._over:
                raise StopIteration
            return next(self._work)

    @property
    def stopped(self) -> bool:
        """Whether there are no more, whatever was left."""
        return self._over

    def stop(self) -> None:
        """There are no more."""
        with self._lock:
            self._over = True


class Elsewhere(Generic[_Work, _Made]):
    """What the other processes of the crew do of pieces of work; they are free again once they are told that it is all.

    Args:
        pieces: The pieces.
        job: What is done with them.
        ahead: How many results of each process may wait to be taken before there are more pieces; None for any number.

    Attributes:
        error: What has failed there.
    """

    def __init__(self, pieces: Pieces[_Work], job: Job, ahead: int | None = None) -> None:
        self.error: BaseException | None = None
        self._pieces, self._job, self._ahead = pieces, job, ahead
        self._asking = deque[tuple[int, Link]]()
        self._made = queue.SimpleQueue[_Made | None]()
        self._interruption = Interruption()
        self._links = list[tuple[int, Link]]()
        while helped():
            self._links.append(_free.pop())
        self._over = not self._links
        if self._links:
            # Progress is reported in the context of the job.
            context = contextvars.copy_context()
            threading.Thread(target=context.run, args=(self._serve,), daemon=True).start()

    @contextmanager
    def unless_failed(self) -> Iterator[None]:
        """A block of own work, which is interrupted as by Ctrl-C when another process fails.

        Raises:
            BaseException: The error of the other process.
        """
        try:
            with self._interruption.block():
                yield
        except (KeyboardInterrupt, Exception) as error:
            if self.error is None:
                raise
            raise self.error from error
        if self.error is not None:
            raise self.error

    def arrived(self) -> Iterator[_Made]:
        """What has been made by now."""
        with suppress(queue.Empty):
            while not self._over:
                yield from self._taken(self._made.get_nowait())

    def rest(self) -> Iterator[_Made]:
        """What is still to be made, as it comes.

        Raises:
            BaseException: What was raised in another process.
        """
        while not self._over:
            yield from self._taken(taken(self._made))
        if self.error is not None:
            raise self.error

    def _taken(self, made: _Made | None) -> Iterator[_Made]:
        if made is None:
            self._over = True
        else:
            yield made

    def _serve(self) -> None:
        """Give pieces to those who ask, and take what they make."""
        busy = {link.connection: (rank, link) for rank, link in self._links}
        try:
            for rank, link in self._links:
                with _named(rank):
                    link.send(JOB, self._job)
            while busy:
                for ready in wait(list(busy), _SOON if self._asking else None):
                    rank, link = busy[ready]  # type: ignore[index]
                    if not self._served(link, rank):
                        del busy[ready]  # type: ignore[arg-type]
                while self._asking and self._has_room():
                    self._give(*self._asking.popleft())
            _free.extend(self._links)
        except BaseException as error:
            self._fail(error)
        finally:
            self._made.put(None)

    def _served(self, link: Link, rank: int) -> bool:
        """Answer one message; returns whether more will come."""
        with _named(rank):
            kind, content = link.receive()
        if kind == ERROR:
            raise content
        if kind == MADE:
            self._made.put(content)
        elif kind == SAID:
            name, level, message = content
            logging.getLogger(name).log(level, f"rank {rank}: {message}")
        elif kind == ASK:
            self._asking.append((rank, link))
        return kind != DONE

    def _has_room(self) -> bool:
        """Whether more may be made: the first process may write more slowly than the others compute."""
        most = None if self._ahead is None else self._ahead * len(self._links)
        return most is None or self._pieces.stopped or self._made.qsize() < most

    def _give(self, rank: int, link: Link) -> None:
        piece = next(self._pieces, ENOUGH)
        with _named(rank):
            link.send(*((ENOUGH,) if piece is ENOUGH else (PIECE, piece)))

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, ProcessError):
            # A signal to all processes may have reached another one first.
            time.sleep(_GRACE)
        self.error = error
        self._pieces.stop()
        self._interruption.ask()


@contextmanager
def _named(rank: int) -> Iterator[None]:
    """A block that speaks with another process.

    Raises:
        ProcessError: It is gone.
    """
    try:
        yield
    except (EOFError, OSError) as error:
        killed = isinstance(error, EOFError | ConnectionError)
        what = "was killed, perhaps for lack of memory" if killed else f"has not answered for {SILENCE} s"
        raise ProcessError(
            f"rank {rank} {what}; what is finished is kept, go on with --resume where the command has it"
        ) from error
