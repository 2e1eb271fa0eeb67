import io
import logging
import sys

import pytest
from click.testing import CliRunner

from bayes_panns.cli.main import Commands
from bayes_panns.cli.streams import show_any_text
from bayes_panns.core.errors import SettingError, StoreError


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("utf-8", "café 日 0.86±0.23 −1 \\udce9".encode()),
        ("cp1252", b"caf\xe9 \\u65e5 0.86\xb10.23 -1 \\udce9"),
        ("ascii", b"caf\\xe9 \\u65e5 0.86+-0.23 -1 \\udce9"),
        ("utf-16-le", "café 日 0.86±0.23 −1 \\udce9".encode("utf-16-le")),
    ],
)
def test_a_terminal_of_any_encoding_shows_any_text(monkeypatch, encoding, expected):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    show_any_text()
    sys.stdout.write("café 日 0.86±0.23 −1 \udce9")
    sys.stdout.flush()
    assert written.getvalue() == expected


@pytest.mark.parametrize("error", [StoreError, SettingError])
def test_a_message_with_an_endless_word_is_shortened(error):
    group = Commands("group")

    @group.command()
    def fail():
        logging.getLogger("bayes_panns").warning(f"skipped {9999 * '1'}, which is no number")
        raise error(f"a.csv: line 2 has {9999 * '9'}, which is no number; correct it")

    lines = CliRunner().invoke(group, ["fail"]).stderr.splitlines()
    assert lines[0].startswith("warning: skipped 111")
    assert lines[0].endswith("111, which is no number")
    assert ": a.csv: line 2 has 999" in lines[-1]
    assert lines[-1].endswith("999, which is no number; correct it")
    assert all(len(line) < 2000 for line in lines)
