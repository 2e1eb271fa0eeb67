"""Rows are read in any order, and near ones together."""

import numpy as np
import pytest

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
