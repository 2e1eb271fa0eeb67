"""The transfer study: posteriors of ESC-10 that start from an upstream posterior, beside others from scratch.

One command fits, scores and compares every strategy, fold, seed and share of the labels; docs/transfer-study.md says
how to come by the data. What is fitted stays: started again, the study goes on where it stopped.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import click
import numpy as np
import tomli_w
import torch
from numpy.typing import NDArray

from bayes_panns import __version__
from bayes_panns.clips import ClipSet
from bayes_panns.core.errors import BayesPannsError
from bayes_panns.core.files import whole_file, whole_folder
from bayes_panns.evaluations import Evaluation
from bayes_panns.jobs import RUN_TOML, crossval, run_folder
from bayes_panns.metrics import (
    Interval,
    aurc,
    auroc,
    cross_fitted_temperatures,
    ece,
    ece_if_calibrated,
    logits_of,
    paired,
    top_label,
)
from bayes_panns.metrics.bootstrap import LEVEL, RESAMPLES, Sample, percentiles
from bayes_panns.metrics.calibration import EPSILON
from bayes_panns.posterior import Posterior, load, save
from bayes_panns.recipes import Run, read_run, read_strategy
from bayes_panns.svi import METRICS, read_metrics

ARMS = {"transfer": "study-transfer", "scratch": "study-scratch"}
"""Where a fit starts, and the run recipe of those that move the backbone."""

SETTINGS: dict[tuple[str, float], tuple[str, ...]] = {
    ("transfer", 0.25): ("fit.batch_size=8", "fit.epochs=12"),
    ("transfer", 0.1): ("fit.batch_size=8", "fit.epochs=16"),
    ("scratch", 0.25): ("fit.batch_size=8", "fit.epochs=60"),
    ("scratch", 0.1): ("fit.batch_size=8", "fit.epochs=80"),
}
"""By arm and share of the labels, what such a fit changes in that recipe: fewer clips take more epochs."""

HEAD_RECIPE = "rotated-head"
"""The run recipe of fits that move the last layer alone."""

NEW_HEAD = ('freeze=["backbone"]', "fit.learning_rate=1e-2")
"""What it changes for a last layer that starts at random."""


@dataclass(frozen=True)
class Row:
    """A strategy of the study.

    Attributes:
        guide: Its guide recipe, and its name.
        start: The upstream posterior that it starts from in the arm ``transfer``: ``flip`` or ``det``; or ``own det``:
            in both arms the Det of its own arm, share, seed and fold.
        arms: The arms that it is part of.
        head: Whether it moves the last layer alone.
        changes: What it changes in its run recipe.
        draws: Posterior draws a clip.
        seeds: With how many of the seeds it is fitted, at most.
    """

    guide: str
    start: str
    arms: tuple[str, ...] = ("transfer", "scratch")
    head: bool = False
    changes: tuple[str, ...] = ()
    draws: int = 10
    seeds: int | None = None


ROWS = (
    Row("det", "det"),
    Row("drop", "det"),
    Row("flip", "flip"),
    Row("det-flip", "det", draws=50),
    Row("rotated-head", "own det", head=True, draws=50),
    Row("last-layer", "det", arms=("transfer",), head=True, changes=NEW_HEAD, draws=50, seeds=1),
    Row(
        "low-rank-head", "det", arms=("transfer",), head=True, changes=(*NEW_HEAD, "fit.epochs=1000"), draws=50, seeds=1
    ),
    Row("map", "det", seeds=1),
    Row("flip-from-points", "det", arms=("transfer",), seeds=1),
    Row("flip-last-stage", "flip", seeds=1),
    Row("flip-upstream-prior", "flip", arms=("transfer",), seeds=1),
)
"""In the order in which they are fitted: what others start from comes first."""

MIXTURE = ("rotated-head", "flip")
"""Strategies whose fits of one seed are mixed."""

ENSEMBLES = ("det", "drop", "flip", "rotated-head", " + ".join(MIXTURE))
"""Lines whose fits of all seeds are mixed."""

TEMPERED = "det + temperature"


@dataclass(frozen=True)
class Stage:
    """A row with one seed, in one arm, with one share of the labels: a fit a fold."""

    arm: str
    share: float
    row: Row
    seed: int

    def __str__(self) -> str:
        return f"{self.row.guide}, {self.arm}, {self.share:.0%} of the labels, seed {self.seed}"


def stages(
    seeds: Sequence[int], shares: Sequence[float], arms: Sequence[str] = (), guides: Sequence[str] = ()
) -> list[Stage]:
    """The study, or some arms or rows of it; the first seed first, so that what stops is a study of fewer seeds."""
    return [
        Stage(arm, share, row, seed)
        for index, seed in enumerate(seeds)
        for share in shares
        for row in ROWS
        if row.seeds is None or index < row.seeds
        for arm in row.arms
        if (not arms or arm in arms) and (not guides or row.guide in guides)
    ]


@dataclass(frozen=True)
class Study:
    """What the study is made of.

    Attributes:
        out: Its folder; a fit is in ``out/<arm>/<percent of the labels>/<guide>/seed-<seed>/fold-<fold>``.
        data: The downstream store, with folds.
        near: A store of sounds like the downstream ones that show none of the labels.
        speech: A store of speech.
        upstreams: The upstream posteriors ``flip`` and ``det``.
        changes: Settings for every fit.
        resamples: For bootstrap intervals.
    """

    out: Path
    data: str
    near: str
    speech: str
    upstreams: Mapping[str, str]
    changes: tuple[str, ...] = ()
    resamples: int = RESAMPLES

    def folder(self, arm: str, share: float) -> Path:
        """Where the cross-validations of an arm and share are."""
        return self.out / arm / f"{100 * share:g}"

    def recipe(self, stage: Stage) -> Run:
        """The run recipe of a stage, less guide, seed and folds."""
        row, arm, share = stage.row, stage.arm, stage.share
        changes = [f"data.share={share:g}"] if share < 1 else []
        if row.head:
            changes += [f"net={read_run(ARMS[arm]).net}"]
        else:
            changes += SETTINGS.get((arm, share), ())
        recipe = read_run(HEAD_RECIPE if row.head else ARMS[arm], [*changes, *row.changes, *self.changes])
        upstream = self.upstreams.get(row.start) if arm == "transfer" else None
        if row.start == "own det":
            upstream = str(self.folder(arm, share) / "det")
        data = recipe.data.model_copy(update={"stores": [self.data]})
        return recipe.model_copy(update={"data": data, "upstream": upstream})


# ---- fitting


Folds = dict[int, Evaluation]
Found = dict[tuple[str, float, str], dict[int, Folds]]
"""By arm, share and guide, then by seed and fold."""


def fitted(study: Study, todo: Sequence[Stage]) -> list[Stage]:
    """The stages of which every fold is fitted and scored."""
    return [stage for stage in todo if all((run / "evaluation").is_dir() for run in _runs(study, stage).values())]


def _runs(study: Study, stage: Stage) -> dict[int, Path]:
    """By fold, the folders of a stage's fits."""
    folder = study.folder(stage.arm, stage.share) / stage.row.guide
    return {fold: run_folder(folder, stage.seed, fold) for fold in sorted({int(fold) for fold in _folds(study.data)})}


