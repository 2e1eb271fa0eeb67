"""Waveforms to log-mel spectrograms: the front ends of PANNs and of EfficientAT.

Each network family has its own: :class:`LogMel` is that of PANNs (Kong et al., 2020, arXiv:1912.10211) and
:class:`KaldiLogMel` that of EfficientAT (Schmid, Koutini and Widmer, 2023, arXiv:2211.04772).
"""

import math
import warnings
from dataclasses import dataclass

import torch
import torchaudio
from torch import Tensor, nn
from torch.nn import functional as F

from bayes_panns.audio.length import fit_length
from bayes_panns.core.errors import RecipeError

MEL_BINS = 64
"""Mel bins of PANNs' front ends."""

SILENCE_DB = -100.0
"""The floor of PANNs' log-mel, 10 log10(1e-10): what digital silence looks like."""


@dataclass(frozen=True)
class FrontEndSettings:
    """The settings of a log-mel front end.

    Attributes:
        sample_rate: In Hz.
        window: Samples of a Fourier transform; shorter waveforms are padded to it.
        hop: Samples from one window to the next.
        fmin: The lowest frequency of the mel bins, in Hz.
        fmax: The highest, in Hz.
        mels: Mel bins.
    """

    sample_rate: int
    window: int
    hop: int
    fmin: float
    fmax: float
    mels: int = MEL_BINS


class FrontEnd(nn.Module):
    """Makes log-mel spectrograms of waveforms. It holds no learned weight and no buffer that is saved.

    A subclass defines :meth:`frames`, :meth:`forward` and :meth:`decibels`.

    Attributes:
        settings: Its rate, window, hop and mel bins.
    """

    settings: FrontEndSettings

    @property
    def signature(self) -> str:
        """A text that tells its spectrograms from those of other front ends: embeddings on disk are named after it."""
        return f"{type(self).__name__}({self.settings})"

    def frames(self, samples: int) -> int:
        """How many frames a waveform of ``samples`` samples gives."""
        raise NotImplementedError

    def shape(self, samples: int) -> tuple[int, int]:
        """The frames and mel bins of the spectrogram of a waveform of ``samples`` samples.

        Example:
            >>> LogMel(32000).shape(160000)
            (501, 64)
        """
        return self.frames(samples), self.settings.mels

    def forward(self, waveform: Tensor) -> Tensor:
        """Log-mel spectrograms of a batch.

        A waveform shorter than one window is padded with silence to it.

        Args:
            waveform: shape ``(batch, samples)``.

        Returns:
            In the network's own unit, shape ``(batch, frames, mels)``, see :meth:`shape`.
        """
        raise NotImplementedError

    def decibels(self, features: Tensor) -> Tensor:
        """Spectrograms that :meth:`forward` made, in dB."""
        raise NotImplementedError

    def _padded(self, waveform: Tensor) -> Tensor:
        return fit_length(waveform, max(waveform.shape[-1], self.settings.window))


