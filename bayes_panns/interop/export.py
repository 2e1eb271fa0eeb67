"""Export of a posterior's mean as a checkpoint that PANNs' own code loads."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bayes_panns.audio.front_end import LogMel
from bayes_panns.bayes import mean_weights
from bayes_panns.core.files import whole_file
from bayes_panns.interop.checkpoints import ExportHeader
from bayes_panns.nets import build
from bayes_panns.posterior import Posterior


def export_panns(posterior: Posterior, path: str | Path) -> None:
    """Write :func:`panns_checkpoint` to a ``.pth`` file, whole or not at all.

    Raises:
        OSError: The file cannot be written.
    """
    with whole_file(Path(path)) as fresh:
        torch.save(panns_checkpoint(posterior), fresh)


def panns_checkpoint(posterior: Posterior) -> dict[str, Any]:
    """A posterior's mean, for the network of the same name in PANNs' code with the front end of the same sample rate.

    Of a guide that is not mean-field it is the median. A calibrated temperature cannot be stored in such a checkpoint.

    Returns:
        ``model``: PANNs' state_dict with the spectrogram and mel matrices, so that a strict load works.
        ``bayes_panns``: net, labels, task, sample rate and clip length, which the import reads. PANNs ignores it.
    """
    means = {name.removeprefix("net."): value for name, value in mean_weights(posterior.guide).items()}
    learned = means | posterior.points()
    with torch.device("meta"):
        order = build(posterior.net, len(posterior.labels)).state_dict()
    state = front_end_matrices(posterior.front_end) | {name: learned[name] for name in order}
    header = ExportHeader(
        net=posterior.net,
        labels=posterior.labels,
        task=posterior.task,
        sample_rate=posterior.sample_rate,
        clip_seconds=posterior.clip_seconds,
    )
    return {
        "model": {name: value.detach().cpu().contiguous() for name, value in state.items()},
        "bayes_panns": header.model_dump(mode="json"),
    }


def front_end_matrices(front_end: LogMel) -> dict[str, Tensor]:
    """The matrices of the front end that PANNs' networks keep among their weights, by PANNs' names.

    With a window of n samples and M mel bands:

    ========================================  ====================  ====================================
    name                                      shape                 value at frequency f and time t
    ========================================  ====================  ====================================
    spectrogram_extractor.stft.conv_real.*    ``(n / 2 + 1, 1, n)``  hann(t) cos(2 pi f t / n)
    spectrogram_extractor.stft.conv_imag.*    ``(n / 2 + 1, 1, n)``  -hann(t) sin(2 pi f t / n)
    logmel_extractor.melW                     ``(n / 2 + 1, M)``     the mel filters
    ========================================  ====================  ====================================
    """
    window = front_end.settings.window
    frequency, time = torch.arange(window // 2 + 1)[:, None], torch.arange(window)
    # Reduce the angle to one turn in whole numbers, which is exact, before going on in double precision.
    angle = (frequency * time % window).double() * (2 * math.pi / window)
    hann = torch.hann_window(window, periodic=True, dtype=torch.float64)
    return {
        "spectrogram_extractor.stft.conv_real.weight": (angle.cos() * hann).float()[:, None],
        "spectrogram_extractor.stft.conv_imag.weight": (-angle.sin() * hann).float()[:, None],
        "logmel_extractor.melW": front_end.mel.mel_scale.fb.clone(),
    }
