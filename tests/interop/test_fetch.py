"""Downloads, from a server on this machine that can break off."""

import hashlib
import re
import socket
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from bayes_panns.cli import main
from bayes_panns.core import progress
from bayes_panns.core.errors import CheckpointError
from bayes_panns.interop import PUBLISHED, Published, download, fetch
from bayes_panns.nets import NETS
from bayes_panns.nets.mobilenet import ARCHITECTURES

CONTENT = np.random.default_rng(0).bytes(300_000)


class Server(ThreadingHTTPServer):
    """Serves CONTENT. ``breaks_after``: only so many bytes of it; ``extra``: what it sends after the end."""

    breaks_after = None
    ranges = True
    lengths = True
    extra = b""
    status = None

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        assert self.headers["Accept-Encoding"] == "identity"
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and self.server.ranges else 0
        if self.server.status or start >= len(CONTENT):
            self.send_error(self.server.status or 416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        if self.server.lengths:
            self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        stop = len(CONTENT) if self.server.breaks_after is None else start + self.server.breaks_after
        self.wfile.write(CONTENT[start:stop] + self.server.extra)

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


def test_a_file_is_downloaded_and_its_sha256_recorded(server, published, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    path = fetch("net")
    assert path.read_bytes() == CONTENT
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert (tmp_path / "net=1.pth.sha256").read_text() == f"{digest}  net=1.pth\n"
    assert {each.name for each in tmp_path.iterdir()} == {"net=1.pth", "net=1.pth.sha256"}
    assert path.stat().st_mode == (tmp_path / "net=1.pth.sha256").stat().st_mode, "as the umask says"
    assert fetch("net", tmp_path) == tmp_path / "net=1.pth"
    assert server.asked == [None], "a file that exists is checked, and not downloaded again"
    assert capfd.readouterr() == ("", "")


def test_an_interrupted_download_continues_where_it_stopped(server, published, tmp_path):
    server.breaks_after, starts = 100_000, [0]
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"stopped after (\d+) of 300000 bytes; run the same command again"):
            fetch("net", tmp_path / "net.pth")
        starts.append((tmp_path / "net.pth.part").stat().st_size)
        # What was being received when the connection broke is lost.
        assert 0 <= starts[-2] + 100_000 - starts[-1] < 1 << 14
        assert {each.name for each in tmp_path.iterdir()} == {"net.pth.part"}
        assert (tmp_path / "net.pth.part").read_bytes() == CONTENT[: starts[-1]]
    server.breaks_after = None
    assert fetch("net", tmp_path / "net.pth").read_bytes() == CONTENT
    assert server.asked == [None, *(f"bytes={start}-" for start in starts[1:])]
    assert not (tmp_path / "net.pth.part").exists()


def test_a_server_without_ranges_sends_the_whole_file_again(server, published, tmp_path):
    (tmp_path / "net.pth.part").write_bytes(b"x" * 1000)
    server.ranges = False
    assert fetch("net", tmp_path / "net.pth").read_bytes() == CONTENT


def test_a_complete_part_only_needs_its_check(server, published, tmp_path):
    (tmp_path / "net.pth.part").write_bytes(CONTENT)
    assert fetch("net", tmp_path / "net.pth").read_bytes() == CONTENT
    assert server.asked == ["bytes=300000-"]
    # Where the size is known, the server is not even asked.
    published(size=len(CONTENT))
    (tmp_path / "net.pth").rename(tmp_path / "other.pth.part")
    assert fetch("net", tmp_path / "other.pth").read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_a_part_that_is_too_long_is_deleted(server, published, tmp_path):
    (tmp_path / "net.pth.part").write_bytes(CONTENT + b"x")
    with pytest.raises(CheckpointError, match="deleted, try again"):
        fetch("net", tmp_path / "net.pth")
    assert not list(tmp_path.iterdir())


def test_it_stops_at_the_published_size(server, published, tmp_path):
    published(size=len(CONTENT))
    server.lengths, server.extra = False, b"x" * 50_000
    assert fetch("net", tmp_path / "net.pth").read_bytes() == CONTENT


def test_without_any_size_all_of_it_is_taken(server, published, tmp_path):
    server.lengths = False
    assert fetch("net", tmp_path / "net.pth").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"md5": "0" * 32}, f"is not net: its MD5 is not {'0' * 32}; deleted, try again"),
        ({"sha256": "0" * 64}, f"is not net: its SHA256 is not {'0' * 64}; deleted, try again"),
        ({"size": 5}, r"the server's file has 300000 bytes, not 5; it is not the published one"),
    ],
)
def test_a_file_that_is_not_the_published_one_is_not_kept(published, tmp_path, wrong, message):
    published(**wrong)
    with pytest.raises(CheckpointError, match=message):
        fetch("net", tmp_path / "net.pth")
    assert not list(tmp_path.iterdir())


