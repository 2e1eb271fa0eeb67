"""The port that the first process opens: only who knows the token comes in, and strangers hold nobody up."""

import pickle
import socket
import threading
from contextlib import suppress

import pytest

from bayes_panns.ranks import links
from tests.harness.waiting import PATIENCE


@pytest.fixture
def door(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    return links.Door()


class Harm:
    def __reduce__(self):
        return pytest.fail, ("a stranger's pickle was read",)


def admitted(door, number=1):
    """What the door admits, in the end."""
    found = {}
    thread = threading.Thread(target=lambda: found.update(door.admit(number)), daemon=True)
    thread.start()
    return thread, found


def test_strangers_neither_come_in_nor_hold_up_a_process(door):
    where = (door.meeting.host, door.meeting.port)
    thread, found = admitted(door)
    silent, slow, wrong, sender = (socket.create_connection(where, PATIENCE) for _ in range(4))
    slow.sendall(door.meeting.token[:5])
    wrong.sendall(bytes(36))
    sender.sendall(pickle.dumps(Harm()) * 2)
    assert wrong.recv(1) == b""
    mine = door.meeting.connect(7)
    thread.join(PATIENCE)
    assert list(found) == [7]
    mine.send("hello", 1)
    assert found[7].receive() == ("hello", 1)
    for stranger in (silent, slow, sender):
        with suppress(ConnectionResetError):
            assert stranger.recv(1) == b""
        stranger.close()
    wrong.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(where, 10)
    for link in (mine, found[7]):
        link.close()


def test_processes_of_one_host_open_no_port_to_others(door):
    assert door._server.getsockname()[0] == "127.0.0.1"
    door._server.close()


def test_a_process_that_does_not_come_is_said(door, monkeypatch):
    monkeypatch.setattr(links, "_PATIENCE", 0.2)
    with (
        socket.create_connection((door.meeting.host, door.meeting.port), PATIENCE),
        pytest.raises(OSError, match="1 of 1"),
    ):
        door.admit(1)
