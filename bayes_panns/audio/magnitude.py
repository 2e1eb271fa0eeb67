"""How large the numbers of an input may be."""

import numpy as np
from numpy.typing import NDArray

LARGEST = 1e12
"""The largest sample or number of an embedding. Full scale is 1, and 2 ** 31 where float files hold integers; far
beyond, squares and sums overflow, and the network gives no numbers."""


def usable(values: np.ndarray) -> NDArray[np.bool_]:
    """Which numbers are finite and no larger than :data:`LARGEST`, in the shape of ``values``.

    Example:
        >>> usable(np.array([0.5, -2e9, 1e30, np.nan, -np.inf])).tolist()
        [True, True, False, False, False]
    """
    return np.abs(values) <= LARGEST
