import io
import sys

import pytest

from bayes_panns.cli.streams import show_any_text


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
