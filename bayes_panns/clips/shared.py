"""Memory that processes share."""

import math
import os

import torch
from torch import Tensor


def shared(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An empty tensor in memory that processes share.

    Torch does not ask whether there is room: where there is none, as in a container with a small ``/dev/shm``, the
    first write would end the process.

    Args:
        shape: Its shape.
        dtype: Its type.

    Raises:
        OSError: There is no room.

    Example:
        >>> shared((2, 3), torch.int16).is_shared()
        True
    """
    size = math.prod(shape) * dtype.itemsize
    try:
        room = torch.UntypedStorage._new_shared(size)
    except RuntimeError as error:
        raise OSError(str(error)) from error
    if size and hasattr(os, "posix_fallocate") and torch.multiprocessing.get_sharing_strategy() == "file_descriptor":
        os.posix_fallocate(room._share_fd_cpu_()[0], 0, size)
    return torch.empty(0, dtype=dtype).set_(room, 0, shape)  # type: ignore[call-overload]
