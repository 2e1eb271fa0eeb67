"""Draw a large Normal weight and compute its KL from the prior, in one pass over memory.

A draw and its KL take a dozen elementwise operations. One after the other over tens of millions of weights, each would
wait for memory; here a block of the weight goes through all of them while it is in cache (:mod:`.blocks`), forward and
backward.

| symbol | shape | what |
|---|---|---|
| m, l | the weight's | mean, and logarithm of the standard deviation: s = exp(l) |
| e | the weight's | standard Normal |
| n | the weight's | noise, n = s e |
| m0, s0 | the weight's, or 0-d | mean and standard deviation of the prior |

The draw, by its form::

    sum:       m + n
    mirrored:  m + n,  m - n
    separate:  m,  n

The KL, a sum over all elements, in nats::

    KL = sum  log(s0 / s) + (s^2 + (m - m0)^2) / (2 s0^2) - 1/2

Gradients, with g_m and g_n those that reach the mean and the noise, and g those of the KL::

    dm = g_m + g (m - m0) / s0^2
    dl = g_n n + g (s^2 / s0^2 - 1)

Where ``log_scale`` requires no gradient, dl is not computed.
"""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bayes_panns.bayes.estimators.blocks import count_blocks, each_block
from bayes_panns.devices import widest_float

Form = Literal["sum", "mirrored", "separate"]
"""What a draw consists of: ``loc + noise``; that and ``loc - noise``; or ``loc`` and ``noise``."""


class NormalPrior(NamedTuple):
    """A Normal prior over a weight.

    Attributes:
        loc: The mean: of the weight's shape, or 0-d where all elements share it, or ``None`` for 0.
        scale: The standard deviation, of the weight's shape or 0-d.
    """

    loc: Tensor | None
    scale: Tensor

    def at(self, span: slice) -> "NormalPrior":
        """The prior of a block, from that of a vector."""
        loc = self.loc if self.loc is None or self.loc.dim() == 0 else self.loc[span]
        return NormalPrior(loc, self.scale if self.scale.dim() == 0 else self.scale[span])

    def distance(self, mean: Tensor, out: Tensor) -> Tensor:
        """``mean - loc``, written to ``out`` where it has to be computed."""
        return mean if self.loc is None else torch.sub(mean, self.loc, out=out)


def draw(loc: Tensor, log_scale: Tensor, form: Form, prior: NormalPrior | None) -> tuple[Tensor, ...]:
    """Draw a weight and compute its KL from the prior; see the module's formulas.

    Differentiable once, in ``loc`` and ``log_scale``. The backward pass overwrites the gradients of the tensors
    returned, since fresh memory is slow. So pass them to convolutions and linear layers as the weight, whose gradient
    nothing else holds, and to any other operation through :func:`copy_gradient`.

    Args:
        loc: Means.
        log_scale: Logarithms of the standard deviations, shape of ``loc``.
        form: What the draw consists of.
        prior: The prior of the KL, a constant; ``None`` for no KL.

    Returns:
        One or two tensors of the shape of ``loc``, as ``form`` says; then, with a prior, the KL, 0-d.
    """
    return _Draw.apply(loc, log_scale, form, prior)


def copy_gradient(values: Tensor) -> Tensor:
    """The same values, for any use: the gradient that comes back is copied."""
    return _CopyGradient.apply(values)


class _CopyGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.clone()


@torch.no_grad()
def standard_normal_(values: Tensor, seed: int) -> Tensor:
    """Fill a vector with standard Normal numbers that depend only on ``seed``, its length and its device."""
    if values.device.type != "cpu":
        return values.normal_(generator=torch.Generator(values.device).manual_seed(seed))

    def fill(index: int, span: slice, scratch: list[Tensor], generator: torch.Generator | None) -> None:
        values[span].normal_(generator=generator)

    each_block(values, fill, seed)
    return values


class _Draw(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loc: Tensor, log_scale: Tensor, form: Form, prior: NormalPrior | None) -> tuple[Tensor, ...]:
        like = loc.detach() if _dense(loc) else loc.detach().contiguous()
        drawn = [torch.empty_like(like) for _ in range(2 if form == "mirrored" else 1)]
        locs, log_scales, *outputs = (flat(values, like) for values in (like, log_scale, *drawn))
        priors = None if prior is None else flat_prior(prior, like)
        kls: list[Tensor] = [torch.empty(())] * count_blocks(like)

        def work(index: int, span: slice, scratch: list[Tensor], generator: torch.Generator | None) -> None:
            mean, scale = locs[span], torch.exp(log_scales[span], out=scratch[0])
            noise = outputs[0][span].normal_(generator=generator).mul_(scale)
            if form == "mirrored":
                torch.sub(mean, noise, out=outputs[1][span])
            if form != "separate":
                noise.add_(mean)
            if priors is not None:
                kls[index] = _kl(mean, scale, log_scales[span], priors.at(span), scratch[1])

        each_block(like, work, seed=_seed(like))
        ctx.form, ctx.prior = form, prior
        ctx.save_for_backward(loc, log_scale, drawn[0])
        parts = (like, *drawn) if form == "separate" else tuple(drawn)
        return parts if prior is None else (*parts, torch.stack(kls).sum().to(like))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        form: Form = ctx.form
        if not ctx.needs_input_grad[1]:
            return _of_loc_alone(ctx, grads), None, None, None
        loc, log_scale, first = ctx.saved_tensors
        # The results overwrite the gradients that come in.
        incoming = [_laid_out(grad, first) for grad in grads[: 1 if form == "sum" else 2]]
        results = (incoming[0], incoming[1] if len(incoming) > 1 else torch.empty_like(first))
        locs, log_scales, drawn, to_loc, to_log_scale = (
            flat(values, first) for values in (loc, log_scale, first, *results)
        )
        priors = None if ctx.prior is None else flat_prior(ctx.prior, first)

        def work(index: int, span: slice, scratch: list[Tensor], generator: torch.Generator | None) -> None:
            mean, noise, grad_loc, grad_noise = locs[span], drawn[span], to_loc[span], to_log_scale[span]
            if form != "separate":
                # The noise that was really added: loc + noise in floating point, less loc.
                noise = torch.sub(noise, mean, out=scratch[0])
            if form == "mirrored":
                # From the gradients of loc + noise and loc - noise.
                torch.sub(grad_loc, grad_noise, out=scratch[1])
                grad_loc.add_(grad_noise)
                grad_noise.copy_(scratch[1])
            into = grad_noise
            if form == "sum":
                grad_noise = grad_loc
            torch.mul(grad_noise, noise, out=into)
            if priors is None:
                return
            here = priors.at(span)
            precision = here.scale.pow(-2).mul_(grads[-1])
            grad_loc.add_(torch.mul(here.distance(mean, scratch[1]), precision, out=scratch[1]))
            variance = torch.exp(log_scales[span], out=scratch[1]).square_()
            into.add_(variance.mul_(precision).sub_(grads[-1]))

        each_block(first, work)
        return (*results, None, None)


