"""Connections between the processes of a launcher, over which they send each other work."""

import hmac
import io
import os
import secrets
import socket
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

from bayes_panns.core.launch import launch

_PATIENCE = 300.0
"""Seconds that the first process waits for the others to connect, once all have met."""

_LOOPBACK, _TOKEN = "127.", 32
"""What addresses begin with by which a host means itself; the bytes of a token."""


class Link:
    """A connection to another process, on which any thread may send. What is sent is pickled, tensors as well.

    It is for processes of one job, which trust each other. A tensor on a GPU arrives on the other process's own GPU.

    Attributes:
        connection: To wait for.
    """

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(True)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A host that is gone says so by its silence.
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.connection = Connection(connected.detach())
        self._lock = threading.Lock()

    def send(self, kind: str, content: Any = None) -> None:
        """Send a message.

        Raises:
            OSError: The other process is gone.
        """
        file = io.BytesIO()
        torch.save((kind, content), file)
        with self._lock:
            self.connection.send_bytes(file.getbuffer())

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
        link = Link(socket.create_connection((self.host, self.port), _PATIENCE))
        link.connection.send_bytes(self.token + str(rank).encode())
        return link


class Door:
    """What the first process opens for the others to connect.

    Attributes:
        meeting: What to tell them.
    """

    def __init__(self) -> None:
        host = _own_address()
        self._server = socket.create_server((host if host.startswith(_LOOPBACK) and _one_host() else "", 0))
        self._server.settimeout(_PATIENCE)
        # A name of this host may mean the host itself to it, and the way to it to the others.
        name = os.environ["MASTER_ADDR"] if host.startswith(_LOOPBACK) and not _one_host() else host
        self.meeting = Meeting(name, self._server.getsockname()[1], secrets.token_bytes(_TOKEN))

    def admit(self, number: int) -> dict[int, Link]:
        """So many connections, by rank; nobody can connect any more afterwards.

        Raises:
            OSError: They do not come.
        """
        found = dict[int, Link]()
        with self._server:
            while len(found) < number:
                link = Link(self._server.accept()[0])
                try:
                    said = link.connection.recv_bytes(64)
                except (EOFError, OSError):
                    said = b""
                if hmac.compare_digest(said[:_TOKEN], self.meeting.token):
                    found[int(said[_TOKEN:])] = link
                else:
                    link.close()
        return found


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