def fit_and_score(study: Study, todo: Sequence[Stage]) -> Found | None:
    """Every stage's evaluations, fitted now or found; None where a fit was interrupted."""
    found: Found = {}
    for number, stage in enumerate(todo, 1):
        _say(f"[{number}/{len(todo)}] {stage}")
        folder, runs = study.folder(stage.arm, stage.share), _runs(study, stage)
        if stage.row.guide == "drop":
            for fold, run in runs.items():
                leave_dropout_on(run_folder(folder / "det", stage.seed, fold), run)
        with _timed(study, stage, ended=bool(fitted(study, [stage]))):
            result = crossval(
                study.recipe(stage),
                folder,
                guides=[stage.row.guide],
                seeds=[stage.seed],
                ood=[study.near, study.speech],
                draws=stage.row.draws,
                resume=True,
            )
        if result is None:
            return None
        ((seeds),) = result.evaluations.values()
        found.setdefault((stage.arm, stage.share, stage.row.guide), {})[stage.seed] = dict(seeds[stage.seed])
    return found


def leave_dropout_on(det: Path, drop: Path) -> None:
    """Make the run that Drop's fit would have left of Det's: they fit alike, and only predict differently."""
    if (drop / RUN_TOML).is_file():
        return
    recipe = read_run(det / RUN_TOML).model_copy(update={"guide": "drop"})
    posterior = load(det)
    posterior.strategy = read_strategy("drop")
    with whole_folder(drop) as fresh:
        save(posterior, fresh / "posterior")
        (fresh / RUN_TOML).write_text(tomli_w.dumps(recipe.model_dump(exclude_none=True)), encoding="utf-8")


