import hashlib
import json
import tomllib

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from bayes_panns.core.digests import digest_of, read_sealed, sealed, sha256_of, unsealed
from bayes_panns.core.strict_json import dumps


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1])
def test_it_is_the_sha256_of_the_content(size, tmp_path):
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    (tmp_path / "a").write_bytes(content)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        sha256_of(tmp_path / "missing")


LEAVES = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=5)
TABLES = st.dictionaries(
    st.text(max_size=5).filter(lambda key: key != "digest"),
    st.recursive(LEAVES, lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=3), each)),
    max_size=4,
)


@settings(max_examples=40)
@given(table=TABLES)
def test_a_sealed_table_is_read_back_from_json(table):
    written = json.loads(dumps(sealed(table)))
    assert unsealed(written) == json.loads(dumps(table))
    assert unsealed(dict(reversed(written.items()))) == unsealed(written), "the order of keys does not matter"


def test_a_sealed_table_is_read_back_from_toml():
    table = {"rate": 8000, "seconds": 0.5, "small": 1e-17, "labels": ("ä", "b"), "settings": {"one": True, "10": -0.0}}
    assert unsealed(tomllib.loads(tomli_w.dumps(sealed(table)))) == json.loads(dumps(table))


def test_keys_that_are_numbers_and_infinite_values_keep_the_digest():
    assert digest_of({"folds": {2: 1, 10: 2}, "nll": float("inf")}) == digest_of(
        {"nll": None, "folds": {"10": 2, "2": 1}}
    )


@pytest.mark.parametrize("change", [{"epochs": 3}, {"epochs": 2.0}, {"more": 1}, {"digest": "0" * 64}, {"digest": 3}])
def test_any_change_is_noticed(change):
    with pytest.raises(ValueError, match="changed by hand or damaged: its digest does not match"):
        unsealed({**sealed({"epochs": 2}), **change})


def test_tables_of_earlier_versions_have_no_digest():
    assert unsealed({"epochs": 2}) == {"epochs": 2}


@pytest.mark.parametrize("text", ["", "[]", "[" * 10**5, "{", '{"epochs": 2, "digest": "0"}', b"\xff"])
def test_a_damaged_file_is_a_value_error(tmp_path, text):
    (tmp_path / "a.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r"."):
        read_sealed(tmp_path / "a.json")


def test_a_sealed_file_is_read_back(tmp_path):
    (tmp_path / "a.json").write_text(dumps(sealed({"epochs": 2})))
    assert read_sealed(tmp_path / "a.json") == {"epochs": 2}
