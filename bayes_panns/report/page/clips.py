"""Clips to look at and listen to: those that a posterior is most uncertain about, each kind by itself."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import soundfile
import torch
from matplotlib.image import imsave
from numpy.typing import NDArray

from bayes_panns.evaluations import Evaluation
from bayes_panns.posterior import Posterior
from bayes_panns.predictions import Uncertainty
from bayes_panns.report.subjects import Part, Subject

SECONDS = 10.0
"""The longest stretch of a clip that a page holds."""

LABELS = 5
"""How many labels a clip's card shows, and those of its own beside them."""

_DYNAMIC_RANGE = 70.0
"""dB from the loudest to the darkest of a spectrogram."""

_DRAWS = 20
"""How many draws are shown of a prediction that was made without any."""

KINDS = {
    "wrong": (
        "Confidently wrong",
        "The highest probabilities for a label that the clip does not have. Listen whether the truth is in doubt.",
    ),
    "epistemic": (
        "Most epistemic",
        "The draws of the weights disagree most: the model has seen too little like this. Labels for such clips teach "
        "it most.",
    ),
    "aleatoric": (
        "Most aleatoric",
        "Nearly every draw finds the sound itself ambiguous: more clips of the same kind would not settle it.",
    ),
    "strange": (
        "Most uncertain, out of distribution",
        "Clips of none of the labels, and seen as such: the highest entropy.",
    ),
    "fooled": (
        "Least uncertain, out of distribution",
        "Clips of none of the labels that pass for known ones: the lowest entropy.",
    ),
}
"""The kinds of clips: a heading, and what they are."""

_STRANGE = ("strange", "fooled")


@dataclass(frozen=True)
class Row:
    """A label of a clip's card, in shares of 1.

    Attributes:
        label: Its name.
        true: Whether the clip has it.
        mean: Its probability.
        deviation: The epistemic standard deviation of it, over the draws.
        low: Where the error bar starts: the mean less the deviation, no lower than 0.
        high: Where it ends.
        draws: The probability under each draw.
    """

    label: str
    true: bool
    mean: float
    deviation: float
    low: float
    high: float
    draws: tuple[float, ...]


@dataclass(frozen=True)
class Card:
    """A clip, its sound and what was said of it.

    Attributes:
        name: The clip's name.
        fold: Whose posterior it is that speaks, in a cross-validation.
        labels: The labels that it has.
        spectrogram: A data URI.
        audio: A data URI; empty where the page has no room for it.
        seconds: How long both are.
        cut: Whether the clip itself is longer.
        top: The highest frequency of the spectrogram, in kHz.
        rows: The most probable labels, and those that it has.
        aleatoric: Variance, summed over the labels.
        epistemic: Likewise.
        entropy: Of the prediction, in nats.
    """

    name: str
    fold: str
    labels: tuple[str, ...]
    spectrogram: str
    audio: str
    seconds: float
    cut: bool
    top: float
    rows: tuple[Row, ...]
    aleatoric: float
    epistemic: float
    entropy: float


@dataclass
class Room:
    """How many more bytes of sound and pictures a page takes."""

    left: int

    def take(self, uri: str) -> str:
        """``uri``, or nothing where there is no more room for it."""
        if len(uri) > self.left:
            return ""
        self.left -= len(uri)
        return uri


def right(evaluation: Evaluation) -> NDArray[np.bool_]:
    """``(N,)``, whether a clip has the label that is most probable for it."""
    p = evaluation.uncertainty.probability
    return evaluation.target[np.arange(len(p)), p.argmax(axis=1)]


def choose(evaluation: Evaluation, count: int) -> dict[str, NDArray[np.int_]]:
    """The clips of each kind of :data:`KINDS`, each clip in the first kind that takes it.

    Args:
        evaluation: What was said of which clips.
        count: How many of a kind.

    Returns:
        Kind to indices of clips, of out-of-distribution clips for the last two; a kind without any is left out.
    """
    inside = evaluation.uncertainty
    scores = inside.per_clip()
    wrong = np.where(right(evaluation), -np.inf, inside.probability.max(axis=1))
    asked = {"wrong": wrong, "epistemic": scores["epistemic"], "aleatoric": scores["aleatoric"]}
    if not scores["epistemic"].any():
        del asked["epistemic"]
    chosen = _first_come(asked, count)
    if evaluation.ood is not None:
        chosen |= _first_come({"strange": evaluation.ood.entropy, "fooled": -evaluation.ood.entropy}, count)
    return chosen


def cards(subject: Subject, count: int, room: Room) -> tuple[dict[str, list[Card]], str]:
    """The cards of each kind of clips.

    Args:
        subject: What the page is about; it has an evaluation.
        count: How many clips of a kind.
        room: How much the page still takes.

    Returns:
        Kind to cards, without the clips that are gone; and how the draws on them came about.

    Raises:
        PosteriorError: A posterior is gone or damaged, or needs a guide function.
    """
    evaluation = subject.evaluation
    assert evaluation is not None, "there are no clips without one"
    chosen = choose(evaluation, count)
    made: dict[str, dict[int, Card]] = {kind: {} for kind in chosen}
    starts, said = [0, 0], ""
    for part in subject.scored:
        assert part.evaluation is not None, "it is scored"
        names = (part.evaluation.names, part.evaluation.ood_names)
        wanted = []
        for kind, indices in chosen.items():
            side = int(kind in _STRANGE)
            local = indices - starts[side]
            if part.posterior is not None and (part.clips, part.strangers)[side] is not None:
                wanted += [(kind, int(index)) for index in local[(local >= 0) & (local < len(names[side]))]]
        if wanted:
            posterior = part.load()
            draws, said = _draws(posterior, evaluation.metrics["draws"])
            fold = part.name if len(subject.scored) > 1 else ""
            for (kind, index), card in zip(wanted, _cards(part, posterior, wanted, draws, fold, room), strict=True):
                made[kind][index + starts[kind in _STRANGE]] = card
        starts = [start + len(side_names) for start, side_names in zip(starts, names, strict=True)]
    ordered = {kind: [made[kind][i] for i in indices.tolist() if i in made[kind]] for kind, indices in chosen.items()}
    return {kind: found for kind, found in ordered.items() if found}, said