class MelPower(nn.Module):
    """The power of each mel in centred frames with reflected edges.

    Args:
        filters: The weight of each frequency in each mel, shape ``(window // 2 + 1, mels)``.
        window: The window function, shape ``(window,)``.
        hop: Samples from one frame to the next.
    """

    filters: Tensor
    window: Tensor

    def __init__(self, filters: Tensor, window: Tensor, hop: int):
        super().__init__()
        self.hop = hop
        self.register_buffer("filters", filters.contiguous(), persistent=False)
        self.register_buffer("window", window, persistent=False)
        self._bands = [
            (mels, _support(filters[:, mels]))
            for mels in (slice(at, at + _BAND_MELS) for at in range(0, filters.shape[1], _BAND_MELS))
        ]

    def forward(self, waveform: Tensor) -> Tensor:
        """Power, shape ``(batch, frames, mels)``, of waveforms ``(batch, samples)``, at least a window long."""
        window = len(self.window)
        frames = F.pad(waveform, (window // 2, window // 2), mode="reflect").unfold(-1, window, self.hop)
        if frames.device.type != "cpu":
            return self._spectrum(frames) @ self.filters
        # A few at a time, so that what lies between waveform and mels stays in cache: 0.5 of the time.
        few = _FRAMES * torch.get_num_threads()
        return torch.stack([torch.cat([self._mels(block) for block in clip.split(few)]) for clip in frames])

    def _spectrum(self, frames: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(frames * self.window)
        return torch.addcmul(spectrum.real.square(), spectrum.imag, spectrum.imag)

    def _mels(self, frames: Tensor) -> Tensor:
        power = self._spectrum(frames)
        # Mels are narrow: most of the filters is zero.
        return torch.cat([power[:, bins] @ self.filters[bins, mels] for mels, bins in self._bands], dim=1)


_BAND_MELS = 16
"""Neighbouring mels that are computed together, from the frequencies that any of them has."""

_FRAMES = 256
"""Frames that a thread computes together."""


def _support(filters: Tensor) -> slice:
    """From the first frequency of any filter to the last."""
    used = filters.any(dim=1).nonzero().flatten().tolist()
    return slice(used[0], used[-1] + 1) if used else slice(0, 0)


FRONT_ENDS = {
    32000: FrontEndSettings(32000, window=1024, hop=320, fmin=50, fmax=14000),
    16000: FrontEndSettings(16000, window=512, hop=160, fmin=50, fmax=8000),
    8000: FrontEndSettings(8000, window=256, hop=80, fmin=50, fmax=4000),
}
"""PANNs' three front ends by sample rate; each makes 100 frames a second."""


class LogMel(FrontEnd):
    """PANNs' log-mel spectrogram, in dB.

    A Hann window, centred frames with reflected edges, power spectrum, 64 Slaney-normalised Slaney mels, then
    ``10 log10(max(mel, 1e-10))``.

    Args:
        sample_rate: 32000 (PANNs' default), 16000 or 8000 Hz.

    Raises:
        RecipeError: PANNs defines no front end for ``sample_rate``.
    """

    def __init__(self, sample_rate: int = 32000):
        super().__init__()
        if sample_rate not in FRONT_ENDS:
            raise RecipeError(f"sample_rate {sample_rate}: PANNs defines front ends for {sorted(FRONT_ENDS)} Hz")
        self.settings = FRONT_ENDS[sample_rate]
        each = self.settings
        with warnings.catch_warnings():
            # At 16 and 8 kHz some of PANNs' narrow low mels fall between two bins and stay empty, as in PANNs' code.
            warnings.filterwarnings("ignore", message="At least one mel filterbank")
            filters = torchaudio.functional.melscale_fbanks(
                each.window // 2 + 1,
                each.fmin,
                each.fmax,
                each.mels,
                sample_rate,
                norm="slaney",
                mel_scale="slaney",
            )
        self.mel = MelPower(filters, torch.hann_window(each.window), each.hop)

    @property
    def signature(self) -> str:
        """The text that embeddings on disk have always been named after."""
        each = self.settings
        return (
            f"FrontEnd(sample_rate={each.sample_rate}, window={each.window}, hop={each.hop}, fmin={each.fmin}, "
            f"fmax={each.fmax})"
        )

    def frames(self, samples: int) -> int:
        """How many frames a waveform of ``samples`` samples gives."""
        return max(samples, self.settings.window) // self.settings.hop + 1

    def forward(self, waveform: Tensor) -> Tensor:
        """Log-mel spectrograms in dB, shape ``(batch, frames, mels)``, of waveforms ``(batch, samples)``."""
        return 10.0 * self.mel(self._padded(waveform)).clamp(min=1e-10).log10()

    def decibels(self, features: Tensor) -> Tensor:
        """``features`` themselves."""
        return features


class KaldiLogMel(FrontEnd):
    """EfficientAT's log-mel spectrogram, scaled to about -1 to 1; for 32 kHz only.

    Pre-emphasis ``y[t] = x[t + 1] - 0.97 x[t]``; a symmetric Hann window of 800 samples, centred in a Fourier transform
    of 1024; centred frames with reflected edges; power spectrum; Kaldi's triangular mels from 0 to 15,000 Hz; then
    ``(ln(mel + 1e-5) + 4.5) / 5``.

    Args:
        sample_rate: 32000 Hz.
        hop: Samples from one window to the next.
        mels: Mel bins.

    Raises:
        RecipeError: ``sample_rate`` is another.

    Example:
        >>> KaldiLogMel(32000).shape(160000)
        (500, 128)
    """

    def __init__(self, sample_rate: int = 32000, *, hop: int = 320, mels: int = 128):
        super().__init__()
        if sample_rate != 32000:
            raise RecipeError(f"sample_rate {sample_rate}: EfficientAT defines its front end for 32000 Hz")
        self.settings = FrontEndSettings(sample_rate, window=1024, hop=hop, fmin=0, fmax=15000, mels=mels)
        filters, _ = torchaudio.compliance.kaldi.get_mel_banks(
            mels,
            self.settings.window,
            float(sample_rate),
            float(self.settings.fmin),
            float(self.settings.fmax),
            # Those of vocal tract length normalisation, which a factor of 1 switches off.
            vtln_low=100.0,
            vtln_high=-500.0,
            vtln_warp_factor=1.0,
        )
        # Kaldi leaves the highest frequency out.
        filters = F.pad(filters, (0, 1)).T
        hann = torch.hann_window(800, periodic=False)
        self.mel = MelPower(filters, F.pad(hann, ((self.settings.window - len(hann)) // 2,) * 2), hop)

    def frames(self, samples: int) -> int:
        """How many frames a waveform of ``samples`` samples gives."""
        # Pre-emphasis makes a waveform one sample shorter.
        return (max(samples, self.settings.window) - 1) // self.settings.hop + 1

    def forward(self, waveform: Tensor) -> Tensor:
        """Scaled log-mel spectrograms, shape ``(batch, frames, mels)``, of waveforms ``(batch, samples)``."""
        waveform = self._padded(waveform)
        emphasised = waveform[:, 1:] - 0.97 * waveform[:, :-1]
        return ((self.mel(emphasised) + 1e-5).log() + 4.5).div(5)

    def decibels(self, features: Tensor) -> Tensor:
        """``features`` in dB: 10 log10 of the mels' power."""
        return (5 * features - 4.5) * (10 / math.log(10))
