"""Cards of clips: the sound, its spectrogram, the most probable labels and the draws behind them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray

from bayes_panns.clips import ClipSet
from bayes_panns.core.choices import Holds
from bayes_panns.posterior import Posterior
from bayes_panns.predictions import Uncertainty
from bayes_panns.report.media import sound, spectrogram
from bayes_panns.report.page.clips import REASONS
from bayes_panns.report.sources import Source, SourcePart

SECONDS = 10.0
"""The longest stretch of a clip that a page holds."""

LABELS = 5
"""How many of the most probable labels a card shows; true labels beyond them are added."""

TRUE_LABELS = 2
"""The most true labels that are added."""

_DRAWS = 20
"""How many draws are shown for a prediction from propagated moments, which has none."""

_TOLERANCE = 0.02
"""The largest difference between an evaluation's probability and the mean of the same draws made again, for example on
another device. Beyond it, the posterior or its calibration was another."""


@dataclass(frozen=True)
class Row:
    """A label on a card; all numbers are shares of 1.

    Attributes:
        label: Its name.
        true: Whether the clip has it.
        mean: Its probability.
        deviation: The epistemic standard deviation of the probability.
        low: Where the error bar starts: one deviation below the mean, but not below 0.
        high: Where the error bar ends.
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
    """A clip, its sound and its prediction.

    Attributes:
        name: The clip's name.
        fold: The run that scored it, in a cross-validation; otherwise empty.
        labels: The labels that it has.
        spectrogram: A data URI; empty where the page's budget is spent, and for an embedding.
        audio: A data URI; likewise.
        seconds: The length of both; 0 for an embedding.
        cut: Whether the clip itself is longer.
        top: The highest frequency of the spectrogram, in kHz.
        rows: The most probable labels, and true labels beyond them.
        aleatoric: The aleatoric variance, summed over labels.
        epistemic: The epistemic variance, summed over labels.
        entropy: The predictive entropy, in nats.
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


@dataclass(frozen=True)
class _Sound:
    """What a card shows of the sound; by default nothing."""

    spectrogram: str = ""
    audio: str = ""
    seconds: float = 0.0
    cut: bool = False
    top: float = 0.0


@dataclass
class MediaBudget:
    """The bytes of sound and pictures that a page may still take.

    Attributes:
        left: How many.
    """

    left: int

    def take(self, uri: str) -> str:
        """``uri``, which is paid for; or nothing, where too little is left."""
        if len(uri) > self.left:
            return ""
        self.left -= len(uri)
        return uri


def make_cards(
    source: Source, chosen: Mapping[str, NDArray[np.int_]], budget: MediaBudget
) -> tuple[dict[str, list[Card]], str]:
    """Make the cards of the chosen clips.

    Args:
        source: A source with an evaluation.
        chosen: The key of each reason to indices of clips, from
            :func:`~bayes_panns.report.page.clips.choose_clips`.
        budget: What is left of the page's bytes.

    Returns:
        The key of each reason to cards, without the clips that are missing; and a sentence on what the dots are.

    Raises:
        PosteriorError: A posterior is missing or damaged, or needs a guide function.
    """
    assert source.evaluation is not None, "clips are chosen from one"
    made: dict[str, dict[int, Card]] = {reason: {} for reason in chosen}
    starts, sentence = {False: 0, True: 0}, ""
    for part in source.scored:
        assert part.evaluation is not None, "it is scored"
        names = {False: part.evaluation.names, True: part.evaluation.ood_names}
        wanted = []
        for reason, indices in chosen.items():
            ood = REASONS[reason].ood
            local = indices - starts[ood]
            if part.posterior is not None and _clips(part, ood) is not None:
                wanted += [(reason, int(index)) for index in local[(local >= 0) & (local < len(names[ood]))]]
        if wanted:
            fold = part.name if len(source.scored) > 1 else ""
            cards, sentence = _part_cards(part, wanted, fold, budget)
            for (reason, index), card in zip(wanted, cards, strict=True):
                made[reason][index + starts[REASONS[reason].ood]] = card
        starts = {ood: start + len(names[ood]) for ood, start in starts.items()}
    ordered = {key: [made[key][i] for i in indices.tolist() if i in made[key]] for key, indices in chosen.items()}
    return {reason: cards for reason, cards in ordered.items() if cards}, sentence


def _clips(part: SourcePart, ood: bool) -> ClipSet | None:
    return part.ood_clips if ood else part.clips


def _part_cards(
    part: SourcePart, wanted: Sequence[tuple[str, int]], fold: str, budget: MediaBudget
) -> tuple[list[Card], str]:
    """The cards of clips, each given by its reason and its index among the part's; and what the dots are."""
    evaluation, posterior = part.evaluation, part.load_as_evaluated()
    assert evaluation is not None, "it is scored"
    waveforms, predictions = [], []
    for reason, index in wanted:
        clips = _clips(part, REASONS[reason].ood)
        prediction = evaluation.ood if REASONS[reason].ood else evaluation.uncertainty
        assert clips is not None, "the clip is wanted"
        assert prediction is not None, "it was scored"
        waveforms.append(clips.inputs([index])[0])
        predictions.append(prediction)
    mean = np.stack([each.probability[index] for each, (_, index) in zip(predictions, wanted, strict=True)])
    draws, sentence = _draw(posterior, waveforms, evaluation.metrics["draws"], mean)
    cards = []
    for place, (reason, index) in enumerate(wanted):
        ood, prediction, waveform = REASONS[reason].ood, predictions[place], waveforms[place]
        true = np.zeros(len(evaluation.labels), dtype=bool) if ood else evaluation.target[index]
        variances = prediction.per_clip()
        sound = _Sound() if posterior.takes == Holds.EMBEDDINGS else _shown(posterior, waveform, budget)
        cards.append(
            Card(
                name=(evaluation.ood_names if ood else evaluation.names)[index],
                fold=fold,
                labels=tuple(label for label, has in zip(evaluation.labels, true, strict=True) if has),
                **vars(sound),
                rows=tuple(_rows(prediction, index, draws[:, place], true, evaluation.labels)),
                aleatoric=float(variances["aleatoric"][index]),
                epistemic=float(variances["epistemic"][index]),
                entropy=float(prediction.entropy[index]),
            )
        )
    return cards, sentence


