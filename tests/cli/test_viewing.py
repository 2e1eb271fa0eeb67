import re
import webbrowser

import pytest
from click.testing import CliRunner

from bayes_panns.cli import main
from bayes_panns.report.view import ViewServer
from tests.report.view.made import make


@pytest.fixture
def ended(monkeypatch):
    """A server that Ctrl-C ends at once; and what was opened in a browser."""
    opened = []

    def end(server):
        raise KeyboardInterrupt

    monkeypatch.setattr(ViewServer, "serve_forever", end)
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or False)
    return opened


def test_it_prints_the_address_opens_a_browser_and_ends_cleanly(tmp_path, ended):
    made = make(tmp_path)
    result = CliRunner().invoke(main, ["view", str(made.results)])
    assert result.exit_code == 0, result.output
    address = result.stdout.strip()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{20,}/", address)
    assert ended == [address]
    assert "no browser could be opened" in result.stderr
    again = CliRunner().invoke(main, ["view", str(made.results), "--no-browser"])
    assert again.exit_code == 0
    # Every run has an address of its own.
    assert again.stdout.strip().split("/")[3] != address.split("/")[3]
    assert len(ended) == 1


def test_no_results_and_no_folder_of_recordings_are_one_line(tmp_path, ended):
    result = CliRunner().invoke(main, ["view", str(tmp_path)])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"bayes-panns: {tmp_path}: holds no results of predict")
    result = CliRunner().invoke(main, ["view", str(tmp_path), "--recordings", str(tmp_path / "none")])
    assert result.exit_code == 2
