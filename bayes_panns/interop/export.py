"""Export of a posterior's mean as a checkpoint that the code of the network's authors loads."""

import math
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from bayes_panns.audio.front_end import LogMel
from bayes_panns.bayes import mean_weights
from bayes_panns.core.choices import CheckpointKind, Holds
from bayes_panns.core.errors import PosteriorError
from bayes_panns.core.files import whole_file
from bayes_panns.interop.checkpoints import ExportHeader
from bayes_panns.nets import POOLED, Network, build
from bayes_panns.posterior import Posterior


def export_checkpoint(posterior: Posterior, path: str | Path, kind: CheckpointKind | str | None = None) -> None:
    """Write :func:`network_checkpoint` to a ``.pth`` file, whole or not at all.

    Args:
        posterior: The posterior.
        path: The file.
        kind: Whose code is to load it; by default that of the network's authors.

    Raises:
        PosteriorError: The posterior's network is none of ``kind``.
        OSError: The file cannot be written.
    """
    kinds = cast(Network, posterior.model.net).checkpoints
    if kind is not None and kind not in kinds:
        own = f"export it as {kinds[0]}" if kinds else "leave --format out"
        raise PosteriorError(f"net {posterior.net}: is not a network of {kind} checkpoints; {own}")
    if posterior.net.endswith(POOLED):
        raise PosteriorError(
            f"net {posterior.net}: its last layer reads the pooled features, which no published network's does; load "
            "the posterior itself, or write --format arviz"
        )
    if not kinds and posterior.takes == Holds.EMBEDDINGS:
        raise PosteriorError(f"net {posterior.net}: there are no checkpoints of it; write --format arviz")
    with whole_file(Path(path)) as fresh, fresh.open("wb") as file:
        # Given a path, torch does not say why a write failed.
        torch.save(network_checkpoint(posterior), file)


def network_checkpoint(posterior: Posterior) -> dict[str, Any]:
    """A posterior's mean, for the network of the same name in its authors' code.

    Of a guide that is not mean-field it is the median. A calibrated temperature cannot be stored in such a checkpoint.

    Returns:
        ``model``: the state_dict with the published names. That of a PANNs network also has the spectrogram and mel
        matrices of its sample rate, so that a strict load works.
        ``bayes_panns``: net, labels, task, sample rate and clip length, which the import reads. Other code ignores it.
    """
    means = {name.removeprefix("net."): value for name, value in mean_weights(posterior.guide).items()}
    learned = means | posterior.points()
    with torch.device("meta"):
        network = build(posterior.net, len(posterior.labels))
    front_end = posterior.front_end
    # PANNs' networks keep their front end among their weights.
    matrices = front_end_matrices(front_end) if isinstance(front_end, LogMel) else {}
    state = matrices | {name: learned[name] for name in network.state_dict()}
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
        "logmel_extractor.melW": front_end.mel.filters.clone(),
    }
