from bayes_panns.report.text.layout import columns


def test_columns_are_aligned_and_never_cut_or_wrapped():
    text = columns([["label", "n"], ["dog", "12"], ["x" * 300, ""], ["犬の声", "3"]])
    lines = text.splitlines()
    assert len(lines) == 4
    assert lines[2] == "x" * 300
    assert lines[1] == "dog" + " " * 299 + "12"
    # A wide letter takes two places on a terminal.
    assert lines[3] == "犬の声" + " " * 296 + "3"
    assert columns([]) == ""


def test_markup_and_control_characters_are_text():
    assert columns([["[bold]dog[/bold]", ":dog:", "a\x1b[31m\nb"]]) == "[bold]dog[/bold]  :dog:  a\\x1b[31m\\nb\n"


def test_a_terminal_that_asks_for_colours_gets_the_same_text(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    assert columns([["a", "1.5", "x" * 200]]) == f"a  1.5  {'x' * 200}\n"
