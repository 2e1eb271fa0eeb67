"""One pass of EfficientAT's mn04 over a sound file, as one would write it with torch and torchaudio alone.

A script with its own process: its time is that of the whole, from the imports to the probabilities on disk.
"""

import sys

import soundfile
import torch
import torchaudio
from torch import nn
from torch.nn import functional as F

from bayes_panns.nets import build
from bayes_panns.nets.mobilenet import Convolution

RATE = 32000
BATCH = 16
"""The fastest of 1, 2, 4, ..., 64 on one core."""


def main(weights: str, sound: str, seconds: str, out: str) -> None:
    """Tag the windows of ``sound`` and write their probabilities to ``out``."""
    state = torch.load(weights, weights_only=True)
    # The layers as the network's authors run them, without what this package does to BatchNorm.
    Convolution.forward = nn.Sequential.forward  # type: ignore[method-assign]
    net = build("mn04", len(state["classifier.5.bias"]))
    net.load_state_dict(state)
    net.eval()
    samples, rate = soundfile.read(sound, dtype="float32")
    waveform = torchaudio.functional.resample(torch.from_numpy(samples), rate, RATE)
    window = round(float(seconds) * RATE)
    filters, _ = torchaudio.compliance.kaldi.get_mel_banks(128, 1024, float(RATE), 0.0, 15000.0, 100.0, -500.0, 1.0)
    filters, hann = F.pad(filters, (0, 1)), torch.hann_window(800, periodic=False)
    found = []
    with torch.inference_mode():
        for batch in waveform[: len(waveform) // window * window].view(-1, window).split(BATCH):
            emphasised = batch[:, 1:] - 0.97 * batch[:, :-1]
            spectrum = torch.stft(emphasised, 1024, 320, 800, hann, center=True, return_complex=True)
            power = spectrum.real.square() + spectrum.imag.square()
            found.append(net((((filters @ power + 1e-5).log() + 4.5) / 5).transpose(1, 2)).sigmoid())
    torch.save(torch.cat(found), out)


if __name__ == "__main__":
    main(*sys.argv[1:])