@contextmanager
def _timed(study: Study, stage: Stage, *, ended: bool) -> Iterator[None]:
    """Adds the CPU seconds of the block to the stage's, unless all was there already."""
    began = time.process_time()
    try:
        yield
    finally:
        path = _clock(study, stage)
        if not ended:
            path.parent.mkdir(parents=True, exist_ok=True)
            spent = time.process_time() - began + _cpu_seconds(study, stage)
            path.write_text(json.dumps({"cpu_seconds": round(spent, 1)}) + "\n", encoding="utf-8")


def _clock(study: Study, stage: Stage) -> Path:
    # A file a stage: two processes may fit different seeds of one study.
    return study.out / "times" / f"{stage.arm}-{100 * stage.share:g}-{stage.row.guide}-seed-{stage.seed}.json"


def _cpu_seconds(study: Study, stage: Stage) -> float:
    path = _clock(study, stage)
    return json.loads(path.read_text(encoding="utf-8"))["cpu_seconds"] if path.is_file() else 0.0


def _clock_seconds(study: Study, stage: Stage) -> float:
    """What the fits of a stage took by the clock, as they logged it."""
    logs = (study.folder(stage.arm, stage.share) / stage.row.guide / f"seed-{stage.seed}").glob(f"fold-*/{METRICS}")
    return sum(line["seconds"] for log in logs for line in read_metrics(log))


def _folds(store: str) -> NDArray[np.int32]:
    folds = ClipSet(store).folds
    if folds is None:
        raise BayesPannsError(f"{store}: its clips have no folds")
    return folds


# ---- comparing


@dataclass(frozen=True)
class Result:
    """A line of the tables: a strategy, or what is made of several fits.

    Attributes:
        name: What it is called.
        runs: All folds' clips as one evaluation: one a seed, whose metrics are averaged; or a single one, if ``mixed``.
        seeds: How many seeds there are in it.
        mixed: Whether the fits of all seeds make one prediction.
    """

    name: str
    runs: list[Evaluation]
    seeds: int
    mixed: bool = False


def results(found: Found, arm: str, share: float) -> list[Result]:
    """The rows of an arm and share, and what is made of their evaluations without predicting again.

    Fits of several seeds are mixed, and temperatures fitted, with all of the labels only: with a share of them another
    seed takes other clips, and a temperature takes labels of clips that no fit may see.
    """
    mine = {guide: seeds for (a, s, guide), seeds in found.items() if (a, s) == (arm, share)}
    every = {guide: [[folds] for folds in seeds.values()] for guide, seeds in mine.items()}
    if share == 1 and "det" in mine:
        every[TEMPERED] = [[tempered(folds)] for folds in mine["det"].values()]
    if all(guide in mine for guide in MIXTURE):
        every[" + ".join(MIXTURE)] = [
            [mine[guide][seed] for guide in MIXTURE]
            for seed in mine[MIXTURE[0]]
            if all(seed in mine[guide] for guide in MIXTURE)
        ]
    lines = [Result(name, [_mixed(each) for each in seeds], len(seeds)) for name, seeds in every.items() if seeds]
    if share == 1:
        for name in ENSEMBLES:
            members = [folds for each in every.get(name, []) for folds in each]
            if len(every.get(name, [])) > 1:
                lines.append(Result(f"{name}, all seeds", [_mixed(members)], len(every[name]), mixed=True))
    return lines


def tempered(folds: Folds) -> Folds:
    """A Det's evaluations, each fold's at the temperature of the others: see :func:`cross_fitted_temperatures`."""
    first = next(iter(folds.values()))
    temperatures = cross_fitted_temperatures(
        np.concatenate([logits_of(each.uncertainty.probability, each.task) for each in folds.values()])[None],
        np.concatenate([each.target for each in folds.values()]),
        first.task,
        np.concatenate([np.full(len(each.names), fold) for fold, each in folds.items()]),
    )
    return {fold: each.tempered(temperatures[fold]) for fold, each in folds.items()}