def test_sha256_decides_where_both_checksums_are_known(published, tmp_path):
    published(sha256=hashlib.sha256(CONTENT).hexdigest(), md5="0" * 32)
    assert fetch("net", tmp_path / "net.pth").read_bytes() == CONTENT
    assert fetch("net", tmp_path / "net.pth").read_bytes() == CONTENT


class Odd(BaseHTTPRequestHandler):
    """Answers whatever ``self.server.answer`` writes, and counts."""

    def do_GET(self):
        self.server.asked.append(self.headers.get("Range"))
        with suppress(OSError):
            self.server.answer(self)

    def log_message(self, *_):
        pass


@pytest.fixture
def odd(server, published):
    """Sets how the server answers."""

    def answers(answer):
        server.RequestHandlerClass, server.answer = Odd, answer

    return answers


def lines(status, *headers, body=b""):
    def answer(handler):
        handler.wfile.write("\r\n".join([f"HTTP/1.1 {status}", *headers, "Connection: close", "", ""]).encode() + body)

    return answer


CHUNK = b"%x\r\n" % 5000 + CONTENT[:5000] + b"\r\n"
GARBAGE = {
    "a length that is none": (lines("200 OK", "Content-Length: many"), "gives the length 'many', which is none"),
    "a negative length": (lines("200 OK", "Content-Length: -5"), "gives the length '-5', which is none"),
    "a compressed file": (lines("200 OK", "Content-Encoding: gzip", body=b"no gzip"), r"compresses the file \(gzip\)"),
    "no answer": (lambda handler: None, "cannot be reached"),
    "nonsense": (lambda handler: handler.wfile.write(b"\0\xff\n" * 50), "cannot be reached"),
    "a reason that steers a terminal": (lines("503 \x1b[2Jbusy"), r"answered 503 \\x1b\[2Jbusy; try again later"),
    "a loop": (lines("302 Found", "Location: /net%3D1.pth", "Content-Length: 0"), "Exceeded 30 redirects"),
    "a place that is none": (lines("302 Found", "Location: http://[", "Content-Length: 0"), "cannot be reached"),
    "chunks that are none": (lines("200 OK", "Transfer-Encoding: chunked", body=b"zz\r\n"), "stopped after 0 bytes"),
    "a part that nobody asked for": (lines("206 Partial", "Content-Range: bytes 7-9/10"), "sends bytes 7-9/10, not"),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_an_answer_that_no_server_should_give_is_one_line(odd, published, tmp_path, name):
    answer, message = GARBAGE[name]
    odd(answer)
    with pytest.raises(CheckpointError, match=message) as caught:
        fetch("net", tmp_path / "net.pth")
    assert str(caught.value).isprintable()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_a_broken_chunked_download_is_resumed(server, odd, published, tmp_path, size):
    published(size=size)
    odd(lines("200 OK", "Transfer-Encoding: chunked", body=CHUNK))
    known = f" of {size}" if size else ""
    with pytest.raises(CheckpointError, match=rf"stopped after 5000{known} bytes; run the same command again"):
        fetch("net", tmp_path / "net.pth")
    server.RequestHandlerClass = Handler
    assert fetch("net", tmp_path / "net.pth").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=5000-"]


def test_a_download_that_ends_too_early_is_resumed(server, odd, published, tmp_path):
    """Without a length, the end of the connection looks like that of the file."""
    published(size=len(CONTENT))
    odd(lines("200 OK", body=CONTENT[:7000]))
    with pytest.raises(CheckpointError, match="stopped after 7000 of 300000 bytes; run the same command again"):
        fetch("net", tmp_path / "net.pth")
    server.RequestHandlerClass = Handler
    assert fetch("net", tmp_path / "net.pth").read_bytes() == CONTENT


def test_another_part_than_was_asked_for_is_not_taken(server, odd, published, tmp_path):
    (tmp_path / "net.pth.part").write_bytes(CONTENT[:1000])
    odd(lines("206 Partial", f"Content-Range: bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}", body=CONTENT))
    with pytest.raises(CheckpointError, match="not from byte 1000 on; run the same command again, which starts anew"):
        fetch("net", tmp_path / "net.pth")
    server.RequestHandlerClass = Handler
    assert fetch("net", tmp_path / "net.pth").read_bytes() == CONTENT


def test_a_server_that_never_stops_is_left_at_the_published_size(odd, published, tmp_path):
    published(size=len(CONTENT))

    def endless(handler):
        lines("200 OK", body=CONTENT)(handler)
        while True:
            handler.wfile.write(bytes(1 << 16))

    odd(endless)
    assert fetch("net", tmp_path / "net.pth").read_bytes() == CONTENT


def test_a_server_that_never_stops_is_left_where_no_size_is_known(odd, published, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_LARGEST", 200_000)
    odd(lines("200 OK", body=CONTENT))
    with pytest.raises(CheckpointError, match="sends more than 200000 bytes; given up"):
        fetch("net", tmp_path / "net.pth")


@pytest.mark.parametrize("when", ["before the headers", "within the headers", "in the file", "trickling"])
def test_a_server_that_hangs_or_trickles_is_given_up(odd, published, tmp_path, monkeypatch, when):
    monkeypatch.setattr(download, "_TIMEOUT", 0.2)
    done = threading.Event()

    def hang(handler):
        if when == "within the headers":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        elif when != "before the headers":
            lines("200 OK", f"Content-Length: {len(CONTENT)}")(handler)
        while not done.wait(0.05 if when in ("within the headers", "trickling") else 5):
            handler.wfile.write(b"x")

    odd(hang)
    started = time.monotonic()
    try:
        with pytest.raises(CheckpointError, match=r"cannot be reached|the download stopped after \d+ of 300000 bytes"):
            fetch("net", tmp_path / "net.pth")
        # Left to itself, the server takes hours.
        assert time.monotonic() - started < 60
    finally:
        done.set()


def test_two_downloads_to_one_place_do_not_mix(odd, published, tmp_path):
    def other(handler):
        with pytest.raises(CheckpointError, match="another process is downloading it; wait for it"):
            fetch("net", tmp_path / "net.pth")
        lines("200 OK", body=CONTENT)(handler)

    odd(other)
    assert fetch("net", tmp_path / "net.pth").read_bytes() == CONTENT


def test_a_part_of_another_file_is_found_out_and_deleted(published, tmp_path):
    (tmp_path / "net.pth.part").write_bytes(b"x" * 1000)
    with pytest.raises(CheckpointError, match="the downloaded file is not net: its MD5"):
        fetch("net", tmp_path / "net.pth")
    assert fetch("net", tmp_path / "net.pth").read_bytes() == CONTENT


@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_another_file_in_its_place_is_left_alone(server, published, tmp_path, size):
    published(size=size)
    (tmp_path / "net.pth").write_bytes(b"thesis")
    wrong = "it has 6 bytes, not 300000" if size else f"its MD5 is {hashlib.md5(b'thesis').hexdigest()}, not "
    with pytest.raises(CheckpointError, match=rf"net.pth: exists and is not net \({wrong}.*\); move it away"):
        fetch("net", tmp_path / "net.pth")
    assert (tmp_path / "net.pth").read_bytes() == b"thesis"
    assert not server.asked


def test_a_missing_network_is_one_line(published, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/net.pth"
    published(url=url)
    place = re.escape(str(tmp_path / "net.pth"))
    expected = (
        rf"127.0.0.1:{port}: cannot be reached \(Connection refused\); connect to the internet, or download {url} on "
        f"another computer and save it as {place}"
    )
    with pytest.raises(CheckpointError, match=f"^{expected}$"):
        fetch("net", tmp_path / "net.pth")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("status", [404, 416, 500])
def test_the_servers_answer_is_shown(server, published, tmp_path, status):
    server.status = status
    with pytest.raises(CheckpointError, match=rf"the server answered {status} \w+.*; try again later"):
        fetch("net", tmp_path / "net.pth")


def test_a_file_that_needs_a_browser_is_checked_once_it_is_there(published, tmp_path):
    published(url=None)
    with pytest.raises(CheckpointError, match=r"only be downloaded in a browser: save net=1.pth from http://x as"):
        fetch("net", tmp_path / "net.pth")
    (tmp_path / "net.pth").write_bytes(CONTENT)
    assert fetch("net", tmp_path / "net.pth") == tmp_path / "net.pth"
    assert (tmp_path / "net.pth.sha256").is_file()


def test_progress_counts_bytes_from_what_was_there(server, published, tmp_path, monkeypatch):
    (tmp_path / "net.pth.part").write_bytes(CONTENT[:1000])
    counted = []

    @contextmanager
    def task(description, *, total, unit, done):
        counted.append((description, total, unit, done))
        yield SimpleNamespace(advance=counted.append)

    monkeypatch.setattr(progress, "task", task)
    fetch("net", tmp_path / "net.pth")
    assert counted[0] == ("net.pth", 300_000, "bytes", 1000)
    assert sum(counted[1:]) == 299_000


def test_the_command_downloads_and_names_what_it_knows(published, tmp_path):
    result = CliRunner().invoke(main, ["fetch", "net", "-o", str(tmp_path / "sub" / "net.pth")])
    assert result.exit_code == 0
    assert (tmp_path / "sub" / "net.pth").read_bytes() == CONTENT
    result = CliRunner().invoke(main, ["fetch", "cnn99"])
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert all(name in result.stderr for name in PUBLISHED)
    text = CliRunner().invoke(main, ["fetch", "--help"]).output
    assert all(name in text for name in PUBLISHED if name != "net")


def test_a_file_without_a_known_checksum_is_taken_as_it_comes(server, published, tmp_path):
    published(md5=None)
    result = CliRunner().invoke(main, ["fetch", "net", "-o", str(tmp_path / "net.pth")])
    assert result.exit_code == 0
    assert "was not checked: no checksum of it is known; its SHA-256 is in" in result.stderr
    assert "matches" not in result.stderr
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert (tmp_path / "net.pth.sha256").read_text() == f"{digest}  net.pth\n"
    assert (tmp_path / "net.pth").read_bytes() == CONTENT
    assert fetch("net", tmp_path) == tmp_path / "net=1.pth", "a second place is a second download"
    assert fetch("net", tmp_path / "net.pth") == tmp_path / "net.pth"
    assert len(server.asked) == 2


def test_a_file_without_a_known_checksum_that_has_changed_is_refused(published, tmp_path):
    published(md5=None)
    fetch("net", tmp_path / "net.pth")
    (tmp_path / "net.pth").write_bytes(CONTENT[:-1])
    with pytest.raises(CheckpointError, match=r"net.pth: has changed since net.pth.sha256 was written; delete both"):
        fetch("net", tmp_path / "net.pth")
    for damaged in (b"", b"\xff"):
        (tmp_path / "net.pth.sha256").write_bytes(damaged)
        with pytest.raises(CheckpointError, match="has changed since"):
            fetch("net", tmp_path / "net.pth")


def test_an_interrupted_download_that_cannot_be_checked_starts_anew(server, published, tmp_path):
    published(md5=None)
    server.breaks_after = 100_000
    with pytest.raises(CheckpointError, match=r"stopped after \d+ of 300000 bytes; run the same command again"):
        fetch("net", tmp_path / "net.pth")
    assert not (tmp_path / "net.pth").exists()
    (tmp_path / "net.pth.part").write_bytes(b"x" * 1000)
    server.breaks_after = None
    assert fetch("net", tmp_path / "net.pth").read_bytes() == CONTENT
    assert server.asked == [None, None]


def test_a_checked_file_is_called_that(published, tmp_path):
    result = CliRunner().invoke(main, ["fetch", "net", "-o", str(tmp_path / "net.pth")])
    assert "matches the known checksum; its SHA-256 is in" in result.stderr


def test_efficientats_files_are_named_after_the_networks():
    files = {name: known.file for name, known in PUBLISHED.items() if name.startswith("efficientat-")}
    assert set(files) == {f"efficientat-{net}" for net in ARCHITECTURES}
    assert files["efficientat-mn40"] == "mn40_as_mAP_484.pt"
    assert files["efficientat-mn10_as_hop_5"] == "mn10_as_hop_5_mAP_475.pt"


def test_the_real_mn04_is_the_one_whose_checksum_is_known(mn04_file):
    known = PUBLISHED["efficientat-mn04"]
    assert known.file == mn04_file.name
    assert known.checksum == ("sha256", hashlib.sha256(mn04_file.read_bytes()).hexdigest())


UNCHECKED = {"panns-mobilenetv2", *(f"efficientat-{net}" for net in ARCHITECTURES if net != "mn04")}
"""No checksum of them has been published, or found."""


def test_every_known_file_has_a_safe_address_and_most_have_a_checksum():
    for name, known in PUBLISHED.items():
        assert (known.checksum is None) == (name in UNCHECKED), name
        assert known.net in NETS or name == "audioset-labels"
        assert known.url is None or known.url.startswith("https://")
        assert known.file in (known.url or known.file).replace("%3D", "=")
        assert len(known.md5 or "0" * 32) == 32
        assert len(known.sha256 or "0" * 64) == 64
