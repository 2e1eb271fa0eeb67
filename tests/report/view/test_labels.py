import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bayes_panns.clips.catalogs.timed_table import TimedRow, read_timed_table
from bayes_panns.core.errors import SettingError, StoreError
from bayes_panns.report.view.labels import LabelBook, Mark

NAMES = {"one": "disk/one.wav", "two": "disk/two.wav"}


def book(path, labels=("owl", "dog")):
    made = LabelBook(path / "labels.csv", labels)
    made.call(NAMES, {**{name: key for key, name in NAMES.items()}, "/old/disk/one.wav": "one"})
    return made


def test_what_is_said_is_a_row_that_pack_reads(tmp_path):
    labels = book(tmp_path)
    assert labels.put("one", 2.5, 5, ["owl"]) is None
    labels.put("one", 0, 2.5, [], ["dog"])
    labels.put("two", 1 / 3, 2, ["owl", "dog"])
    assert (tmp_path / "labels.csv").read_text(encoding="utf-8") == (
        "file,labels,start,end,refuted\n"
        "disk/one.wav,,0,2.5,dog\n"
        "disk/one.wav,owl,2.5,5,\n"
        "disk/two.wav,owl;dog,0.333333,2,\n"
    )
    # Said again, of the same stretch although 1/3 is not what the file has.
    assert labels.put("two", 1 / 3, 2, ["dog"]).labels == ("owl", "dog")
    assert [mark.labels for mark in labels.of("two")] == [("dog",)]
    assert labels.counts() == {"one": 2, "two": 1}


def test_taking_all_back_leaves_no_file(tmp_path):
    labels = book(tmp_path)
    labels.put("one", 0, 1, ["owl"])
    assert labels.put("one", 0, 1, None) == Mark(0, 1, ("owl",), ())
    assert labels.of("one") == []
    assert list(tmp_path.iterdir()) == []
    assert labels.put("one", 0, 1, None) is None


def test_rows_of_others_and_their_columns_are_kept(tmp_path):
    (tmp_path / "labels.csv").write_text(
        "file,start,end,labels,fold,source,exhaustive\n"
        "elsewhere/x.wav,1,2,dog,3,night,true\n"
        "/old/disk/one.wav,,,rain,2,day,false\n"
    )
    labels = book(tmp_path)
    assert labels.of("one") == [Mark(0, float("inf"), ("rain",), ())]
    labels.put("one", 4, 5, ["owl"])
    rows = [row for _, row in read_timed_table(tmp_path / "labels.csv")]
    assert rows == [
        # The recording is called as it is now, and has one fold and one source.
        TimedRow(file="disk/one.wav", labels="rain", start=None, end=None, fold=2, source="day"),
        TimedRow(file="disk/one.wav", labels="owl", start=4.0, end=5.0, fold=2, source="day"),
        TimedRow(file="elsewhere/x.wav", labels="dog", start=1.0, end=2.0, fold=3, source="night", exhaustive=True),
    ]


def test_a_change_by_another_program_is_seen_and_a_damaged_file_is_not_replaced(tmp_path):
    labels = book(tmp_path)
    labels.put("one", 0, 1, ["owl"])
    path = tmp_path / "labels.csv"
    path.write_text("file,labels,start,end\ndisk/two.wav,dog,3,4\n")
    assert labels.of("one") == []
    labels.put("one", 0, 1, ["owl"])
    assert [row.file for _, row in read_timed_table(path)] == ["disk/one.wav", "disk/two.wav"]
    path.write_text("file,labels,start,end\ndisk/two.wav,dog,x,4\n")
    assert labels.counts() == {}
    for _ in range(2):
        with pytest.raises(StoreError, match=r"line 2 has start 'x'"):
            labels.put("one", 0, 2, ["owl"])
    assert "x,4" in path.read_text()
    path.unlink()
    labels.put("one", 0, 2, ["owl"])
    assert labels.problem is None


@pytest.mark.parametrize(
    ("labels", "refuted", "message"),
    [(["a;b"], [], "without ';'"), (["  "], [], "cannot be a label"), (["owl"], ["owl"], "say one of them")],
)
def test_what_cannot_be_written_is_refused(tmp_path, labels, refuted, message):
    with pytest.raises(SettingError, match=message):
        book(tmp_path).put("one", 0, 1, labels, refuted)
    assert list(tmp_path.iterdir()) == []


def test_labels_with_a_semicolon_are_separated_by_another_sign(tmp_path):
    labels = book(tmp_path, labels=("owl; barn", "dog"))
    labels.put("one", 0, 1, ["owl; barn", "dog"])
    assert labels.separator == "|"
    assert book(tmp_path, labels=("owl; barn",)).of("one") == [Mark(0, 1, ("owl; barn", "dog"), ())]


@settings(max_examples=10)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(NAMES)),
            st.integers(0, 4),
            st.one_of(st.none(), st.lists(st.sampled_from(["owl", "a, \"b'", "Vögel"]), unique=True)),
        ),
        max_size=8,
    )
)
def test_the_last_word_on_each_stretch_comes_back(tmp_path_factory, said):
    path = tmp_path_factory.mktemp("labels")
    labels, expected = book(path), {}
    for key, start, names in said:
        labels.put(key, start, start + 0.7, names)
        expected.pop((key, start), None)
        if names is not None:
            expected[key, start] = tuple(names)
    again = book(path)
    assert {(key, mark.start): mark.labels for key in NAMES for mark in again.of(key)} == expected