def _first_come(scores: dict[str, NDArray[np.float64]], count: int) -> dict[str, NDArray[np.int_]]:
    """For each kind the clips of the highest scores, without those of the kinds before."""
    taken: list[int] = []
    chosen = {}
    for kind, score in scores.items():
        order = [int(i) for i in np.argsort(-score, kind="stable") if np.isfinite(score[i]) and int(i) not in taken]
        taken += order[:count]
        if order:
            chosen[kind] = np.array(order[:count])
    return chosen


def _draws(posterior: Posterior, scored: int | str) -> tuple[int, str]:
    """How many draws to show, and in words which they are."""
    if not posterior.stochastic or scored == 0:
        return 0, "The dot is the one prediction: nothing in it was drawn."
    if isinstance(scored, str):
        return _DRAWS, f"Dots are {_DRAWS} draws made for this picture; the bar is from propagated moments."
    return (
        scored,
        f"Each dot is one of the {scored} draws of the weights; the bar reaches one standard deviation of them.",
    )


def _cards(
    part: Part, posterior: Posterior, wanted: Sequence[tuple[str, int]], draws: int, fold: str, room: Room
) -> list[Card]:
    """Cards of clips, each given by its kind and its place among the part's."""
    evaluation, rate = part.evaluation, posterior.sample_rate
    assert evaluation is not None, "it is scored"
    waveforms = []
    for kind, index in wanted:
        clips = part.strangers if kind in _STRANGE else part.clips
        assert clips is not None, "they are wanted"
        waveforms.append(clips.waveform([index])[0])
    groups = [torch.from_numpy(np.stack(list(same))) for _, same in groupby(waveforms, key=len)]
    # Draw t is of the same weights here as in the evaluation.
    drawn = np.stack([p.double().numpy() for p in posterior.draws(groups, draws)])
    made = []
    for (kind, index), waveform, probability in zip(wanted, waveforms, drawn.swapaxes(0, 1), strict=True):
        strange = kind in _STRANGE
        said = evaluation.ood if strange else evaluation.uncertainty
        assert said is not None, "it was scored"
        true = np.zeros(len(evaluation.labels), dtype=bool) if strange else evaluation.target[index]
        variances = said.per_clip()
        shown = waveform[: round(SECONDS * rate)]
        made.append(
            Card(
                name=(evaluation.ood_names if strange else evaluation.names)[index],
                fold=fold,
                labels=tuple(label for label, has in zip(evaluation.labels, true, strict=True) if has),
                spectrogram=room.take(_spectrogram(posterior, shown)),
                audio=room.take(_sound(shown, rate)),
                seconds=len(shown) / rate,
                cut=len(shown) < len(waveform),
                top=posterior.front_end.settings.fmax / 1000,
                rows=tuple(_rows(said, index, probability, true, evaluation.labels)),
                aleatoric=float(variances["aleatoric"][index]),
                epistemic=float(variances["epistemic"][index]),
                entropy=float(said.entropy[index]),
            )
        )
    return made


def _rows(
    said: Uncertainty, index: int, drawn: NDArray[np.float64], true: NDArray[np.bool_], labels: Sequence[str]
) -> list[Row]:
    """The most probable labels and, below them, the most probable of those that the clip has."""
    mean, deviation = said.probability[index], np.sqrt(said.epistemic[index])
    order = np.argsort(-mean, kind="stable")
    missed = [int(k) for k in order[LABELS:] if true[k]]
    return [
        Row(
            label=labels[k],
            true=bool(true[k]),
            mean=float(mean[k]),
            deviation=float(deviation[k]),
            low=float(max(0, mean[k] - deviation[k])),
            high=float(min(1, mean[k] + deviation[k])),
            draws=tuple(drawn[:, k].tolist()),
        )
        for k in [*order[:LABELS].tolist(), *missed[:2]]
    ]


def _spectrogram(posterior: Posterior, waveform: NDArray[np.float32]) -> str:
    """The log-mels that the network hears, low frequencies at the bottom."""
    with torch.no_grad():
        front_end = posterior.front_end
        device = next(iter(posterior.model.net.buffers())).device
        mels = front_end(torch.from_numpy(waveform)[None].to(device))[0].T.cpu().numpy()
    top = float(mels.max())
    buffer = io.BytesIO()
    imsave(buffer, mels, format="webp", cmap="magma", origin="lower", vmin=top - _DYNAMIC_RANGE, vmax=top)
    return _uri("image/webp", buffer)


def _sound(waveform: NDArray[np.float32], rate: int) -> str:
    """The sound as MP3; as FLAC where the sound library is too old for it."""
    form, mime = ("MP3", "audio/mpeg") if "MP3" in soundfile.available_formats() else ("FLAC", "audio/flac")
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, rate, format=form)
    return _uri(mime, buffer)


def _uri(mime: str, buffer: io.BytesIO) -> str:
    return f"data:{mime};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