def _mixed(members: Sequence[Folds]) -> Evaluation:
    """All folds' clips as one evaluation, each fold's by its fits as one mixture."""
    return Evaluation.pool([Evaluation.mix([each[fold] for each in members]) for fold in members[0]])


METRIC_NAMES = {
    "accuracy": "accuracy",
    "nll": "NLL",
    "brier": "Brier",
    "ece": "ECE",
    "aurc": "AURC",
    "near_entropy": "near, H",
    "near_mutual_information": "near, MI",
    "speech_entropy": "speech, H",
    "speech_mutual_information": "speech, MI",
}
"""The metrics of a line, and what the tables call them."""


class Outside:
    """Which out-of-distribution clips are near sounds and which are speech, and their recordings.

    Args:
        near: The store of near sounds.
        speech: The store of speech.

    Raises:
        BayesPannsError: They share a clip's name.
    """

    def __init__(self, near: ClipSet, speech: ClipSet):
        self.kinds: dict[str, str] = {}
        self.recordings: dict[str, str] = {}
        for kind, clips in (("near", near), ("speech", speech)):
            for name, recording in zip(clips.names, _recordings(clips), strict=True):
                if name in self.kinds:
                    raise BayesPannsError(f"{name}: is both a near sound and speech, or twice one of them")
                self.kinds[name], self.recordings[name] = kind, recording

    def of(self, evaluation: Evaluation, kind: str) -> NDArray[np.bool_]:
        """Which of an evaluation's out-of-distribution clips are of a kind."""
        return np.array([self.kinds[name] == kind for name in evaluation.ood_names])

    def groups(self, evaluation: Evaluation, kind: str) -> NDArray[np.str_]:
        """The recordings of those clips: each fold's posterior has scored them, so they come again and again."""
        return np.array([self.recordings[name] for name in evaluation.ood_names if self.kinds[name] == kind])


def _recordings(clips: ClipSet) -> list[str]:
    """The recording of each clip, or its name where that is unknown."""
    known = [""] * len(clips) if clips.sources is None else clips.sources.tolist()
    return [recording or name for recording, name in zip(known, clips.names, strict=True)]


@dataclass(frozen=True)
class _Clips:
    """What the metrics need of an evaluation of one-of-K clips, quick to index."""

    probability: NDArray[np.float64]
    target: NDArray[np.bool_]
    task: str
    right: NDArray[np.float64]
    confidence: NDArray[np.float64]
    nll: NDArray[np.float64]
    brier: NDArray[np.float64]
    scores: dict[str, NDArray[np.float64]]
    outside: dict[tuple[str, str], NDArray[np.float64]]

    @classmethod
    def of(cls, evaluation: Evaluation, outside: Outside) -> "_Clips":
        uncertainty, target = evaluation.uncertainty, evaluation.target
        assert evaluation.ood is not None
        p = uncertainty.probability
        confidence, right = top_label(p, target)
        return cls(
            probability=p,
            target=target,
            task=evaluation.task,
            right=right.astype(float),
            confidence=confidence.astype(float),
            nll=-np.log(np.maximum(p[target], EPSILON)),
            brier=((p - target) ** 2).sum(axis=1),
            scores={score: getattr(uncertainty, score) for score in _SCORES},
            outside={
                (kind, score): getattr(evaluation.ood, score)[outside.of(evaluation, kind)]
                for kind in _KINDS
                for score in _SCORES
            },
        )

    def metrics(self, inside: NDArray[np.intp], **outside: NDArray[np.intp]) -> list[float]:
        """Those of :data:`METRIC_NAMES`, in its order; NaN for a mutual information that is 0 throughout."""
        right = self.right[inside]
        found = [right.mean(), self.nll[inside].mean(), self.brier[inside].mean()]
        found += [
            ece(self.probability[inside], self.target[inside], self.task),
            aurc(-self.confidence[inside], 1 - right),
        ]
        for kind in _KINDS:
            for score in _SCORES:
                known, strange = self.scores[score], self.outside[kind, score]
                some = known.any() or strange.any()
                found.append(auroc(known[inside], strange[outside[kind]]) if some else np.nan)
        return found


_KINDS, _SCORES = ("near", "speech"), ("entropy", "mutual_information")


