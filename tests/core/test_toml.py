import tomllib

from hypothesis import given
from hypothesis import strategies as st

from bayes_panns.core import toml

names = st.binary().map(lambda name: name.decode("utf-8", "surrogateescape"))


@given(st.dictionaries(names, names | st.lists(names) | st.integers()))
def test_names_of_any_bytes_come_back_and_the_file_is_valid(table):
    text = toml.dumps({"stores": table})
    assert toml.loads(text) == {"stores": table}
    tomllib.loads(text.encode("utf-8").decode("utf-8"))


def test_what_is_valid_is_written_as_it_is():
    assert toml.dumps({"a": "café 犬", "b": [1, "x"]}) == 'a = "café 犬"\nb = [\n    1,\n    "x",\n]\n'
