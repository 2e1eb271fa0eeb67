"""Connections between the processes of a launcher, over which they send each other work."""

import hmac
import io
import os
import queue
import secrets
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from bayes_panns.core.launch import launch
from bayes_panns.ranks.interruption import taken

_PATIENCE = 300.0
"""Seconds that the first process waits for the others to connect, once all have met."""

SILENCE = 120
"""Seconds after which a host counts as lost that does not say that it has what was sent, or is asked for."""

_ASKED = 4
"""How often a silent host is asked whether it is there, in the second half of that time."""

_LOOPBACK = "127."
"""What addresses begin with by which a host means itself."""

_TOKEN, _RANK = 32, 4
"""The bytes of a token, and of a rank, which are said first."""

_Sent = queue.SimpleQueue[Exception | None]
"""Has why a message could not be sent, or None, once that is known."""


class Link:
    """A connection to another process, on which any thread may send. What is sent is pickled, tensors as well.

    It is for processes of one job, which trust each other. A tensor on a GPU arrives on the other process's own GPU.

    Attributes:
        connection: To wait for.
    """

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(True)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _notice_silence(connected)
        self.connection = Connection(connected.detach())
        self._outgoing = queue.SimpleQueue[tuple[memoryview, _Sent] | None]()
        self._state, self._closed = threading.Lock(), False
        threading.Thread(target=self._write, daemon=True).start()

    def send(self, kind: str, content: Any = None) -> None:
        """Send a message; waits until it is sent. If a signal interrupts that, it is sent all the same.

        Raises:
            OSError: The other process is gone.
        """
        file = io.BytesIO()
        torch.save((kind, content), file)
        sent: _Sent = queue.SimpleQueue()
        with self._state:
            if self._closed:
                raise BrokenPipeError("the connection is closed")
            self._outgoing.put((file.getbuffer(), sent))
        error = taken(sent)
        if error is not None:
            raise error

    def _write(self) -> None:
        """Write messages, in a thread that no signal interrupts: half a message would make the next one unreadable."""
        while (message := self._outgoing.get()) is not None:
            content, sent = message
            try:
                self.connection.send_bytes(content)
                sent.put(None)
            except Exception as error:
                sent.put(error)

    def receive(self) -> tuple[str, Any]:
        """The next message; waits for it.

        Raises:
            EOFError: The other process is gone.
            OSError: Likewise.
        """
        file = io.BytesIO(self.connection.recv_bytes())
        return torch.load(file, map_location=_here, weights_only=False)

    def close(self) -> None:
        """End the connection, which the other side notices."""
        with self._state:
            self._closed = True
            self._outgoing.put(None)
        self.connection.close()


@dataclass(frozen=True)
class Meeting:
    """Where the first process is met, and what those say who are expected there.

    Attributes:
        host: A name or address.
        port: Of TCP.
        token: Only the processes of the job know it.
    """

    host: str
    port: int
    token: bytes

    def connect(self, rank: int) -> Link:
        """A connection to the first process.

        Args:
            rank: That of the process that connects.

        Raises:
            OSError: It cannot be reached.
        """
        connected = socket.create_connection((self.host, self.port), _PATIENCE)
        connected.sendall(self.token + rank.to_bytes(_RANK))
        return Link(connected)


class Door:
    """What the first process opens for the others to connect.

    Attributes:
        meeting: What to tell them.
    """

    def __init__(self) -> None:
        host = _own_address()
        # A name of this host may mean the host itself to it, and the way to it to the others.
        by_name = host.startswith(_LOOPBACK) and not _one_host()
        self._server = socket.create_server(("" if by_name else host, 0))
        self._server.setblocking(False)
        name = os.environ["MASTER_ADDR"] if by_name else host
        self.meeting = Meeting(name, self._server.getsockname()[1], secrets.token_bytes(_TOKEN))

    def admit(self, number: int) -> dict[int, Link]:
        """So many connections, by rank; nobody can connect any more afterwards.

        Whoever connects without the token is turned away, and whoever says nothing keeps nobody waiting. No more than
        the token and a rank is read, and nothing unpickled, of a process that has not shown the token.

        Raises:
            OSError: They do not come.
        """
        found, said = dict[int, Link](), dict[socket.socket, bytes]()
        ends = time.monotonic() + _PATIENCE
        try:
            while len(found) < number:
                left = ends - time.monotonic()
                ready = wait([self._server, *said], left) if left > 0 else []
                if not ready:
                    raise TimeoutError(f"{number - len(found)} of {number} processes have not come in {_PATIENCE:g} s")
                for each in ready:
                    if each is self._server:
                        # Who was at the door may be gone again.
                        with suppress(OSError):
                            said[self._server.accept()[0]] = b""
                    elif isinstance(each, socket.socket) and (rank := self._rank(each, said)) is not None:
                        found[rank] = Link(each)
        finally:
            for unknown in (self._server, *said):
                unknown.close()
        return found

    def _rank(self, peer: socket.socket, said: dict[socket.socket, bytes]) -> int | None:
        """Read what has come of a peer's greeting; returns its rank once that is complete and has the token."""
        try:
            peer.setblocking(False)
            heard = peer.recv(_TOKEN + _RANK - len(said[peer]))
        except BlockingIOError:
            return None
        except OSError:
            heard = b""
        said[peer] += heard
        if heard and len(said[peer]) < _TOKEN + _RANK:
            return None
        greeting = said.pop(peer)
        if heard and hmac.compare_digest(greeting[:_TOKEN], self.meeting.token):
            return int.from_bytes(greeting[_TOKEN:])
        peer.close()
        return None


def _notice_silence(connected: socket.socket) -> None:
    """Let a connection fail when the other host has been silent for :data:`SILENCE`: one without power says nothing.

    A process there that only computes does not count as silent, for its system answers. Where the system has a limit
    for what was sent, a process that leaves so much unread that no more can be sent does count. Not within a
    host: there the end of a process closes its connections, and one that is slow or stopped is waited for.
    """
    within = connected.getpeername()[0].startswith(_LOOPBACK)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # macOS has another name for the first one, and lacks the last.
    for names, value in (
        (("TCP_KEEPIDLE", "TCP_KEEPALIVE"), SILENCE // 2),
        (("TCP_KEEPINTVL",), SILENCE // 2 // _ASKED),
        (("TCP_KEEPCNT",), _ASKED),
        (("TCP_USER_TIMEOUT",), 0 if within else SILENCE * 1000),
    ):
        for name in names:
            if hasattr(socket, name):
                connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
                break


def use_own_gpu() -> None:
    """Let ``cuda`` mean the GPU of this process's number on its host, where a launcher has started several."""
    if launch().world > 1 and torch.cuda.is_available():
        torch.cuda.set_device(_gpu())


def _gpu() -> int:
    return launch().local_rank % torch.cuda.device_count()


def _here(storage: Any, location: str) -> Any:
    """Where a tensor goes that arrives: the current GPU is one of a thread, so it is named."""
    return storage.cuda(_gpu()) if location.startswith("cuda") else storage


def _one_host() -> bool:
    return os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE")


def _own_address() -> str:
    """The address of this host on the way to where the processes met."""
    if _one_host():
        return "127.0.0.1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # Nothing is sent.
        probe.connect((os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])))
        return str(probe.getsockname()[0])
