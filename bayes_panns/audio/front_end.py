"""Waveforms to log-mel spectrograms, as PANNs computes them (Kong et al., 2020, arXiv:1912.10211)."""

import warnings
from dataclasses import dataclass, field

import torchaudio
from torch import Tensor, nn

from bayes_panns.audio.length import fit_length
from bayes_panns.core.errors import RecipeError

MEL_BINS = 64
"""Mel bins of PANNs' front ends."""

SILENCE_DB = -100.0
"""The floor of the log-mel, 10 log10(1e-10): what digital silence looks like."""


@dataclass(frozen=True)
class FrontEnd:
    """The settings of a log-mel front end.

    Attributes:
        sample_rate: In Hz.
        window: Samples of a window.
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
    # Not shown, as the digests of backbones on disk are made of what is.
    mels: int = field(default=MEL_BINS, repr=False)


FRONT_ENDS = {
    32000: FrontEnd(32000, window=1024, hop=320, fmin=50, fmax=14000),
    16000: FrontEnd(16000, window=512, hop=160, fmin=50, fmax=8000),
    8000: FrontEnd(8000, window=256, hop=80, fmin=50, fmax=4000),
}
"""PANNs' three front ends by sample rate; each makes 100 frames a second."""


class LogMel(nn.Module):
    """PANNs' log-mel spectrogram, in dB.

    A Hann window, centred frames with reflected edges, power spectrum, 64 Slaney-normalised Slaney mels, then
    ``10 log10(max(mel, 1e-10))``. It holds no learned weight and no buffer that is saved.

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
        with warnings.catch_warnings():
            # At 16 and 8 kHz some of PANNs' narrow low mels fall between two bins and stay empty, as in PANNs' code.
            warnings.filterwarnings("ignore", message="At least one mel filterbank")
            self.mel = torchaudio.transforms.MelSpectrogram(
                sample_rate=sample_rate,
                n_fft=self.settings.window,
                hop_length=self.settings.hop,
                f_min=self.settings.fmin,
                f_max=self.settings.fmax,
                n_mels=self.settings.mels,
                norm="slaney",
                mel_scale="slaney",
            )
        for module in self.modules():
            module._non_persistent_buffers_set.update(module._buffers)

    def frames(self, samples: int) -> int:
        """How many frames a waveform of ``samples`` samples gives."""
        return max(samples, self.settings.window) // self.settings.hop + 1

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
            dB, shape ``(batch, frames, mels)``, see :meth:`shape`.
        """
        waveform = fit_length(waveform, max(waveform.shape[-1], self.settings.window))
        power = self.mel(waveform).transpose(-1, -2)
        return 10.0 * power.clamp(min=1e-10).log10()
