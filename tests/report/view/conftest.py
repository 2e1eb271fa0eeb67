import json
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest

from bayes_panns.report.view import ViewServer
from tests.harness.waiting import PATIENCE
from tests.report.view.made import make


@pytest.fixture
def made(tmp_path):
    """A made results folder, with recordings."""
    return make(tmp_path)


@contextmanager
def serving(*args, **kwargs):
    """A server that runs in this block."""
    with ViewServer(*args, **kwargs) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield Client(server)
        finally:
            server.shutdown()
            thread.join()


class Client:
    """Asks a server."""

    def __init__(self, server):
        self.server = server

    def ask(self, path, method="GET", headers=(), data=None, address=None):
        """The status, the headers and the content of an answer."""
        request = urllib.request.Request((address or self.server.address) + path, data, dict(headers), method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                return response.status, response.headers, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read()

    def get(self, path):
        """An answer that is JSON."""
        status, _, content = self.ask(path)
        assert status == 200, content
        return json.loads(content)

    def say(self, key, start, end, labels, refuted=()):
        """Write a label; the status and the answer."""
        said = {"start": start, "end": end, "labels": labels, "refuted": list(refuted)}
        headers = {"Content-Type": "application/json"}
        status, _, content = self.ask(f"recordings/{key}/labels", "PUT", headers, json.dumps(said).encode())
        return status, json.loads(content)

    @property
    def keys(self):
        """The recordings' keys by their names."""
        return {each["file"]: each["key"] for each in self.get("recordings")["recordings"]}


@pytest.fixture
def client(made):
    """Asks a server of a folder of its own."""
    with serving(made.results) as client:
        yield client


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """Asks a server that is there for several tests, which write nothing."""
    with serving(make(tmp_path_factory.mktemp("shared")).results) as client:
        yield client
