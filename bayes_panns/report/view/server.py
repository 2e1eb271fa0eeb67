"""A page on this computer alone: who asks must know the address's token, and nothing is read but a results folder.

A web page from elsewhere could ask this server too, by its own name that it points to 127.0.0.1; so the name in each
request is checked as well.
"""

import json
import logging
import re
import secrets
from collections.abc import Callable, Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from bayes_panns.core.errors import AudioError, BayesPannsError, OutputError, SettingError, reason
from bayes_panns.core.strict_json import dumps
from bayes_panns.report.page.look import shared_style
from bayes_panns.report.view import answers
from bayes_panns.report.view.library import LABELS, Item, Library
from bayes_panns.report.view.sound import Wave
from bayes_panns.report.view.tiles import Tiles

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}

_BODY = 1 << 16
"""The longest message that the page may send, in bytes."""

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class ViewServer(ThreadingHTTPServer):
    """Serves the page of a results folder to this computer; it listens from the start.

    Args:
        results: The folder.
        recordings: Where the recordings are now, if they have moved.
        port: Where to listen; by default any free port.

    Attributes:
        library: What is served.
        address: What to open in a browser.

    Raises:
        ResultsError: The folder holds no results, or they are damaged.
        OutputError: The port is taken.
    """

    daemon_threads = True

    def __init__(self, results: str | Path, recordings: str | Path | None = None, port: int = 0) -> None:
        self.library = Library(Path(results), None if recordings is None else Path(recordings))
        self.tiles = Tiles(self.library.folder.manifest.get("channel") or "mix")
        self.token = secrets.token_urlsafe(18)
        self.files = _page_files()
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise OutputError(
                f"port {port} cannot be had ({reason(error)}); leave --port out for a free one"
            ) from error
        self.names = {f"{HOST}:{self.server_port}", f"localhost:{self.server_port}"}
        self.address = f"http://{HOST}:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that has gone away, as one does that seeks in a sound, is no error."""
        logger.debug("a request failed", exc_info=True)


def _page_files() -> dict[str, tuple[str, bytes]]:
    """The files of the page by their names, with their media types."""
    found = {}
    for file in resources.files(__package__).joinpath("page").iterdir():
        kind = _KINDS.get(Path(file.name).suffix)
        if kind is not None:
            found[file.name] = (kind, file.read_bytes())
    kind, own = found["view.css"]
    found["view.css"] = (kind, shared_style().encode() + b"\n" + own)
    found[""] = found.pop("view.html")
    return found


