import pytest

from bayes_panns.core.text import cell, printable, readable


def test_control_characters_become_spaces():
    assert printable("a\x1b[31mb\nc\u202ed") == "a [31mb c d"


def test_names_that_are_not_utf8_stay_different_and_can_be_written():
    names = ["caf\udce9.wav", "caf\udce8.wav", "café.wav", "\ud800.wav"]
    shown = [readable(name) for name in names]
    assert shown == ["caf\\xe9.wav", "caf\\xe8.wav", "café.wav", "\\ud800.wav"]
    assert all(each.encode() for each in shown)


@pytest.mark.parametrize("text", ["=1+2", "+1", "-1", "@a", "\t=1", "\r=1"])
def test_no_cell_is_a_formula(text):
    assert cell(text) == "'" + printable(text)
