"""Waveforms from one sample rate to another, whole or as a stream of blocks.

A block may end anywhere: what comes out does not depend on it, to the bit, because each resampler gathers its input to
pieces of its own size.
"""

import math
from functools import lru_cache
from typing import Protocol

import soxr
import torch
import torchaudio
from torch import Tensor
from torch.nn import functional as F

from bayes_panns.audio.length import fit_length

_LARGEST_KERNEL = 2**20
"""The largest product of two reduced rates for which torchaudio resamples: 44,100 to 32,000 Hz has 441 * 320."""

_PIECE = 1 << 17
"""Samples that are resampled at a time, of the higher of the two rates: they stay in cache."""

_LONG = 20_481
"""Samples from which on torch convolves with another library, which adds in another order."""

_PERIOD = 256
"""Samples of a waveform whose phases are computed by one set of matrices, at least."""

_PHASES = 32
"""Neighbouring samples of the wanted rate that are computed together."""

_SOXR_REACH = 1024
"""Samples of the lower rate on either side of one that matter to it in soxr's filter."""


def resample(waveform: Tensor, source: int, target: int, *, exact: bool = True) -> Tensor:
    """Bring a waveform from one sample rate to another; the whole of a :func:`resampler`'s stream.

    Args:
        waveform: float32, shape ``(samples,)``.
        source: Its rate, in Hz.
        target: The rate wanted, in Hz.
        exact: As for :func:`resampler`.

    Returns:
        float32, shape ``(ceil(samples * target / source),)``.
    """
    if source == target:
        return waveform
    stream = resampler(source, target, exact=exact)
    return torch.cat([stream.feed(waveform), stream.finish()])


class Resampler(Protocol):
    """A stream of samples at one rate to a stream at another.

    Attributes:
        reach: Samples on either side of one that matter to it, at the rate of the source.
        least: Samples to feed at least, if there are more in the file, for the result to be as of all of them.
    """

    reach: int
    least: int

    def feed(self, block: Tensor) -> Tensor:
        """Take samples, shape ``(any,)``; return those of the wanted rate that are ready, perhaps none."""
        ...

    def finish(self) -> Tensor:
        """The rest; ``ceil(samples * target / source)`` have then come out in all."""
        ...


def resampler(source: int, target: int, *, exact: bool = True) -> Resampler:
    """A resampler from one rate to another.

    It is torchaudio's windowed sinc where the product of the two rates, divided by their greatest common divisor, is
    2^20 or less: that kernel grows with the product. For other pairs, such as 22,254 and 32,000 Hz, it is soxr (quality
    HQ), in memory that does not depend on the rates. Below 0.7 of the lower Nyquist frequency the two agree to 0.5 % of
    full scale; above it soxr's filter is the steeper one.

    Args:
        source: The rate of the samples, in Hz.
        target: The rate wanted, in Hz.
        exact: Whether to be torchaudio's result for the whole waveform to the bit, on which the digests of packed clips
            depend. Otherwise it is that up to rounding (3e-6 of full scale), in a fifth of the time.
    """
    if source == target:
        return _Same()
    divisor = math.gcd(source, target)
    source, target = source // divisor, target // divisor
    if source * target > _LARGEST_KERNEL:
        return _Soxr(source, target)
    return _Pieces(_torchaudio(source, target) if exact else _sinc(source, target))


class _Same:
    """The stream as it is."""

    reach = least = 0

    def feed(self, block: Tensor) -> Tensor:
        return block

    def finish(self) -> Tensor:
        return torch.empty(0)


