"""A stand-in for a device without float64: it computes on the CPU, but its tensors are its own.

It goes by the name ``meta``, as torch has no other device everywhere.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from bayes_panns.devices import wide

DEVICE = torch.device("meta")


class There(torch.Tensor):
    """A tensor on the device.

    Raises:
        TypeError: It is of float64.
    """

    @staticmethod
    def __new__(cls, held):
        if held.dtype in (torch.float64, torch.complex128):
            raise TypeError("the device has no float64")
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
            requires_grad=held.requires_grad,
        )

    def __init__(self, held):
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _Device(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


def _run(func, args, kwargs):
    given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
    to = kwargs.get("device")
    moves = func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
    here = [each for each in given if not isinstance(each, There)]
    there = any(isinstance(each, There) for each in given)
    if there and not moves and any(each.dim() for each in here) and "index" not in str(func):
        raise RuntimeError(f"{func}: tensors of two devices")
    if to is not None:
        there = torch.device(to).type == DEVICE.type
        kwargs = {**kwargs, "device": torch.device("cpu")}
    elif func is torch.ops.aten.copy_.default:
        there = isinstance(args[0], There)
    owners = {}

    def held(each):
        owners[id(each.held)] = each
        return each.held

    held_args, held_kwargs = tree_map_only(There, held, (args, kwargs))
    found = func(*held_args, **held_kwargs)

    def wrapped(value):
        # An operation in place gives its own argument back.
        if id(value) in owners:
            return owners[id(value)]
        return There(value) if there else value

    return tree_map_only(torch.Tensor, wrapped, found)


class _Refusing(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if any(isinstance(each, torch.Tensor) and each.dtype == torch.float64 for each in tree_leaves(found)):
            raise TypeError(f"{func}: makes float64")
        return found


@contextmanager
def a_cpu_without_float64() -> Iterator[None]:
    """A block in which nothing at all may be of float64, for work that all happens on a device."""
    with patch.object(wide, "has_float64", lambda device: False), _Refusing():
        yield


@contextmanager
def a_device_without_float64() -> Iterator[torch.device]:
    """A block in which there is such a device."""
    tensor = torch.tensor

    def made(*args, device=None, **kwargs):
        found = tensor(*args, **kwargs)
        return found if device is None else found.to(device)

    def has_float64(device):
        return torch.device(device).type != DEVICE.type

    with patch.object(torch, "tensor", made), patch.object(wide, "has_float64", has_float64), _Device():
        yield DEVICE
