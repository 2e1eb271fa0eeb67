"""Waveforms brought to one length: the only place that pads or cuts them."""

from typing import TypeVar

import numpy as np
import torch
from torch.nn import functional as F

_Waveform = TypeVar("_Waveform", np.ndarray, torch.Tensor)


def fit_length(waveform: _Waveform, samples: int) -> _Waveform:
    """Cut a waveform to a length, or pad it with zeros at the end.

    Args:
        waveform: A NumPy array or a tensor of any type, shape ``(..., any)``; the last axis is time.
        samples: The length wanted, at least 1.

    Returns:
        An array or tensor of the same type, shape ``(..., samples)``. It may share memory with ``waveform``.

    Raises:
        ValueError: ``samples`` is below 1.

    Example:
        >>> fit_length(np.array([1.0, 2.0, 3.0]), 5)
        array([1., 2., 3., 0., 0.])
        >>> fit_length(torch.tensor([[1.0, 2.0, 3.0]]), 2)
        tensor([[1., 2.]])
    """
    if samples < 1:
        raise ValueError(f"a waveform of {samples} samples is not possible; ask for 1 or more")
    missing = samples - waveform.shape[-1]
    if missing <= 0:
        return waveform[..., :samples]
    if isinstance(waveform, np.ndarray):
        return np.pad(waveform, [(0, 0)] * (waveform.ndim - 1) + [(0, missing)])
    return F.pad(waveform, (0, missing))