def measure(result: Result, outside: Outside, resamples: int) -> dict[str, Interval]:
    """The metrics of a line with bootstrap intervals over recordings.

    The mean over the seeds of each seed's pooled metric; a resample takes the same recordings for every seed. The
    interval of ECE is centred, as :data:`~bayes_panns.evaluations.measures.BIASED` says.
    """
    first = result.runs[0]
    prepared = [_Clips.of(each, outside) for each in result.runs]
    samples = [Sample(len(first.names), first.groups)]
    for kind in _KINDS:
        groups = outside.groups(first, kind)
        samples.append(Sample(len(groups), groups))

    def statistic(inside: NDArray[np.intp], near: NDArray[np.intp], speech: NDArray[np.intp]) -> NDArray[np.float64]:
        return np.mean([each.metrics(inside, near=near, speech=speech) for each in prepared], axis=0)

    centred = np.array([name == "ece" for name in METRIC_NAMES])
    found = dict(zip(METRIC_NAMES, percentiles(statistic, samples, resamples, LEVEL, 0, centred), strict=True))
    bounds = found["ece"]
    return found | {"ece": Interval(bounds.value, max(bounds.low, 0), max(bounds.high, 0))}


def minus(a: Result, b: Result, what: str, outside: Outside, resamples: int) -> Interval:
    """The paired difference of two lines in ``right`` (accuracy) or ``nll``, over recordings; each its seeds' mean."""
    first = a.runs[0]
    if any(each.names != first.names for each in [*a.runs, *b.runs]):
        raise BayesPannsError(f"{a.name} and {b.name} are not of the same clips in the same order")
    one, two = (np.mean([getattr(_Clips.of(each, outside), what) for each in line.runs], axis=0) for line in (a, b))
    return paired(_mean, one, two, groups=first.groups, resamples=resamples)


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean())


