"""Rows are read in any order, and near ones together."""

import os

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bayes_panns.clips.extents import Extents
from bayes_panns.clips.rows import read_rows


class Counted:
    """An array that counts how often it is read."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.reads = array, array.shape, array.dtype, 0

    def __getitem__(self, place):
        self.reads += 1
        return self.array[place]

    def read_direct(self, found, row, position):
        self.reads += 1
        found[position] = self.array[row]


@pytest.mark.parametrize(
    ("rows", "reads"),
    [
        ([], 0),
        ([7], 1),
        (list(range(1000)), 1),
        (list(range(999, -1, -1)), 1),
        ([5, 5, 3, 5, 900_000, 3], 2),
        (list(range(0, 900_000, 300_000)), 3),
        (list(range(0, 100_000, 10)), 1),
    ],
)
def test_rows_that_are_near_each_other_are_read_together(rows, reads):
    dataset = Counted(np.arange(3_000_000, dtype=np.float32).reshape(1_000_000, 3))
    found = read_rows(dataset, np.array(rows, dtype=np.int64))
    np.testing.assert_array_equal(found, dataset.array[np.array(rows, dtype=np.int64)])
    assert dataset.reads == reads


def test_blocks_are_bounded_and_long_rows_are_read_one_by_one():
    dataset = Counted(np.arange(2**23, dtype=np.float32).reshape(2**13, 2**10))
    rows = np.random.default_rng(0).permutation(2**13)
    np.testing.assert_array_equal(read_rows(dataset, rows), dataset.array[rows])
    assert dataset.reads == 2
    long = Counted(np.arange(2**17, dtype=np.float32).reshape(4, 2**15))
    np.testing.assert_array_equal(read_rows(long, np.array([2, 0, 2])), long.array[[2, 0, 2]])
    assert long.reads == 3


WIDE = 2**15 + 1
"""Numbers of a row that is read from its own place."""


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Rows that lie as they are, in every way, and some that do not; with what they hold."""
    values = np.random.default_rng(0).integers(-(2**15), 2**15, (40, WIDE)).astype(np.int16)
    file = h5py.File(tmp_path_factory.mktemp("rows") / "a.h5", "w")
    file["together"] = values
    file.create_dataset("row by row", data=values, chunks=(1, WIDE))
    file.create_dataset("growing", data=values, chunks=(1, WIDE), maxshape=(None, WIDE))
    file.create_dataset("packed", data=values, chunks=(1, WIDE), compression="gzip", compression_opts=1)
    file.create_dataset("in pairs", data=values, chunks=(2, WIDE))
    file.create_dataset("others", data=values.astype(">i2"))
    file.flush()
    return file, values


@settings(max_examples=30)
@given(rows=st.lists(st.integers(0, 39), max_size=20), name=st.sampled_from(["together", "row by row", "growing"]))
def test_long_rows_are_read_from_their_places(wide, rows, name):
    file, values = wide
    rows = np.array(rows, dtype=np.int64)
    assert Extents.found(file[name]) is not None
    assert (read_rows(file[name], rows) == values[rows]).all()
    found = np.zeros((len(rows), WIDE), dtype=np.int16)
    assert read_rows(file[name], rows, found) is found
    assert (found == values[rows]).all()


@pytest.mark.parametrize("name", ["packed", "in pairs", "others"])
def test_long_rows_that_are_stored_otherwise_are_left_to_hdf5(wide, name):
    file, values = wide
    rows = np.array([7, 3, 3, 39])
    if name != "others":
        assert Extents.found(file[name]) is None
    assert (read_rows(file[name], rows) == values[rows]).all()


def test_rows_that_were_never_written_are_left_to_hdf5(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        rows = file.create_dataset("rows", (4, WIDE), np.int16, chunks=(1, WIDE), fillvalue=7)
        rows[2] = 1
        file.flush()
        assert read_rows(rows, np.array([2, 1]))[:, 0].tolist() == [1, 7]


def test_neighbours_are_one_request(wide, monkeypatch):
    file, values = wide
    asked = []
    preadv = os.preadv

    def counted(descriptor, buffers, place):
        asked.append(len(buffers))
        return preadv(descriptor, buffers, place)

    monkeypatch.setattr(os, "preadv", counted)
    rows = np.array([5, 20, 6, 4, 21, 30])
    assert (read_rows(file["together"], rows) == values[rows]).all()
    assert asked == [3, 2, 1]


def test_reads_that_come_short_go_on_and_the_end_of_the_file_is_an_error(wide, monkeypatch):
    file, values = wide
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda descriptor, buffers, place: preadv(descriptor, [buffers[0][:1000]], place))
    rows = np.array([5, 6, 20])
    assert (read_rows(file["together"], rows) == values[rows]).all()
    monkeypatch.setattr(os, "preadv", lambda descriptor, buffers, place: 0)
    with pytest.raises(OSError, match="truncated"):
        read_rows(file["together"], rows)
