"""One download over HTTP, of a server that may break off, hang, or answer anything."""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from queue import Empty, Queue
from typing import TypeVar, cast
from urllib.parse import urlsplit

import requests
import urllib3

from bayes_panns import __version__
from bayes_panns.core import progress
from bayes_panns.core.errors import CheckpointError
from bayes_panns.core.files import FULL, writes
from bayes_panns.core.text import printable

_T = TypeVar("_T")

_TIMEOUT = 60.0
"""Seconds without a byte after which a download is given up."""

_SLOWEST = 100
"""Bytes a second, on average over the timeout, below which it is given up too."""

_BLOCK = 1 << 14
"""The most bytes that are received at a time."""

_LARGEST = 1 << 34
"""The most bytes that are received of a file whose size nobody tells."""

_BROKEN = (requests.RequestException, urllib3.exceptions.HTTPError, HTTPException, OSError, ValueError)
"""What a connection can end in."""


class Download:
    """A download that continues where an earlier one stopped.

    Args:
        url: Where it is.
        part: What has been received of it: a file.
        path: Where it will be, for errors.
        size: In bytes, if that is known.
    """

    def __init__(self, url: str, part: Path, path: Path, *, size: int | None) -> None:
        self._url, self._part, self._path, self._size = url, part, path, size

    def run(self) -> None:
        """Receive what is missing.

        Raises:
            CheckpointError: The server cannot be reached, answers what no server should, or stops.
            OSError: The disk is full.
        """
        done = self._part.stat().st_size
        if done == self._size:
            return
        with self._request(done) as response:
            if response.status_code != requests.codes.range_not_satisfiable:
                self._receive(response, done)

    def _request(self, done: int) -> requests.Response:
        # A compressed transfer would have another length than the file.
        headers = {"User-Agent": f"bayes_panns/{__version__}", "Accept-Encoding": "identity"}
        if done:
            headers["Range"] = f"bytes={done}-"
        try:
            response = _within(
                2 * _TIMEOUT, lambda: requests.get(self._url, headers=headers, stream=True, timeout=_TIMEOUT)
            )
        except _BROKEN as error:
            raise CheckpointError(
                f"{urlsplit(self._url).netloc}: cannot be reached ({_reason(error)}); connect to the internet, or "
                f"download {self._url} on another computer and save it as {self._path}"
            ) from error
        # The part may already be the whole file, or longer: then no range is left, and the checksum decides.
        if not response.ok and not (done and response.status_code == requests.codes.range_not_satisfiable):
            response.close()
            raise CheckpointError(
                f"{self._url}: the server answered {response.status_code} {printable(str(response.reason))}; try again "
                "later"
            )
        return response

    def _receive(self, response: requests.Response, done: int) -> None:
        """Append what the server sends to the part, of which ``done`` bytes are there."""
        if response.status_code != requests.codes.partial_content:
            done = 0  # The server ignored the range and sends the whole file.
        total = self._total(response, done)
        bar = progress.task(self._path.name, total=total, unit="bytes", done=done)
        with writes(self._part), self._part.open("r+b") as file, bar as running:
            file.truncate(done)
            file.seek(done)
            try:
                for block in _blocks(response):
                    block = block[: None if total is None else total - done]
                    file.write(block)
                    done += len(block)
                    running.advance(len(block))
                    if total is not None and done >= total:
                        return
                    if done > _LARGEST:
                        raise CheckpointError(f"{self._url}: the server sends more than {_LARGEST} bytes; given up")
            except _BROKEN as error:
                if isinstance(error, OSError) and error.errno in FULL:
                    raise
                raise self._stopped(done, total, f" ({error})" if isinstance(error, TimeoutError) else "") from error
            if total is not None:
                raise self._stopped(done, total, "")

    def _total(self, response: requests.Response, done: int) -> int | None:
        """The size of the file by the server's headers, if they say so, or the published one.

        Raises:
            CheckpointError: They are not those of the file.
        """
        headers = response.headers
        if headers.get("Content-Encoding", "identity").lower() not in ("identity", ""):
            raise CheckpointError(
                f"{response.url}: the server compresses the file ({printable(headers['Content-Encoding'])}), though it "
                f"was asked not to; download it in a browser and save it as {self._path}"
            )
        found = headers.get("Content-Range", "")
        if response.status_code == requests.codes.partial_content and not re.match(rf"bytes {done}-\d+/", found):
            os.truncate(self._part, 0)
            raise CheckpointError(
                f"{response.url}: the server sends {printable(found) or 'some part'}, not from byte {done} on; run the "
                "same command again, which starts anew"
            )
        length = headers.get("Content-Length")
        if length is None or "chunked" in headers.get("Transfer-Encoding", "").lower():
            return self._size
        if not re.fullmatch(r"[0-9]{1,18}", length):
            raise CheckpointError(
                f"{response.url}: the server gives the length {printable(length)!r}, which is none; try again later"
            )
        total = done + int(length)
        if self._size not in (None, total):
            raise CheckpointError(
                f"{response.url}: the server's file has {total} bytes, not {self._size}; it is not the published one"
            )
        return total

    def _stopped(self, done: int, total: int | None, reason: str) -> CheckpointError:
        received = done if total is None else f"{done} of {total}"
        return CheckpointError(
            f"{self._path}: the download stopped after {received} bytes{reason}; run the same command again"
        )


def _blocks(response: requests.Response) -> Iterator[bytes]:
    """What the server sends, as it comes.

    Raises:
        TimeoutError: It sends next to nothing.
    """
    since, received = time.monotonic(), 0
    while block := response.raw.read1(_BLOCK, decode_content=False):
        received += len(block)
        yield block
        if (now := time.monotonic()) - since > _TIMEOUT:
            if received < _SLOWEST * _TIMEOUT:
                raise TimeoutError(f"less than {_SLOWEST} bytes a second")
            since, received = now, 0


def _within(seconds: float, ask: Callable[[], _T]) -> _T:
    """What ``ask`` returns, if it does so in time; a server can draw out an answer for days.

    Raises:
        TimeoutError: It does not.
    """
    found: Queue[tuple[_T | None, BaseException | None]] = Queue()

    def run() -> None:
        try:
            found.put((ask(), None))
        except BaseException as error:
            found.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        answer, error = found.get(timeout=seconds)
    except Empty:
        raise TimeoutError(f"no answer in {seconds:g} s") from None
    if error is not None:
        raise error
    return cast(_T, answer)


def _reason(error: BaseException) -> str:
    """The innermost cause of a failed connection, such as "Connection refused"."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return printable(" ".join(reason.split()))