def _of_loc_alone(ctx: Any, grads: tuple[Tensor, ...]) -> Tensor:
    """The gradient of the mean, written over the one that comes in."""
    loc, _, first = ctx.saved_tensors
    result, *other = (_laid_out(grad, first) for grad in grads[: 2 if ctx.form == "mirrored" else 1])
    if ctx.prior is None and not other:
        return result
    locs, to_loc, *others = (flat(values, first) for values in (loc, result, *other))
    priors = None if ctx.prior is None else flat_prior(ctx.prior, first)

    def work(index: int, span: slice, scratch: list[Tensor], generator: torch.Generator | None) -> None:
        for each in others:
            to_loc[span].add_(each[span])
        if priors is not None:
            here = priors.at(span)
            precision = here.scale.pow(-2).mul_(grads[-1])
            to_loc[span].add_(torch.mul(here.distance(locs[span], scratch[0]), precision, out=scratch[0]))

    each_block(first, work)
    return result


def normal_kl(loc: Tensor, log_scale: Tensor, prior: NormalPrior) -> Tensor:
    """The KL of :func:`draw` alone, in nats, 0-d; no gradient."""
    like = loc.detach() if _dense(loc) else loc.detach().contiguous()
    locs, log_scales, priors = flat(loc, like), flat(log_scale, like), flat_prior(prior, like)
    kls: list[Tensor] = [torch.empty(())] * count_blocks(like)

    def work(index: int, span: slice, scratch: list[Tensor], generator: torch.Generator | None) -> None:
        scale = torch.exp(log_scales[span], out=scratch[0])
        kls[index] = _kl(locs[span], scale, log_scales[span], priors.at(span), scratch[1])

    each_block(like, work)
    return torch.stack(kls).sum().to(like)


def _kl(mean: Tensor, scale: Tensor, log_scale: Tensor, prior: NormalPrior, scratch: Tensor) -> Tensor:
    """The KL of a block, a sum in nats; ``scale`` and ``scratch`` are overwritten."""
    distance = prior.distance(mean, scratch)
    distances = torch.mul(distance, distance, out=scratch)
    wide = widest_float(mean.device)
    if prior.scale.dim():
        # Element by element, so that a posterior that equals its prior has a KL of 0 and not of rounding.
        logs = prior.scale.log().sub_(log_scale)
        return distances.addcmul_(scale, scale).div_(prior.scale**2).sub_(1).div_(2).add_(logs).sum().to(wide)
    width = prior.scale.to(wide)
    squares = (scale.mul_(scale).sum() + distances.sum()).to(wide) / width**2
    return (squares - len(mean)) / 2 + len(mean) * width.log() - log_scale.sum()


def _dense(values: Tensor) -> bool:
    return values.is_contiguous() or (values.dim() == 4 and values.is_contiguous(memory_format=torch.channels_last))


def flat(values: Tensor, like: Tensor) -> Tensor:
    """``values`` as a vector, in the memory order of ``like``; a copy only where the orders differ."""
    return _laid_out(values.detach(), like).as_strided((values.numel(),), (1,))


def _laid_out(values: Tensor, like: Tensor) -> Tensor:
    """``values``, or a copy in the memory order of ``like``."""
    strides = zip(values.shape, values.stride(), like.stride(), strict=True)
    if any(size > 1 and own != other for size, own, other in strides):
        return torch.empty_like(like).copy_(values)
    return values


def flat_prior(prior: NormalPrior, like: Tensor) -> NormalPrior:
    """A prior whose tensors are vectors in the memory order of ``like``, or 0-d."""
    loc = prior.loc if prior.loc is None or prior.loc.dim() == 0 else flat(prior.loc, like)
    return NormalPrior(loc, prior.scale if prior.scale.dim() == 0 else flat(prior.scale, like))


def _seed(like: Tensor) -> int | None:
    """A seed for the blocks' own streams, from torch's global state, which other devices draw from directly."""
    return int(torch.randint(1 << 62, ())) if like.device.type == "cpu" else None
