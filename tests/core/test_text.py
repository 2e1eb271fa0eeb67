import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayes_panns.core.text import cell, printable, readable


def test_control_characters_are_escaped():
    assert printable("a\x1b[31mb\nc\u202ed") == r"a\x1b[31mb\nc\u202ed"
    assert printable("line\u2028end\x85\x7f\ufeff") == r"line\u2028end\x85\x7f\ufeff"


def test_letters_of_any_language_and_emoji_stay():
    for text in ("café", "犬の声", "می\u200cخواهم", "👩\u200d🚒", "a  b"):
        assert printable(text) == text


@given(st.text(st.characters()))
def test_whatever_a_name_is_it_is_one_line_that_can_be_written(text):
    for shown in (printable(text), cell(text)):
        assert len(shown.splitlines()) <= 1
        assert "\x1b" not in shown
        shown.encode("utf-8")
    assert not cell(text).startswith(("=", "+", "-", "@"))


def test_names_that_are_not_utf8_stay_different_and_can_be_written():
    names = ["caf\udce9.wav", "caf\udce8.wav", "café.wav", "\ud800.wav"]
    shown = [readable(name) for name in names]
    assert shown == ["caf\\xe9.wav", "caf\\xe8.wav", "café.wav", "\\ud800.wav"]
    assert all(each.encode() for each in shown)


@pytest.mark.parametrize("text", ["=1+2", "+1", "-1", "@a", "\t=1", "\r=1", "\n=1", "\uff1d1"])
def test_no_cell_is_a_formula(text):
    assert cell(text) == "'" + printable(text)
