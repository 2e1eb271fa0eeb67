"""Samples of 16 bits as floats, on any device."""

import torch
from torch import Tensor

from bayes_panns.clips.store_format import FULL_SCALE


def as_floats(values: Tensor) -> Tensor:
    """Waveforms as a store gives them: 16-bit samples become floats, to the last bit as a store reads them.

    Args:
        values: int16 as they lie in a store, any shape; or floats, which stay as they are.

    Returns:
        float32 in [-1, 1] of the same shape, on the same device.

    Example:
        >>> as_floats(torch.tensor([[-32767, 0, 32767]], dtype=torch.int16))
        tensor([[-1.,  0.,  1.]])
    """
    if values.dtype != torch.int16:
        return values
    # A GPU divides by a number of Python as it multiplies by its inverse, which rounds otherwise.
    return values.float().div_(torch.full((), float(FULL_SCALE), device=values.device))
