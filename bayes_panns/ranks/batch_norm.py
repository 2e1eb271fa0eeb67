"""BatchNorm whose statistics are those of the clips of all processes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from bayes_panns.ranks.group import Group
from bayes_panns.ranks.shard import shard


@contextmanager
def synchronised_batch_norm(module: nn.Module, group: Group) -> Iterator[None]:
    """A block in which BatchNorms in training mode normalise by the clips of the whole step.

    Modules, parameters and buffers stay the same ones. In eval mode, as frozen parts are, nothing is exchanged.
    Processes may have different numbers of clips, and clips of others that wait for mixup behind their own, which do
    not count. :class:`torch.nn.SyncBatchNorm` knows no such clips, runs on GPUs only, and waits for them in each layer.

    Args:
        module: The network.
        group: The processes; a group of one changes nothing.
    """
    norms = [each for each in module.modules() if isinstance(each, _BatchNorm)] if group.size > 1 else []
    for each in norms:
        each.forward = _forward(each, group)  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        for each in norms:
            del each.forward


def _forward(norm: _BatchNorm, group: Group) -> Callable[[Tensor], Tensor]:
    plain = norm.forward

    def forward(input: Tensor) -> Tensor:
        if not norm.training:
            return plain(input)
        return _synchronised(norm, input, min(len(shard(len(input))), len(input)), group)

    return forward


def _synchronised(norm: _BatchNorm, input: Tensor, own: int, group: Group) -> Tensor:
    """Normalise by the statistics of the first ``own`` clips of each process, and keep their running means."""
    counted = input[:own].detach().float() if input.dtype.itemsize < 4 else input[:own].detach()
    dims = [0, *range(2, input.dim())]
    variance, mean = torch.var_mean(counted, dim=dims, correction=0)
    # In double precision the variance may be put together from squares.
    here = float(counted.numel() // counted.shape[1])
    mean, variance = mean.double(), variance.double()
    sums = torch.cat([mean * here, (variance + mean.square()) * here, mean.new_full((1,), here)])
    *both, count = group.total(sums).split([len(mean), len(mean), 1])
    mean, square = (each / count for each in both)
    variance = (square - mean.square()).clamp(min=0)
    if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        share = 1 / norm.num_batches_tracked.item() if norm.momentum is None else norm.momentum
        norm.running_mean.lerp_(mean.to(norm.running_mean), share)
        norm.running_var.lerp_((variance * count / (count - 1).clamp(min=1)).to(norm.running_var), share)
    of_all = _Statistics(mean.to(counted), variance.to(counted), count, norm.eps, own, group)
    return _Normalise.apply(input, norm.weight, norm.bias, of_all)


class _Statistics(NamedTuple):
    """Mean and variance of each channel over a number of ``elements``: those of the first ``own`` clips of each process."""

    mean: Tensor
    variance: Tensor
    elements: Tensor
    eps: float
    own: int
    group: Group


class _Normalise(torch.autograd.Function):
    """y = w x' + b for x' = scale (x - mean), scale = (variance + eps)^(-1/2); the statistics depend on x.

    With means <.> over the n counted elements of a channel of all processes, of sums over all rows::

        dx = w scale (dy - <dy> - x' <dy x'>)      the last two terms for counted rows only
        dw = sum dy x',  db = sum dy               this process's own, which DistributedDataParallel adds up
    """

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        of_all: _Statistics,
    ) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.of_all = of_all
        return F.batch_norm(input, of_all.mean, of_all.variance, weight, bias, training=False, eps=of_all.eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        mean, variance, count, eps, own, group = ctx.of_all
        scale = (variance + eps).rsqrt()
        shape, dims = [1, -1, *[1] * (input.dim() - 2)], [0, *range(2, input.dim())]
        grad = grads[0].to(mean)
        normalised = (input.to(mean) - mean.view(shape)) * scale.view(shape)
        of_bias, of_weight = grad.sum(dim=dims), (grad * normalised).sum(dim=dims)
        found: list[Tensor | None] = [None] * 4
        found[1] = of_weight.to(weight) if ctx.needs_input_grad[1] else None
        found[2] = of_bias.to(weight) if ctx.needs_input_grad[2] else None
        # All processes need it, or none: they have the same network.
        if ctx.needs_input_grad[0]:
            sums = group.total(torch.stack([of_bias, of_weight]).double()) / count
            shift, slope = (each.to(mean).view(shape) for each in sums)
            normalised[:own].mul_(slope).add_(shift)
            normalised[own:] = 0
            grad = grad - normalised
            factor = scale if weight is None else scale * weight.to(scale)
            found[0] = (grad * factor.view(shape)).to(input)
        return tuple(found)
