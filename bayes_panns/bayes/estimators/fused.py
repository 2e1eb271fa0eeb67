"""The arithmetic of a Normal over a large weight, in blocks that stay in cache.

To draw a weight and to find its KL from the prior takes a dozen elementwise operations. One after the other over tens
of millions of weights, each would wait for memory; here a block of the weight goes through all of them while it is in
cache, and the blocks are shared out to as many threads as torch has. A block has a random stream of its own, so that a
draw does not depend on the number of threads. On other devices than the CPU a weight is one block.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Form = Literal["weight", "mirrored", "apart"]
"""What is made of a draw: ``loc + noise``; that and ``loc - noise``; or ``loc`` and ``noise``."""

_BLOCK = 1 << 19
"""Elements a block: threads take turns at calling torch, so smaller blocks would wait for calls."""


class NormalPrior(NamedTuple):
    """A Normal prior over a weight; ``loc`` and ``scale`` have its shape, or are 0-d where all elements share one.

    A ``loc`` of ``None`` is 0.
    """

    loc: Tensor | None
    scale: Tensor

    def at(self, span: slice) -> "NormalPrior":
        """The prior of a block, from that of a vector."""
        loc = self.loc if self.loc is None or self.loc.dim() == 0 else self.loc[span]
        return NormalPrior(loc, self.scale if self.scale.dim() == 0 else self.scale[span])

    def distance(self, mean: Tensor, room: Tensor) -> Tensor:
        """``mean - loc``, in ``room`` if it has to be computed."""
        return mean if self.loc is None else torch.sub(mean, self.loc, out=room)


def draw(loc: Tensor, log_scale: Tensor, form: Form, prior: NormalPrior | None) -> tuple[Tensor, ...]:
    """Draw ``noise = exp(log_scale) * e``, e standard Normal, and find the KL from the prior in the same pass.

    Differentiable once, in ``loc`` and ``log_scale``. The gradients of what is returned are overwritten on their way,
    since fresh memory is slow: give it to convolutions and linear layers as their weight, whose gradient is no one
    else's, and to any other operation through :func:`lent`.

    Args:
        loc: Means.
        log_scale: Logarithms of the standard deviations, shape of ``loc``.
        form: What is made of the draw.
        prior: What the KL is taken from, a constant; without one there is none.

    Returns:
        One or two tensors of the shape of ``loc``, as ``form`` says; then, with a prior, the KL of
        Normal(loc, exp(log_scale)) from it, a sum over all elements, in nats.
    """
    return _Draw.apply(loc, log_scale, form, prior)


def lent(values: Tensor) -> Tensor:
    """The same values, for any use: the gradient that comes back is a copy."""
    return _Lent.apply(values)


class _Lent(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.clone()


@torch.no_grad()
def standard_normal_(values: Tensor, seed: int) -> Tensor:
    """Fill a vector with standard Normal numbers that depend on nothing but ``seed``, its length and its device."""
    if values.device.type != "cpu":
        return values.normal_(generator=torch.Generator(values.device).manual_seed(seed))

    def block(index: int, span: slice, rooms: list[Tensor], generator: torch.Generator | None) -> None:
        values[span].normal_(generator=generator)

    _each_block(values, block, seed)
    return values


class _Draw(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loc: Tensor, log_scale: Tensor, form: Form, prior: NormalPrior | None) -> tuple[Tensor, ...]:
        like = loc.detach() if _dense(loc) else loc.detach().contiguous()
        drawn = [torch.empty_like(like) for _ in range(2 if form == "mirrored" else 1)]
        locs, log_scales, *outputs = (flat(values, like) for values in (like, log_scale, *drawn))
        priors = None if prior is None else _flat_prior(prior, like)
        kls: list[Tensor] = [torch.empty(())] * _blocks(like)

        def block(index: int, span: slice, rooms: list[Tensor], generator: torch.Generator | None) -> None:
            mean, scale = locs[span], torch.exp(log_scales[span], out=rooms[0])
            noise = outputs[0][span].normal_(generator=generator).mul_(scale)
            if form == "mirrored":
                torch.sub(mean, noise, out=outputs[1][span])
            if form != "apart":
                noise.add_(mean)
            if priors is not None:
                kls[index] = _kl(mean, scale, log_scales[span], priors.at(span), rooms[1])

        _each_block(like, block, seed=_seed(like))
        ctx.form, ctx.prior = form, prior
        ctx.save_for_backward(loc, log_scale, drawn[0])
        parts = (like, *drawn) if form == "apart" else tuple(drawn)
        return parts if prior is None else (*parts, torch.stack(kls).sum().to(like))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        form: Form = ctx.form
        loc, log_scale, first = ctx.saved_tensors
        # The results take the place of the gradients that come in.
        incoming = [_laid_out(grad, first) for grad in grads[: 1 if form == "weight" else 2]]
        results = (incoming[0], incoming[1] if len(incoming) > 1 else torch.empty_like(first))
        locs, log_scales, drawn, to_loc, to_log_scale = (
            flat(values, first) for values in (loc, log_scale, first, *results)
        )
        priors = None if ctx.prior is None else _flat_prior(ctx.prior, first)

        def block(index: int, span: slice, rooms: list[Tensor], generator: torch.Generator | None) -> None:
            mean, noise, grad_loc, grad_noise = locs[span], drawn[span], to_loc[span], to_log_scale[span]
            if form != "apart":
                # What was really added: loc + noise in floating point, less loc.
                noise = torch.sub(noise, mean, out=rooms[0])
            if form == "mirrored":
                # From the gradients of loc + noise and loc - noise.
                torch.sub(grad_loc, grad_noise, out=rooms[1])
                grad_loc.add_(grad_noise)
                grad_noise.copy_(rooms[1])
            into = grad_noise
            if form == "weight":
                grad_noise = grad_loc
            torch.mul(grad_noise, noise, out=into)
            if priors is None:
                return
            here = priors.at(span)
            precision = here.scale.pow(-2).mul_(grads[-1])
            grad_loc.add_(torch.mul(here.distance(mean, rooms[1]), precision, out=rooms[1]))
            # Of the KL with respect to log scale: scale^2 / prior scale^2 - 1.
            growth = torch.exp(log_scales[span], out=rooms[1])
            into.add_(growth.mul_(growth).mul_(precision).sub_(grads[-1]))

        _each_block(first, block)
        return (*results, None, None)


def _kl(mean: Tensor, scale: Tensor, log_scale: Tensor, prior: NormalPrior, room: Tensor) -> Tensor:
    """KL of a block, a sum in nats: log(prior scale / scale) + (scale^2 + (loc - prior loc)^2) / 2 prior scale^2 - 1/2.

    ``scale`` and ``room`` are overwritten.
    """
    distance = prior.distance(mean, room)
    distances = torch.mul(distance, distance, out=room)
    if prior.scale.dim():
        # Element by element, so that a posterior that equals its prior has a KL of 0 and not of rounding.
        logs = prior.scale.log().sub_(log_scale)
        return distances.addcmul_(scale, scale).div_(prior.scale**2).sub_(1).div_(2).add_(logs).sum().double()
    squares = (scale.mul_(scale).sum() + distances.sum()).double() / prior.scale.double() ** 2
    return (squares - len(mean)) / 2 + len(mean) * prior.scale.double().log() - log_scale.sum()


def _dense(values: Tensor) -> bool:
    return values.is_contiguous() or (values.dim() == 4 and values.is_contiguous(memory_format=torch.channels_last))


def flat(values: Tensor, like: Tensor) -> Tensor:
    """``values`` as a vector, in the order in which ``like`` lies in memory; a copy only where it must be."""
    return _laid_out(values.detach(), like).as_strided((values.numel(),), (1,))


def _laid_out(values: Tensor, like: Tensor) -> Tensor:
    """``values``, or a copy of them that lies in memory as ``like`` does."""
    strides = zip(values.shape, values.stride(), like.stride(), strict=True)
    if any(size > 1 and own != other for size, own, other in strides):
        return torch.empty_like(like).copy_(values)
    return values


def _flat_prior(prior: NormalPrior, like: Tensor) -> NormalPrior:
    loc = prior.loc if prior.loc is None or prior.loc.dim() == 0 else flat(prior.loc, like)
    return NormalPrior(loc, prior.scale if prior.scale.dim() == 0 else flat(prior.scale, like))


def _seed(like: Tensor) -> int | None:
    """A seed for the blocks' own streams, from torch's global state, which other devices draw from directly."""
    return int(torch.randint(1 << 62, ())) if like.device.type == "cpu" else None


def _blocks(like: Tensor) -> int:
    return -(-like.numel() // _BLOCK) if like.device.type == "cpu" else 1


_Work = Callable[[int, slice, list[Tensor], torch.Generator | None], None]


def _each_block(like: Tensor, work: _Work, seed: int | None = None) -> None:
    """Do ``work`` for each block of a tensor like ``like``, on all of torch's threads.

    It is called with the block's number, its span, two blocks of room and, if there is a seed, a random stream.
    """
    blocks, size = _blocks(like), like.numel()
    length = size if blocks == 1 else _BLOCK

    def share(first: int, step: int) -> None:
        generator = None if seed is None else torch.Generator()
        rooms = _rooms(like, length)
        with torch.no_grad():
            for index in range(first, blocks, step):
                if generator is not None and seed is not None:
                    generator.manual_seed(seed + index)
                span = slice(index * length, min((index + 1) * length, size))
                work(index, span, [room[: span.stop - span.start] for room in rooms], generator)

    threads = min(torch.get_num_threads(), blocks)
    if threads == 1:
        share(0, 1)
        return
    pool = _pool(torch.get_num_threads(), os.getpid())
    for done in [pool.submit(share, first, threads) for first in range(threads)]:
        done.result()


def _use_one_thread() -> None:
    # A thread's first question sets it up, and would undo a setting made before.
    torch.get_num_threads()
    torch.set_num_threads(1)


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads in each of which torch computes on one thread; ``process`` keeps a fork from waiting for its parent's."""
    started = threading.Barrier(threads)
    pool = ThreadPoolExecutor(threads, "fused", initializer=_use_one_thread)
    for waiting in [pool.submit(started.wait) for _ in range(threads)]:
        waiting.result()
    # The setting is each thread's own, but threads that torch starts later would take over the last one made.
    torch.set_num_threads(threads)
    return pool


_kept = threading.local()


def _rooms(like: Tensor, length: int) -> list[Tensor]:
    """Two blocks of room; a thread keeps those on the CPU, since fresh memory is slow."""
    if like.device.type != "cpu":
        return [torch.empty(length, dtype=like.dtype, device=like.device) for _ in range(2)]
    name = str(like.dtype)
    if not hasattr(_kept, name):
        setattr(_kept, name, torch.empty(2, _BLOCK, dtype=like.dtype))
    return list(getattr(_kept, name)[:, :length])