@torch.no_grad()
def trivial(study: Study, posterior: Posterior) -> dict[str, Interval]:
    """How well the top of the spectrum alone tells near sounds and speech: AUROC with its interval over recordings.

    The score is minus the loudest frame of the mean of the top eight mel bands, in dB: known from the front end.
    """
    clips = {"inside": ClipSet(study.data), "near": ClipSet(study.near), "speech": ClipSet(study.speech)}
    score, samples = {}, {}
    for kind, each in clips.items():
        parts = np.array_split(np.arange(len(each)), -(-len(each) // 32))
        score[kind] = np.concatenate(
            [-posterior.front_end(torch.from_numpy(each.waveform(p)))[:, :, -8:].mean(2).amax(1).numpy() for p in parts]
        )
        samples[kind] = Sample(len(each), np.array(_recordings(each)))

    def statistic(inside: NDArray[np.intp], strange: NDArray[np.intp], kind: str) -> NDArray[np.float64]:
        return np.array([auroc(score["inside"][inside], score[kind][strange])])

    found = {}
    for kind in _KINDS:
        (found[kind],) = percentiles(
            lambda inside, strange, kind=kind: statistic(inside, strange, kind),
            [samples["inside"], samples[kind]],
            study.resamples,
            LEVEL,
            0,
            np.array([False]),
        )
    return found


def compare(study: Study, found: Found, todo: Sequence[Stage]) -> dict[str, Any]:
    """Every number of the study, for JSON; without a path."""
    outside = Outside(ClipSet(study.near), ClipSet(study.speech))
    lines: dict[tuple[str, float], dict[str, Result]] = {}
    for arm, share, _ in found:
        if (arm, share) not in lines:
            lines[arm, share] = {line.name: line for line in results(found, arm, share)}
    rows = []
    for (arm, share), mine in lines.items():
        _say(f"comparing: {arm}, {share:.0%} of the labels")
        for line in mine.values():
            chance = [ece_if_calibrated(each.uncertainty.probability, each.task) for each in line.runs]
            references = {
                name: minus(line, mine[name], "nll", outside, study.resamples)
                for name in ("det", TEMPERED)
                if name in mine and name != line.name
            }
            rows.append(
                {
                    "arm": arm,
                    "share": share,
                    "name": line.name,
                    "seeds": line.seeds,
                    "mixed": line.mixed,
                    "draws": line.runs[0].uncertainty.draws,
                    "metrics": _plain(measure(line, outside, study.resamples)),
                    "ece_if_calibrated": {
                        "mean": float(np.mean(chance)),
                        "high": float(np.quantile(np.mean(chance, axis=0), LEVEL)),
                    },
                    "nll_minus": _plain(references),
                }
            )
    claims = []
    for share in dict.fromkeys(share for _, share in lines):
        one, two = (lines.get((arm, share), {}) for arm in ARMS)
        for name in one:
            if name in two:
                differences = {
                    metric: minus(one[name], two[name], what, outside, study.resamples)
                    for metric, what in (("accuracy", "right"), ("nll", "nll"))
                }
                claims.append({"name": name, "share": share, "transfer_minus_scratch": _plain(differences)})
    return {
        "bayes_panns": __version__,
        "clips": {kind: len(ClipSet(store)) for kind, store in _stores(study).items()},
        "resamples": study.resamples,
        "trivial_auroc": _plain(trivial(study, load(study.upstreams["det"]))),
        "rows": rows,
        "claims": claims,
        "times": [
            {
                "stage": str(stage),
                "cpu_seconds": _cpu_seconds(study, stage),
                "fit_seconds_by_the_clock": round(_clock_seconds(study, stage), 1),
            }
            for stage in todo
        ],
    }


def _stores(study: Study) -> dict[str, str]:
    return {"inside": study.data, "near": study.near, "speech": study.speech}


def _plain(intervals: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    """For JSON, which has no NaN: what is undefined is left out."""
    return {
        name: {end: float(value) for end, value in vars(each).items()}
        for name, each in intervals.items()
        if np.isfinite(each.value)
    }


# ---- telling


def tables(record: Mapping[str, Any]) -> str:
    """What :func:`compare` found, as Markdown."""
    clips = record["clips"]
    text = [
        f"{clips['inside']} clips, each scored by a fit that has not seen its fold; AUROC against {clips['near']} "
        f"near sounds and {clips['speech']} clips of speech, by entropy (H) and by mutual information (MI). Of several "
        "seeds a row shows the mean of each seed's pooled metric; where they are mixed, it is one prediction, the mean "
        "of all fits'. Behind an ECE stands, in brackets, the one that a perfectly calibrated model of the same "
        "confidences would show on as many clips. Differences in NLL are paired over recordings, with their 95 % "
        "bootstrap interval; a star marks those that leave 0 out.",
        "",
        "The trivial score, the loudest frame of the top eight mel bands: AUROC "
        + " and ".join(f"{_told(record['trivial_auroc'][kind])} against {kind}" for kind in _KINDS)
        + ".",
    ]
    for (arm, share), rows in groupby(record["rows"], key=lambda row: (row["arm"], row["share"])):
        where = "from the upstream posterior" if arm == "transfer" else "from scratch"
        text += ["", f"### {where.capitalize()}, {share:.0%} of the labels", ""]
        head = ["", "seeds", *METRIC_NAMES.values(), "NLL less det's", f"NLL less {TEMPERED}'s"]
        text += [_line(head), _line(["---", *["---:"] * (len(head) - 1)])]
        for row in rows:
            cells = [_number(row["metrics"].get(name)) for name in METRIC_NAMES]
            place = list(METRIC_NAMES).index("ece")
            cells[place] += f" ({row['ece_if_calibrated']['mean']:.3f})"
            differences = [_difference(row["nll_minus"].get(name)) for name in ("det", TEMPERED)]
            text.append(
                _line([f"`{row['name']}`", f"{row['seeds']}{' mixed' if row['mixed'] else ''}", *cells, *differences])
            )
    if record["claims"]:
        text += ["", "### From the upstream posterior less from scratch", ""]
        text += [_line(["", "labels", "accuracy", "NLL"]), _line(["---", "---:", "---:", "---:"])]
        for claim in record["claims"]:
            both = [_difference(claim["transfer_minus_scratch"][metric]) for metric in ("accuracy", "nll")]
            text.append(_line([f"`{claim['name']}`", f"{claim['share']:.0%}", *both]))
    cpu = sum(stage["cpu_seconds"] for stage in record["times"])
    clock = sum(stage["fit_seconds_by_the_clock"] for stage in record["times"])
    text += [
        "",
        f"Fits and scores took {cpu / 3600:.2f} CPU hours here; all fits {clock / 3600:.2f} hours by the clock.",
    ]
    return "\n".join(text) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _number(interval: Mapping[str, float] | None) -> str:
    return "-" if interval is None else f"{interval['value']:.3f}"


def _told(interval: Mapping[str, float]) -> str:
    return f"{interval['value']:.2f} ({interval['low']:.2f} to {interval['high']:.2f})"


def _difference(interval: Mapping[str, float] | None) -> str:
    if interval is None:
        return ""
    apart = interval["low"] > 0 or interval["high"] < 0
    return f"{interval['value']:+.3f} ({interval['low']:+.3f} to {interval['high']:+.3f}){' *' if apart else ''}"


def _say(line: str) -> None:
    click.echo(line, err=True)


def _seeds(context: click.Context, parameter: click.Parameter, value: str) -> list[int]:
    try:
        return [int(item) for item in value.split(",")]
    except ValueError:
        raise click.BadParameter(f"{value!r}: write whole numbers with commas, such as 0,1,2") from None


def _shares(context: click.Context, parameter: click.Parameter, value: str) -> list[float]:
    try:
        shares = [float(item) for item in value.split(",")]
    except ValueError:
        shares = []
    if not shares or not all(0 < share <= 1 for share in shares):
        raise click.BadParameter(f"{value!r}: write shares above 0 and up to 1 with commas, such as 1,0.25")
    return shares


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--data", required=True, type=click.Path(), help="The downstream store, with folds.")
@click.option("--near", required=True, type=click.Path(), help="A store of near sounds that show no label.")
@click.option("--speech", required=True, type=click.Path(), help="A store of speech.")
@click.option("--flip", required=True, type=click.Path(), help="The upstream posterior with variational weights.")
@click.option("--det", required=True, type=click.Path(), help="The upstream posterior with point weights.")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Where everything goes.")
@click.option("--seeds", callback=_seeds, metavar="N,...", default="0,1,2", show_default=True)
@click.option(
    "--shares", callback=_shares, metavar="X,...", default="1,0.25,0.1", show_default=True, help="Of the labels."
)
@click.option("--arm", "arms", type=click.Choice(list(ARMS)), multiple=True, help="One arm alone; both if not given.")
@click.option(
    "--guide",
    "guides",
    type=click.Choice([row.guide for row in ROWS]),
    multiple=True,
    help="These rows alone; all if not given.",
)
@click.option("--no-fit", is_flag=True, help="Compare what is fitted so far.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Replace a recipe value in every fit.")
@click.option(
    "--resamples", type=click.IntRange(min=1), default=RESAMPLES, show_default=True, help="For bootstrap intervals."
)
@click.option("--results", type=click.Path(path_type=Path), help="Write the results to RESULTS.json and .md as well.")
def main(
    data: str,
    near: str,
    speech: str,
    flip: str,
    det: str,
    out: Path,
    seeds: list[int],
    shares: list[float],
    arms: tuple[str, ...],
    guides: tuple[str, ...],
    no_fit: bool,
    changes: tuple[str, ...],
    resamples: int,
    results: Path | None,
) -> None:
    """Fit, score and compare every strategy from upstream posteriors and from scratch.

    Prints the tables, and leaves them and every number in OUT/results.md and OUT/results.json. Ctrl-C keeps what is
    fitted; the same command goes on.

    \b
      python benchmarks/transfer_study.py --data stores/esc10.h5 --near stores/near.h5 --speech stores/speech.h5 \\
          --flip runs/us8k-both-flip --det runs/us8k-both-det -o runs/study --seeds 0 --shares 1
    """
    study = Study(out, data, near, speech, {"flip": flip, "det": det}, changes, resamples)
    todo = stages(seeds, shares, arms, guides)
    try:
        if no_fit and not (todo := fitted(study, todo)):
            raise BayesPannsError(f"{out}: no row of the study is fitted yet on every fold")
        found = fit_and_score(study, todo)
        if found is None:
            _say("interrupted; the same command goes on")
            click.get_current_context().exit(130)
        record = compare(study, found, todo)
    except BayesPannsError as error:
        raise click.ClickException(str(error)) from error
    text = tables(record)
    for place in [out / "results", *([results] if results else [])]:
        place.parent.mkdir(parents=True, exist_ok=True)
        for suffix, content in ((".json", json.dumps(record, indent=1) + "\n"), (".md", text)):
            with whole_file(place.with_name(place.name + suffix)) as fresh:
                fresh.write_text(content, encoding="utf-8")
    click.echo(text, nl=False)


if __name__ == "__main__":
    main()