class _Soxr:
    """soxr, which gathers its own pieces."""

    def __init__(self, source: int, target: int):
        self._stream = soxr.ResampleStream(source, target, 1, dtype="float32", quality="HQ")
        self._ratio, self._taken, self._given = (source, target), 0, 0
        self.reach, self.least = -(-_SOXR_REACH * max(source, target) // target), 0

    def feed(self, block: Tensor) -> Tensor:
        self._taken += len(block)
        return self._resampled(block, last=False)

    def finish(self) -> Tensor:
        before = self._given
        rest, wanted = self._resampled(torch.empty(0), last=True), -(-self._taken * self._ratio[1] // self._ratio[0])
        # soxr may give a sample less.
        return fit_length(rest, wanted - before) if wanted > before else rest[:0]

    def _resampled(self, block: Tensor, *, last: bool) -> Tensor:
        resampled = torch.from_numpy(self._stream.resample_chunk(block.contiguous().numpy(), last=last))
        self._given += len(resampled)
        return resampled


class _Kernel(Protocol):
    """A resampler of periods: each ``source`` samples become ``target``, of those and ``width`` on either side."""

    source: int
    target: int
    width: int
    ratio: tuple[int, int]
    shortest: int

    def __call__(self, samples: Tensor, periods: int) -> Tensor:
        """``periods * target`` samples of ``width`` samples, ``periods * source``, and ``width`` and more."""
        ...


class _Pieces:
    """A stream cut into pieces of whole periods, each with its neighbours on either side."""

    def __init__(self, kernel: _Kernel):
        self._kernel, self.reach, self.least = kernel, kernel.width + kernel.source, kernel.shortest
        most = _PIECE // max(kernel.source, kernel.target)
        self._periods = max(1, most, -(-kernel.shortest // kernel.source))
        self._held: list[Tensor] = [torch.zeros(kernel.width)]
        self._waiting, self._taken, self._given = kernel.width, 0, 0

    def feed(self, block: Tensor) -> Tensor:
        kernel, done = self._kernel, []
        self._held.append(block)
        self._waiting += len(block)
        self._taken += len(block)
        step = self._periods * kernel.source
        # Beyond the piece: its right neighbours, and a period because torchaudio's kernel is that much longer.
        needed = step + 2 * kernel.width + kernel.source
        if self._waiting >= needed:
            samples = torch.cat(self._held)
            start = 0
            while len(samples) - start >= needed:
                done.append(kernel(samples[start : start + needed], self._periods))
                start += step
            self._held, self._waiting = [samples[start:].clone()], len(samples) - start
            self._given += len(done) * self._periods * kernel.target
        return torch.cat(done) if done else torch.empty(0)

    def finish(self) -> Tensor:
        kernel = self._kernel
        wanted = -(-self._taken * kernel.ratio[1] // kernel.ratio[0]) - self._given
        if wanted <= 0:
            return torch.empty(0)
        periods = -(-wanted // kernel.target)
        samples = torch.cat(self._held)
        length = periods * kernel.source + 2 * kernel.width + kernel.source
        if self._given:
            # The end of a long waveform is convolved as the rest of it is.
            length = max(length, kernel.shortest)
            return kernel(fit_length(samples, length), periods)[:wanted]
        # A whole waveform, with exactly the zeros that torchaudio adds to it.
        return kernel(F.pad(samples, (0, kernel.width + kernel.source)), periods)[:wanted]


class _Torchaudio:
    """torchaudio's own convolution.

    Its bits depend on which library torch convolves with, which it chooses by the length; therefore pieces are long.
    """

    shortest = _LONG

    def __init__(self, source: int, target: int):
        made = torchaudio.transforms.Resample(source, target)
        self.source, self.target, self.width, self._kernel = source, target, made.width, made.kernel
        self.ratio = (source, target)

    def __call__(self, samples: Tensor, periods: int) -> Tensor:
        return F.conv1d(samples[None, None], self._kernel, stride=self.source)[0].T.reshape(-1)[: periods * self.target]


class _Sinc:
    """torchaudio's windowed sinc, without the products with zero.

    torchaudio convolves with a kernel for each of ``target`` phases, each as long as ``source`` samples and more; but
    all of a phase except some 20 taps is 0. Here neighbouring phases are one small matrix product.

    Args:
        source: The rate of the waveform, divided by the greatest common divisor of the two.
        target: The rate wanted, likewise.
    """

    shortest = 1

    def __init__(self, source: int, target: int):
        made = torchaudio.transforms.Resample(source, target)
        # Several periods as one, where they are short: rows of samples that overlap would be copied.
        periods = -(-_PERIOD // source)
        self.source, self.target, self.width = periods * source, periods * target, made.width
        kernel = torch.cat(
            [F.pad(made.kernel[:, 0], (each * source, (periods - 1 - each) * source)) for each in range(periods)]
        ).T
        self.taps, self.ratio = len(kernel), (source, target)
        self.bands = []
        for start in range(0, self.target, _PHASES):
            phases = slice(start, min(start + _PHASES, self.target))
            used = (kernel[:, phases].abs() > 1e-12).any(dim=1).nonzero().flatten().tolist()
            taps = slice(used[0], used[-1] + 1)
            self.bands.append((phases, taps, kernel[taps, phases].contiguous()))

    def __call__(self, samples: Tensor, periods: int) -> Tensor:
        samples = fit_length(samples, max(len(samples), (periods - 1) * self.source + self.taps))
        resampled = samples.new_empty(periods, self.target)
        rows = samples.as_strided((periods, self.taps), (self.source, 1), samples.storage_offset())
        for phases, taps, kernel in self.bands:
            torch.mm(rows[:, taps], kernel, out=resampled[:, phases])
        return resampled.view(-1)


@lru_cache(maxsize=16)
def _torchaudio(source: int, target: int) -> _Kernel:
    return _Torchaudio(source, target)


@lru_cache(maxsize=16)
def _sinc(source: int, target: int) -> _Kernel:
    return _Sinc(source, target)
