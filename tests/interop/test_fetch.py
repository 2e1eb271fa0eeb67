"""Downloads, from a server on this machine that can break off."""

import hashlib
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from click.testing import CliRunner

from bayes_panns.cli import main
from bayes_panns.core.errors import CheckpointError
from bayes_panns.interop import PUBLISHED, Published, fetch

CONTENT = np.random.default_rng(0).bytes(300_000)


class Server(ThreadingHTTPServer):
    """Serves CONTENT; ``breaks_after`` bytes of it, without ranges, or not at all, as told."""

    breaks_after = None
    ranges = True
    status = None

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and self.server.ranges else 0
        if self.server.status or start >= len(CONTENT):
            self.send_error(self.server.status or 416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        stop = len(CONTENT) if self.server.breaks_after is None else start + self.server.breaks_after
        self.wfile.write(CONTENT[start:stop])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def published(server, monkeypatch):
    def publish(**options):
        known = {"url": f"http://127.0.0.1:{server.server_port}/net%3D1.pth", "md5": hashlib.md5(CONTENT).hexdigest()}
        monkeypatch.setitem(PUBLISHED, "net", Published("a net", "net=1.pth", "http://x", **(known | options)))

    publish()
    return publish


def test_a_file_is_downloaded_and_its_sha256_recorded(server, published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = fetch("net")
    assert path.read_bytes() == CONTENT
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert (tmp_path / "net=1.pth.sha256").read_text() == f"{digest}  net=1.pth\n"
    assert {each.name for each in tmp_path.iterdir()} == {"net=1.pth", "net=1.pth.sha256"}
    assert fetch("net", tmp_path) == tmp_path / "net=1.pth"
    assert server.asked == [None], "what is there is checked, and not downloaded again"


def test_an_interrupted_download_goes_on_where_it_stopped(server, published, tmp_path):
    server.breaks_after = 100_000
    for came in (100_000, 200_000):
        with pytest.raises(CheckpointError, match=f"broke off after {came} of 300000 bytes; the same command goes on"):
            fetch("net", tmp_path / "net.pth")
        assert (tmp_path / "net.pth.part").stat().st_size == came
        assert not (tmp_path / "net.pth").exists()
    assert fetch("net", tmp_path / "net.pth").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-", "bytes=200000-"]
    assert not (tmp_path / "net.pth.part").exists()


def test_a_server_without_ranges_sends_all_of_it_again(server, published, tmp_path):
    (tmp_path / "net.pth.part").write_bytes(b"x" * 1000)
    server.ranges = False
    assert fetch("net", tmp_path / "net.pth").read_bytes() == CONTENT


def test_a_part_that_is_already_whole_only_needs_its_check(server, published, tmp_path):
    (tmp_path / "net.pth.part").write_bytes(CONTENT)
    assert fetch("net", tmp_path / "net.pth").read_bytes() == CONTENT
    assert server.asked == ["bytes=300000-"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"md5": "0" * 32}, f"its MD5 is {hashlib.md5(CONTENT).hexdigest()}, not 000"),
        ({"sha256": "0" * 64}, f"its SHA-256 is {hashlib.sha256(CONTENT).hexdigest()}, not 000"),
        ({"size": 5}, "it has 300000 bytes, not 5"),
    ],
)
def test_what_is_not_what_was_published_is_not_kept(published, tmp_path, wrong, message):
    published(**wrong)
    with pytest.raises(CheckpointError, match=message):
        fetch("net", tmp_path / "net.pth")
    assert not list(tmp_path.iterdir())


def test_a_part_of_another_file_is_found_out_and_removed(published, tmp_path):
    (tmp_path / "net.pth.part").write_bytes(b"x" * 1000)
    with pytest.raises(CheckpointError, match="what came is not the published net: its MD5"):
        fetch("net", tmp_path / "net.pth")
    assert fetch("net", tmp_path / "net.pth").read_bytes() == CONTENT


def test_another_file_in_its_place_is_left_alone(server, published, tmp_path):
    (tmp_path / "net.pth").write_bytes(b"thesis")
    with pytest.raises(CheckpointError, match="is there and is not the published net"):
        fetch("net", tmp_path / "net.pth")
    assert (tmp_path / "net.pth").read_bytes() == b"thesis"
    assert not server.asked


def test_without_a_network_it_says_so(published, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    published(url=f"http://127.0.0.1:{port}/net.pth")
    with pytest.raises(
        CheckpointError, match=rf"127.0.0.1:{port} cannot be reached \(.*refused\): this needs a network"
    ):
        fetch("net", tmp_path / "net.pth")


def test_what_the_server_answers_is_told(server, published, tmp_path):
    server.status = 404
    with pytest.raises(CheckpointError, match="answers 404 Not Found"):
        fetch("net", tmp_path / "net.pth")


def test_what_only_a_browser_can_have_is_checked_once_it_is_there(published, tmp_path):
    published(url=None)
    with pytest.raises(CheckpointError, match=r"through a browser only; save net=1.pth from http://x as"):
        fetch("net", tmp_path / "net.pth")
    (tmp_path / "net.pth").write_bytes(CONTENT)
    assert fetch("net", tmp_path / "net.pth") == tmp_path / "net.pth"
    assert (tmp_path / "net.pth.sha256").is_file()


def test_the_command_downloads_and_names_what_it_knows(published, tmp_path):
    result = CliRunner().invoke(main, ["fetch", "net", "-o", str(tmp_path / "sub" / "net.pth")])
    assert result.exit_code == 0
    assert "matches the published checksum" in result.stderr
    result = CliRunner().invoke(main, ["fetch", "cnn14"])
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert all(name in result.stderr for name in PUBLISHED)
    text = CliRunner().invoke(main, ["fetch", "--help"]).output
    assert all(name in text for name in PUBLISHED if name != "net")


def test_every_known_file_has_a_checksum_and_a_safe_address():
    for name, known in PUBLISHED.items():
        assert known.md5 or known.sha256, name
        assert known.url is None or known.url.startswith("https://")
        assert known.file in (known.url or known.file).replace("%3D", "=")
        assert len(known.md5 or "0" * 32) == 32
        assert len(known.sha256 or "0" * 64) == 64