def _draw(
    posterior: Posterior, waveforms: Sequence[NDArray[np.float32]], scored: int | str, mean: NDArray[np.float64]
) -> tuple[NDArray[np.float64], str]:
    """The evaluation's draws for some of its clips, made again, ``(T, N, K)``; and what they are.

    Args:
        posterior: The posterior as it was evaluated.
        waveforms: Those of N clips.
        scored: The draws of the evaluation.
        mean: The evaluation's probabilities, ``(N, K)``.
    """
    moments = isinstance(scored, str)
    count = _DRAWS if isinstance(scored, str) else scored
    groups = [torch.from_numpy(np.stack(list(same))) for _, same in groupby(waveforms, key=len)]
    # Draw t has the same weights here as in the evaluation.
    draws = np.stack([p.double().numpy() for p in posterior.draws(groups, count)])
    if moments:
        return draws, f"Dots are {count} draws made for this page; error bars come from propagated moments."
    if np.abs(draws.mean(axis=0) - mean).max() > _TOLERANCE:
        return draws[:0], (
            "No draws are shown, because the posterior does not reproduce the predictions that were scored; evaluate "
            "again to see them."
        )
    if not posterior.stochastic or count == 0:
        return draws, "The dot is the prediction; it has no draws."
    return draws, f"Dots are the {count} draws of the weights; an error bar is one standard deviation of the draws."


def _rows(
    prediction: Uncertainty, index: int, draws: NDArray[np.float64], true: NDArray[np.bool_], labels: Sequence[str]
) -> list[Row]:
    """The most probable labels and, below them, the most probable of the true labels that are not among them."""
    mean, deviation = prediction.probability[index], np.sqrt(prediction.epistemic[index])
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
            draws=tuple(draws[:, k].tolist()),
        )
        for k in [*order[:LABELS].tolist(), *missed[:TRUE_LABELS]]
    ]


def _shown(posterior: Posterior, waveform: NDArray[np.float32], budget: MediaBudget) -> _Sound:
    """The sound and the spectrogram of a clip, as far as the budget allows."""
    shown = waveform[: round(SECONDS * posterior.sample_rate)]
    return _Sound(
        spectrogram=budget.take(spectrogram(posterior.front_end, shown).uri),
        audio=budget.take(sound(shown, posterior.sample_rate).uri),
        seconds=len(shown) / posterior.sample_rate,
        cut=len(shown) < len(waveform),
        top=posterior.front_end.settings.fmax / 1000,
    )
