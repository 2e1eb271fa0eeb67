"""The processes of a launcher as one crew: the first runs a job, and gives the others pieces of it to do.

A piece goes to whoever asks for one, so that none waits while there are some. No collective operation is used: a
process may work on a piece for days. When a process ends early, by an error or a kill, its connection closes, and the
others end too.
"""

import contextvars
import logging
import os
import pickle
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, Generic, TypeVar

from bayes_panns.core.errors import ProcessError
from bayes_panns.core.launch import launch
from bayes_panns.ranks.group import alone, group
from bayes_panns.ranks.links import Door, Link, use_own_gpu

_Work = TypeVar("_Work")
_Made = TypeVar("_Made")
_Result = TypeVar("_Result")

Start = Callable[[Any], Callable[[_Work], Iterable[_Made]]]
"""Called in each process with what it needs; returns what makes something of a piece. A function of a module."""

ROOM = 20.0
"""Seconds that a process has to end what it does once another one has failed; a launcher kills it after 30."""

_GRACE = 1.0
"""Seconds for a signal to arrive that has ended another process and is on its way to this one too."""

_LAST_WORD = 3.0
"""Seconds that the first process has to say why it failed: a launcher ends it as soon as another one has ended."""

_JOB, _PIECE, _ENOUGH, _END = "job", "piece", "enough", "end"
_ASK, _MADE, _SAID, _DONE, _ERROR = "ask", "made", "said", "done", "error"


@dataclass(frozen=True)
class Job:
    """What is done with pieces of work.

    Attributes:
        start: Makes what makes something of a piece.
        setup: What it needs.
        jobs: How many processes each process of the crew starts for it.
    """

    start: Start[Any, Any]
    setup: Any
    jobs: int = 1


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
        _Helper(meeting.connect(launch().rank)).work()
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
                link.send(_END)
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

    def stop(self) -> None:
        """There are no more."""
        with self._lock:
            self._over = True


class Elsewhere(Generic[_Work, _Made]):
    """What the other processes of the crew do of pieces of work; they are free again once they are told that it is all.

    Attributes:
        error: What has failed there.
    """

    def __init__(self, pieces: Pieces[_Work], job: Job) -> None:
        self.error: BaseException | None = None
        self._pieces, self._job = pieces, job
        self._made = queue.SimpleQueue[_Made | None]()
        self._state, self._computing = threading.Lock(), False
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
        main = threading.current_thread() is threading.main_thread()
        try:
            with self._state:
                self._computing = main
            try:
                yield
            finally:
                with self._state:
                    self._computing = False
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
            yield from self._taken(self._made.get())
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
                    link.send(_JOB, self._job)
            while busy:
                for ready in wait(list(busy)):
                    rank, link = busy[ready]  # type: ignore[index]
                    with _named(rank):
                        if not self._served(link, rank):
                            del busy[ready]  # type: ignore[arg-type]
            _free.extend(self._links)
        except BaseException as error:
            self._fail(error)
        finally:
            self._made.put(None)

    def _served(self, link: Link, rank: int) -> bool:
        """Answer one message; returns whether more will come."""
        kind, content = link.receive()
        if kind == _ERROR:
            raise content
        if kind == _MADE:
            self._made.put(content)
        elif kind == _SAID:
            name, level, message = content
            logging.getLogger(name).log(level, f"rank {rank}: {message}")
        elif kind == _ASK:
            piece = next(self._pieces, _ENOUGH)
            link.send(*((_ENOUGH,) if piece is _ENOUGH else (_PIECE, piece)))
        return kind != _DONE

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, ProcessError):
            # A signal to all processes may have reached another one first.
            time.sleep(_GRACE)
        self.error = error
        self._pieces.stop()
        with self._state:
            if self._computing:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


@contextmanager
def _named(rank: int) -> Iterator[None]:
    """A block that speaks with another process.

    Raises:
        ProcessError: It is gone.
    """
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise ProcessError(
            f"rank {rank} was killed, perhaps for lack of memory; what is finished is kept, go on with --resume where "
            "the command has it"
        ) from error


class _Helper:
    """A process that is not the first one."""

    def __init__(self, link: Link) -> None:
        self._link, self._messages = link, queue.SimpleQueue[tuple[str, Any]]()
        self._gone, self._ended = threading.Event(), False
        self._state, self._computing = threading.Lock(), False
        threading.Thread(target=self._listen, daemon=True).start()

    def work(self) -> None:
        """Do what the first process gives, until it ends.

        Raises:
            SystemExit: The job has failed.
        """
        try:
            while True:
                kind, content = self._heard()
                if kind == _END:
                    return
                with self._unless_gone():
                    self._do(content)
                self._link.send(_DONE)
        except BaseException as error:
            if self._ended:
                # What it was doing is not wanted any more.
                return
            with suppress(OSError):
                self._link.send(_ERROR, _sendable(error))
            # Were this process the first to end, the launcher would end the others, which have something to say.
            self._gone.wait(ROOM)
            time.sleep(_LAST_WORD)
            raise SystemExit(1) from None

    @contextmanager
    def _unless_gone(self) -> Iterator[None]:
        """A block of work, which is interrupted as by Ctrl-C when the first process ends.

        Raises:
            KeyboardInterrupt: It has ended.
        """
        with self._state:
            if self._gone.is_set():
                raise KeyboardInterrupt
            self._computing = True
        try:
            yield
        finally:
            with self._state:
                self._computing = False

    def _do(self, job: Job) -> None:
        from bayes_panns.ranks.processes import by_processes

        if job.jobs > 1:
            for made in by_processes(self._pieces(), job.start, job.setup, job.jobs):
                self._link.send(_MADE, made)
            return
        make = job.start(job.setup)
        # What there is to warn of before the first piece, the first process has said.
        with _forwarded(self._link), alone():
            for piece in self._pieces():
                for made in make(piece):
                    self._link.send(_MADE, made)

    def _pieces(self) -> Iterator[Any]:
        while True:
            self._link.send(_ASK)
            kind, piece = self._heard()
            if kind != _PIECE:
                return
            yield piece

    def _heard(self) -> tuple[str, Any]:
        """The next message of the first process.

        Raises:
            BaseException: It could not be read.
        """
        kind, content = self._messages.get()
        if kind == _ERROR:
            raise content
        return kind, content

    def _listen(self) -> None:
        """Take messages until the end; when the first process has failed, end this one too."""
        try:
            kind = ""
            while kind != _END:
                try:
                    kind, content = self._link.receive()
                except (EOFError, OSError):
                    raise
                except Exception as error:  # Such as too little memory on a GPU for what has come.
                    kind, content = _ERROR, error
                self._ended = kind == _END
                self._messages.put((kind, content))
        except (EOFError, OSError):
            with self._state:
                self._gone.set()
                if self._computing:
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            # Who waits for a message, or is about to, would not notice a signal for certain.
            self._messages.put((_ERROR, KeyboardInterrupt()))
            time.sleep(ROOM)
            os._exit(1)


class _Forwarding(logging.Handler):
    """Sends messages to the first process."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            self._link.send(_SAID, (record.name, record.levelno, record.getMessage()))


@contextmanager
def _forwarded(link: Link) -> Iterator[None]:
    """A block whose messages the first process says."""
    package, handler = logging.getLogger("bayes_panns"), _Forwarding(link)
    level, others = package.level, package.handlers[:]
    package.handlers[:] = [handler]
    package.setLevel(logging.INFO)
    try:
        yield
    finally:
        package.handlers[:] = others
        package.setLevel(level)


def _sendable(error: BaseException) -> BaseException:
    """The error itself, or one that says the same, if it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