class _RefusedError(Exception):
    """A request that gets another answer than it asked for."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    """Answers one browser connection."""

    server: ViewServer
    protocol_version = "HTTP/1.1"
    server_version = "bayes-panns"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer a request for something."""
        self._answer(self._get)

    do_HEAD = do_GET  # noqa: N815

    def do_PUT(self) -> None:
        """Answer a request to write a label."""
        self._answer(self._put)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet; standard error is for messages to people."""

    def _answer(self, make: Callable[[list[str]], None]) -> None:
        try:
            make(self._path())
        except _RefusedError as refused:
            self._error(refused.status, str(refused))
        except (KeyError, IndexError):
            self._error(HTTPStatus.NOT_FOUND, "there is nothing here")
        except (SettingError, ValueError) as error:
            self._error(HTTPStatus.BAD_REQUEST, reason(error))
        except AudioError as error:
            self._error(HTTPStatus.NOT_FOUND, reason(error))
        except ConnectionError:
            self.close_connection = True
        except (BayesPannsError, OSError) as error:
            logger.warning(reason(error))
            self._error(HTTPStatus.INTERNAL_SERVER_ERROR, reason(error))

    def _path(self) -> list[str]:
        """The parts of the path after the token."""
        if self.headers.get("Host") not in self.server.names:
            raise _RefusedError(HTTPStatus.FORBIDDEN, "this page is for this computer only")
        token, _, rest = urlsplit(self.path).path.removeprefix("/").partition("/")
        if not secrets.compare_digest(token.encode(), self.server.token.encode()):
            raise _RefusedError(HTTPStatus.FORBIDDEN, "open the address that bayes-panns view printed")
        return rest.split("/")

    def _get(self, path: list[str]) -> None:
        asked = {name: values[-1] for name, values in parse_qs(urlsplit(self.path).query).items()}
        library = self.server.library
        match path:
            case [name] if name in self.server.files:
                self._send(*self.server.files[name])
            case ["recordings"]:
                self._json(answers.overview(library))
            case ["labels"]:
                self._json(answers.labels(library))
            case [name] if name == LABELS:
                if not library.book.path.is_file():
                    raise KeyError(name)
                extra = {"Content-Disposition": f'attachment; filename="{LABELS}"'}
                self._send("text/csv; charset=utf-8", library.book.path.read_bytes(), extra)
            case ["events"]:
                self._json(self._events(asked))
            case ["recordings", key]:
                self._json(answers.recording(library, library.item(key)))
            case ["recordings", key, "windows", level, number]:
                labels = [int(each) for each in asked.get("labels", "").split(",") if each]
                self._json(answers.piece(library, library.item(key), int(level), int(number), labels))
            case ["recordings", key, "window"]:
                label = int(asked["label"]) if "label" in asked else None
                item = library.item(key)
                self._json(answers.window(library, item, float(asked["start"]), float(asked["end"]), label))
            case ["recordings", key, "spectrogram", level, number]:
                item = library.item(key)
                path_of = library.sound(item)
                made = self.server.tiles.tile(path_of, item.entry.seconds, int(level), int(number))
                self._send(made.mime, made.content, {"Cache-Control": "private, max-age=3600"})
            case ["recordings", key, "sound", name]:
                self._sound(library.item(key), int(name.removesuffix(".wav")))
            case _:
                raise KeyError(path)

    def _events(self, asked: dict[str, str]) -> dict[str, Any]:
        library, key = self.server.library, asked.get("recording")
        return answers.events(
            library,
            library.items() if key is None else [library.item(key)],
            order=asked.get("order", "time"),
            show=asked.get("show", "all"),
            label=int(asked["label"]) if asked.get("label") else None,
            least=float(asked.get("least", 0)),
            offset=max(0, int(asked.get("offset", 0))),
            limit=max(0, int(asked.get("limit", answers.PAGE))),
        )

    def _put(self, path: list[str]) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 < length <= _BODY or self.headers.get_content_type() != "application/json":
            # What is not read would be taken for the next request.
            self.close_connection = True
            raise _RefusedError(HTTPStatus.BAD_REQUEST, "a label is a short message in JSON")
        said = json.loads(self.rfile.read(length))
        match path:
            case ["recordings", key, "labels"] if isinstance(said, dict):
                self._json(answers.say(self.server.library, self.server.library.item(key), said))
            case _:
                raise KeyError(path)

    def _sound(self, item: Item, part: int) -> None:
        library = self.server.library
        channel = library.folder.manifest.get("channel") or "mix"
        wave = Wave(library.sound(item), item.entry.seconds, part, channel)
        first, last = 0, wave.size
        asked = _RANGE.fullmatch(self.headers.get("Range") or "")
        if asked and (asked[1] or asked[2]):
            first = int(asked[1]) if asked[1] else max(0, wave.size - int(asked[2]))
            last = min(wave.size, int(asked[2]) + 1) if asked[1] and asked[2] else wave.size
            if first >= last:
                self._begin(
                    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
                    "audio/wav",
                    0,
                    {"Content-Range": f"bytes */{wave.size}"},
                )
                return
        extra = {"Accept-Ranges": "bytes"}
        if asked:
            extra["Content-Range"] = f"bytes {first}-{last - 1}/{wave.size}"
        pieces: Iterable[bytes] = [] if self.command == "HEAD" else wave.read(first, last)
        self._begin(HTTPStatus.PARTIAL_CONTENT if asked else HTTPStatus.OK, "audio/wav", last - first, extra)
        for each in pieces:
            self.wfile.write(each)

    def _json(self, value: Any) -> None:
        self._send("application/json", dumps(value).encode())

    def _error(self, status: HTTPStatus, text: str) -> None:
        self._send("application/json", dumps({"error": text}).encode(), status=status)

    def _send(
        self, kind: str, content: bytes, extra: dict[str, str] | None = None, status: HTTPStatus = HTTPStatus.OK
    ) -> None:
        self._begin(status, kind, len(content), extra or {})
        if self.command != "HEAD":
            self.wfile.write(content)

    def _begin(self, status: HTTPStatus, kind: str, length: int, extra: dict[str, str]) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(length),
            "Content-Security-Policy": POLICY,
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "no-store",
        }
        for name, value in (headers | extra).items():
            self.send_header(name, value)
        self.end_headers()
