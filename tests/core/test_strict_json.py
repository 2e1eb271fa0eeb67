import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayes_panns.core.choices import Task
from bayes_panns.core.strict_json import defined, dumps, strict, write_json

NAN, INFINITY = float("nan"), float("inf")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


@given(VALUES)
def test_any_value_becomes_json_that_a_strict_reader_takes(value):
    text = dumps(value)
    assert text.endswith("\n")
    assert json.loads(text, parse_constant=refuse) == strict(value)


@given(st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()))
def test_finite_values_come_back_as_they_were(value):
    assert json.loads(dumps(value)) == value
    assert defined(value) == value


def test_what_is_not_finite_is_null_at_any_depth():
    assert strict({"a": [1.5, NAN, (INFINITY, -INFINITY)], "b": {"c": NAN}}) == {
        "a": [1.5, None, [None, None]],
        "b": {"c": None},
    }


def test_numbers_of_numpy_are_numbers():
    value = [np.float32(0.5), np.float64(NAN), np.float32(INFINITY), np.int64(3), True]
    assert dumps(value) == "[0.5, null, null, 3, true]\n"
    assert defined({"a": np.float32(NAN), "b": np.float32(1)}) == {"b": 1}


def test_choices_are_their_words():
    assert dumps({"task": Task.ONE_OF_K}) == '{"task": "one-of-k"}\n'


def test_letters_stay_letters_and_indent_is_passed_on():
    assert dumps({"é": 1}) == '{"é": 1}\n'
    assert dumps([1], indent=2) == "[\n  1\n]\n"


def test_undefined_metrics_are_left_out():
    kept = defined({"cls/auc": NAN, "cls/map": 0.5, "clips": 3, "name": "x", "unc/total": -INFINITY})
    assert kept == {"cls/map": 0.5, "clips": 3, "name": "x"}


def test_a_file_is_written_whole(tmp_path):
    path = tmp_path / "a.json"
    write_json({"loss": math.nan}, path)
    assert path.read_text(encoding="utf-8") == '{\n "loss": null\n}\n'
    with pytest.raises(TypeError):
        write_json({"path": path}, path)
    assert json.loads(path.read_text()) == {"loss": None}
    assert list(tmp_path.iterdir()) == [path]
