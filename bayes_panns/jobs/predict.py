"""Whole disks: recordings predicted into a results folder, which goes on where it stopped."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bayes_panns.audio.recording import duration
from bayes_panns.core import progress
from bayes_panns.core.choices import FittedTo, Precision
from bayes_panns.core.digests import digest_of
from bayes_panns.core.errors import OF_ONE_FILE, ResultsError, SettingError
from bayes_panns.core.strict_json import strict
from bayes_panns.core.text import printable
from bayes_panns.devices import as_float64
from bayes_panns.jobs.planning import Planned, divided, largest_first, plan, together
from bayes_panns.jobs.recording_results import Heard, RecordingFormat, Setup, predict_group
from bayes_panns.jobs.result_summary import Summary, duration_text, summarise
from bayes_panns.jobs.results import Entry, ResultsFolder
from bayes_panns.posterior import Ensemble, Posterior, Predictor, choose_device, load_all, read_header
from bayes_panns.predictions import Draws, Skipped, none_read
from bayes_panns.predictions.events import EventRules
from bayes_panns.predictions.tagging import Tagger
from bayes_panns.ranks import group, helped, shared_out

logger = logging.getLogger(__name__)

_SAMPLED = 8
"""Recordings of each kind of file whose length is looked up, to tell how long all of them are."""

_LEAST_THRESHOLD = 1e-6

_UNSAID = {"precision": str(Precision.FLOAT32)}
"""What results of earlier versions were predicted with, which they do not say."""


def predict_to(
    posterior: Posterior | Ensemble | str | Path | Sequence[str | Path],
    files: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    draws: Draws | None = None,
    window: float | None = None,
    hop: float | None = None,
    channel: str = "mix",
    rules: EventRules | Mapping[str, Any] | None = None,
    abstain_above: float | None = None,
    formats: Sequence[RecordingFormat] = (),
    resume: bool = False,
    jobs: int = 1,
    device: str = "cpu",
    precision: Precision | str = Precision.FLOAT32,
    guide_function: str | None = None,
) -> Summary:
    """Predict recordings, or folders of them, into a results folder: in constant memory, recording by recording.

    The folder is described by :class:`~bayes_panns.jobs.results.ResultsFolder`. A kill leaves nothing half-written, and
    ``resume`` goes on behind the last finished recording: what is written in the end are the bytes that would have been
    written without the interruption.

    Args:
        posterior: A posterior or an ensemble; or the folder or folders to load.
        files: Sound files and folders, or one.
        out: The results folder; it is made, or must be empty, or hold results to go on with.
        draws: As for :func:`~bayes_panns.predictions.tag_each`.
        window: Likewise.
        hop: Likewise.
        channel: Likewise.
        rules: What makes an event, or some of the attributes of :class:`~bayes_panns.predictions.EventRules`. By
            default a label is heard at the threshold that ``calibrate`` stored for it, and otherwise at 0.5.
        abstain_above: An entropy in nats above which a window is left to a person, whatever its probabilities.
        formats: What to write of each recording beside its record, such as values of
            :data:`bayes_panns.report.RECORDING_FORMATS`.
        resume: Whether to go on with results that are there. Recordings whose file has not changed are kept.
        jobs: How many processes predict, each with its share of the threads; within
            :func:`~bayes_panns.ranks.led`, so many for each process of the launcher.
        device: Where to compute: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; of a posterior that is loaded already, for
            more processes than one.
        precision: What the network computes with: ``float32`` or ``bf16``; a posterior that is loaded already has its
            own.
        guide_function: ``module:function`` of the guide, for a posterior that was fitted with one.

    Returns:
        What was found. It is also in ``summary.json``.

    Raises:
        ResultsError: ``out`` holds results and ``resume`` is False, or they are of another posterior or other options;
            or another process writes there.
        OutputError: ``out`` cannot be written, or holds something else.
        AudioError: A file that was named does not exist, or none can be read.
        PosteriorError: The posterior cannot be read.
        PredictionError: The posterior takes embeddings, or the window or hop does not fit.
        SettingError: Several jobs are asked for, and the posterior is not on disk; or ``draws`` is neither a whole
            number from 0 up nor ``"moments"``; or there is no such precision.
    """
    if jobs < 1:
        raise SettingError(f"{jobs} jobs: give 1 or more")
    loaded = _loaded(posterior, device, precision, guide_function)
    named = [Path(file) for file in ([files] if isinstance(files, str | Path) else files)]
    tagger = Tagger(loaded, draws, window=window, hop=hop, channel=channel, samples=draws != "moments")
    rules = None if tagger.draws == "moments" else rules_for(loaded, rules)
    decisions = None if loaded.calibration is None else loaded.calibration.decisions
    deciding = decisions is not None or abstain_above is not None
    manifest = {
        "labels": list(loaded.labels),
        "task": str(loaded.task),
        "posterior": _identity(loaded),
        "window": tagger.cutting.window / loaded.sample_rate,
        "hop": tagger.cutting.hop / loaded.sample_rate,
        "draws": loaded.draws_made(tagger.draws),
        "precision": str(loaded.precision),
        "channel": channel,
        "sample_rate": loaded.sample_rate,
        "events": None if rules is None else strict(asdict(rules)),
        "decisions": {"abstain_above": abstain_above} if deciding else None,
    }
    folders = tuple(member.folder for member in _members(loaded) if member.folder is not None)
    if (jobs > 1 or helped()) and len(folders) < len(_members(loaded)):
        raise SettingError("several processes need a posterior that is on disk; save it first, or use one")
    results = ResultsFolder(out)
    with results.claimed():
        results.require(resume=resume)
        _require_same(results, manifest)
        before = results.recordings() if results.exists else []
        finished = [entry for entry in before if entry.skipped is None and (results.path / entry.record).is_file()]
        planned = plan(named, finished)
        if not results.exists:
            results.begin(manifest)
        setup = Setup(
            out=results.path,
            manifest=results.manifest,
            draws=tagger.draws,
            window=window,
            hop=hop,
            channel=channel,
            rules=rules,
            deciding=deciding,
            abstain_above=abstain_above,
            formats=tuple(formats),
            folders=folders,
            device=device,
            precision=loaded.precision,
            guide_function=guide_function,
        )
        return _Run(results, setup, tagger, planned, finished).done(jobs)


def rules_for(posterior: Predictor, rules: EventRules | Mapping[str, Any] | None) -> EventRules:
    """The rules of events, with the thresholds that ``calibrate`` stored where none is given.

    Args:
        posterior: Has the thresholds, perhaps.
        rules: All rules, or the attributes that are not as usual.

    Raises:
        SettingError: A value makes no sense.
    """
    if isinstance(rules, EventRules):
        return rules
    given, decisions = dict(rules or {}), None if posterior.calibration is None else posterior.calibration.decisions
    if decisions is not None and "threshold" not in given:
        # A label that is never decided makes no event unless it is certain.
        given["threshold"] = tuple(
            1.0 if fitted == FittedTo.NEVER else max(threshold, _LEAST_THRESHOLD)
            for threshold, fitted in zip(decisions.threshold, decisions.fitted, strict=True)
        )
    return EventRules(**given)


class _Run:
    """The recordings that are left, predicted one after the other or by several processes."""

    def __init__(
        self,
        results: ResultsFolder,
        setup: Setup,
        tagger: Tagger,
        planned: Sequence[Planned],
        finished: Sequence[Entry],
    ) -> None:
        self._results, self._setup, self._tagger, self._planned = results, setup, tagger, planned
        left = {each.absolute for each in planned if each.wanted}
        self._entries = {entry.path or entry.file: entry for entry in finished if entry.path not in left}
        self._skipped = list[Skipped]()

    def done(self, jobs: int) -> Summary:
        """Predict what is left, and sum up all that is there."""
        results = self._results
        results.write_recordings(self._entries.values())
        for entry in self._entries.values():
            self._setup.write_formats(entry.name, missing=True)
        if self._entries:
            logger.info(f"{len(self._entries)} recordings are finished, {self._left()} to do")
        groups = [group for group in together(self._planned) if any(each.wanted for each in group)]
        with _Speed(self._planned) as speed:
            for made in self._made(groups, jobs):
                if isinstance(made, Heard):
                    speed.add(made.seconds)
                else:
                    results.append(made)
                    self._entries[made.path or made.file] = made
                    self._say(made)
        order = {each.absolute or each.file: number for number, each in enumerate(self._planned)}
        # What was finished earlier and is not named now comes first.
        entries = sorted(self._entries.values(), key=lambda entry: order.get(entry.path or entry.file, -1))
        results.write_recordings(entries)
        if all(entry.skipped is not None for entry in entries):
            raise none_read(self._skipped, "tag")
        speed.say()
        return summarise(results, entries, self._tagger.posterior)

    def _made(self, groups: Sequence[list[Planned]], jobs: int) -> Iterator[Entry | Heard]:
        jobs = min(jobs, len(groups))
        own = partial(predict_group, self._setup, self._tagger)
        if jobs > 1 or helped():
            groups = largest_first(groups)
        if helped():
            # The processes help with the windows of what is no piece of work by itself.
            shared, groups = divided(groups, group().size * jobs)
            for each in shared:
                yield from own(each)
        if groups:
            yield from shared_out(groups, _start, self._setup, jobs=min(jobs, len(groups)), own=own)

    def _left(self) -> int:
        return sum(each.wanted for each in self._planned)

    def _say(self, entry: Entry) -> None:
        if entry.skipped is not None:
            self._skipped.append(Skipped(entry.file, entry.skipped))
            # Of a single file this is the error that ends the job.
            if len(self._planned) > 1:
                logger.info(f"skipped {entry.skipped}")
        for note in entry.notes:
            logger.warning(f"{entry.file}: {note.text}")


def _start(setup: Setup) -> Callable[[list[Planned]], Iterable[Entry | Heard]]:
    """What another process does with a group of recordings."""
    return partial(predict_group, setup, setup.tagger(setup.load()))


class _Speed:
    """How far the job is: hours of sound, in multiples of real time, with the time left."""

    def __init__(self, planned: Sequence[Planned]) -> None:
        self._wanted = [each for each in planned if each.wanted]
        self._heard = 0.0

    def __enter__(self) -> "_Speed":
        self._start = time.monotonic()
        # Looked up only where somebody sees it.
        total = _expected_seconds(self._wanted) if progress.visible() else None
        self._task = progress.task("predicting", total=None if total is None else total / 60, unit="min of sound")
        self._bar = self._task.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._task.__exit__(*error)

    def add(self, seconds: float) -> None:
        """So much more was heard."""
        self._heard += seconds
        self._bar.advance(seconds / 60)
        self._bar.show(f"{self._heard / 3600:.1f} h, {self._rate():.0f} x real time")

    def say(self) -> None:
        """Say how fast it was."""
        if self._heard:
            seconds = time.monotonic() - self._start
            heard = duration_text(self._heard)
            logger.info(f"{heard} predicted in {seconds:.0f} s, {self._rate():.0f} x real time")

    def _rate(self) -> float:
        return self._heard / max(1e-6, time.monotonic() - self._start)


def _expected_seconds(planned: Sequence[Planned]) -> float:
    """About how long recordings are: the lengths of some of each kind of file, and the sizes of all."""
    kinds = dict[str, list[Planned]]()
    for each in planned:
        kinds.setdefault(each.path.suffix.lower(), []).append(each)
    total = 0.0
    for same in kinds.values():
        step = max(1, len(same) // _SAMPLED)
        seconds, size = 0.0, 0
        for each in same[::step]:
            try:
                seconds += duration(each.path) if each.size else 0.0
            except OF_ONE_FILE:
                continue
            size += each.size
        total += sum(each.size for each in same) * seconds / size if size else 0.0
    return total


def _loaded(
    posterior: Posterior | Ensemble | str | Path | Sequence[str | Path],
    device: str,
    precision: Precision | str,
    guide_function: str | None,
) -> Posterior | Ensemble:
    if isinstance(posterior, Posterior | Ensemble):
        return posterior
    folders = [posterior] if isinstance(posterior, str | Path) else posterior
    return load_all(folders, device=choose_device(device), precision=precision, guide_function=guide_function)


def _members(posterior: Posterior | Ensemble) -> Sequence[Posterior]:
    return posterior.members if isinstance(posterior, Ensemble) else [posterior]


def _identity(posterior: Posterior | Ensemble) -> dict[str, Any]:
    """The folder of a posterior, and a digest of all that a prediction depends on; of an ensemble those of each too."""
    members = [
        {"folder": None if member.folder is None else str(member.folder), "digest": _digest(member)}
        for member in _members(posterior)
    ]
    if len(members) == 1:
        return members[0]
    return {
        "folder": members[0]["folder"],
        "digest": digest_of({"members": [member["digest"] for member in members]}),
        "members": members,
    }


def _digest(posterior: Posterior) -> str:
    """A digest of a posterior's header, which has one of its weights; or of the weights of one that is not on disk."""
    if posterior.folder is not None:
        return digest_of(read_header(posterior.folder))
    tensors = posterior.model.deterministic() | posterior.guide.tensors()
    with torch.no_grad():
        wide = {name: as_float64(value) for name, value in tensors.items()}
        sums = {name: [float(value.sum()), float(value.square().sum())] for name, value in wide.items()}
    return digest_of({"labels": posterior.labels, "tensors": sums})


def _require_same(results: ResultsFolder, manifest: dict[str, Any]) -> None:
    """Check that the results that are there, if any, can be gone on with.

    Raises:
        ResultsError: They are of another posterior or other options.
    """
    if not results.exists:
        return
    shown = printable(str(results.path))
    for key, now in manifest.items():
        was = results.manifest.get(key, _UNSAID.get(key))
        if key == "posterior":
            if (was or {}).get("digest") != now["digest"]:
                raise ResultsError(
                    f"{shown}: was begun with another posterior, {printable(str((was or {}).get('folder')))}; resume "
                    "with that one, or choose another folder"
                )
        elif was != strict(now):
            raise ResultsError(
                f"{shown}: was begun with {_difference(key, was, now)}; resume with the same options, or choose "
                "another folder"
            )


def _difference(key: str, was: Any, now: Any) -> str:
    """What differs, in words."""
    if isinstance(was, dict) and isinstance(now, dict):
        key, was, now = next((f"{key}.{name}", was.get(name), now[name]) for name in now if was.get(name) != now[name])
    if key == "labels":
        return "other labels"
    return f"{key} = {was}, not {now}"
