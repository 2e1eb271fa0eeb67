import pytest

from bayes_panns.core.files import whole_file, whole_folder


def test_a_file_is_replaced_when_the_block_ends_well(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with whole_file(path) as fresh:
        fresh.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_what_was_there(tmp_path):
    path, folder = tmp_path / "a.txt", tmp_path / "b"
    path.write_text("old")
    folder.mkdir()
    (folder / "old").touch()

    def fail():
        with whole_file(path) as fresh, whole_folder(folder) as filled:
            fresh.write_text("half")
            (filled / "half").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["a.txt", "b", "old"]


def test_a_folder_takes_the_place_of_the_one_before(tmp_path):
    folder = tmp_path / "deep" / "b"
    for name in ("first", "second"):
        with whole_folder(folder) as fresh:
            (fresh / name).touch()
    assert [path.name for path in folder.iterdir()] == ["second"]
    assert [path.name for path in folder.parent.iterdir()] == ["b"]
