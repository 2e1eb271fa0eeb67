"""The whole story on synthetic soundscapes: pretrain, transfer, and compare with the same model from scratch."""

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile
from matplotlib.figure import Figure

from bayes_panns import report
from bayes_panns.clips import Task, write
from bayes_panns.evaluations import Evaluation
from bayes_panns.jobs.workflow import RUN_TOML, evaluate_posterior, fit
from bayes_panns.metrics import reliability, risk_coverage, top_label
from bayes_panns.posterior import load
from bayes_panns.predictions import tag
from bayes_panns.recipes.reading import read_run
from bayes_panns.report.run_folder import RunFolder
from bayes_panns.soundscapes.scenes import DOWNSTREAM, NOVEL, UPSTREAM, soundscapes
from bayes_panns.svi import METRICS, read_metrics

logger = logging.getLogger(__name__)

SAMPLE_RATE = 16000
DRAWS = 10

SHOWN = {
    "cls/accuracy": ("accuracy", "higher"),
    "cal/nll": ("NLL / nats", "lower"),
    "cal/ece": ("calibration error", "lower"),
    "sc/aurc": ("risk-coverage area", "lower"),
    "ood/auroc": ("novel sounds, AUROC by entropy", "higher"),
    "ood/auroc_mutual_information": ("novel sounds, AUROC by epistemic", "higher"),
}
"""The metrics of the demo's table: their names for people, and which way is better."""


@dataclass(frozen=True)
class Sizes:
    """How many clips of 2 s the demo makes."""

    upstream: int = 1600
    downstream: int = 96
    held_out: int = 240
    novel: int = 160


def run(
    folder: str | Path,
    *,
    sizes: Sizes | None = None,
    changes: Sequence[str] = (),
    device: str = "auto",
) -> dict[str, dict[str, float]]:
    """Run the demo.

    Args:
        folder: Where stores, runs, figures and sounds go; an earlier demo there is replaced.
        sizes: How many clips.
        changes: Settings for all three fits, as ``--set`` takes them.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        The metrics of the posteriors ``transferred`` and ``from scratch``, by name.
    """
    folder, sizes = Path(folder), sizes or Sizes()
    stores, figures, sounds = (folder / name for name in ("stores", "figures", "sounds"))
    for path in (stores, figures, sounds):
        path.mkdir(parents=True, exist_ok=True)
    logger.info(f"making {sum(vars(sizes).values())} clips of {len(UPSTREAM + DOWNSTREAM + NOVEL)} kinds of sound")
    for seed, (name, kinds, count, events) in enumerate(
        (
            ("upstream", UPSTREAM, sizes.upstream, (1, 3)),
            ("downstream", DOWNSTREAM, sizes.downstream, (1, 1)),
            ("held-out", DOWNSTREAM, sizes.held_out, (1, 1)),
            ("novel", NOVEL, sizes.novel, (1, 1)),
        )
    ):
        made = soundscapes(kinds, count, sample_rate=SAMPLE_RATE, events=events, seed=seed)
        task = Task.MULTI_LABEL if events[1] > 1 else Task.ONE_OF_K
        write(stores / f"{name}.h5", made.waveform, made.target, made.labels, task, SAMPLE_RATE)
        if name in ("held-out", "novel"):
            for index in range(3):
                kind = made.labels[made.target[index].argmax()]
                soundfile.write(sounds / f"{name}-{index}-{kind}.wav", made.waveform[index], SAMPLE_RATE)

    def fitted(name: str, recipe: str, store: str, upstream: Path | None = None) -> Path:
        out = folder / name
        if (out / RUN_TOML).is_file():
            shutil.rmtree(out)
        changed = [f'data.stores=["{stores / store}.h5"]', *changes]
        if upstream is not None:
            changed.append(f'upstream="{upstream}"')
        fit(read_run(recipe, changed), out, device=device)
        return out

    logger.info("\n1. pretraining on upstream: 16 kinds of sound, up to three at once")
    upstream = fitted("upstream", "demo-upstream", "upstream")
    logger.info("\n2. transfer: 8 new kinds, few clips of each, starting from the upstream posterior")
    runs = {"transferred": fitted("transferred", "demo-downstream", "downstream", upstream)}
    logger.info("\n3. the same from scratch")
    runs["from scratch"] = fitted("scratch", "demo-downstream", "downstream")

    logger.info(
        f"\n4. scoring on {sizes.held_out} held-out clips, and on {sizes.novel} of kinds that neither has heard"
    )
    evaluations = {name: _evaluate(path, stores) for name, path in runs.items()}
    results = {name: evaluation.metrics for name, evaluation in evaluations.items()}
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    _draw(evaluations, runs, figures)
    logger.info("\n" + table(results))
    examples = tag(load(runs["transferred"]), sorted(sounds.glob("*.wav")), DRAWS)
    logger.info("What the transferred posterior says of three held-out and three novel sounds:\n")
    logger.info(report.render_tags(examples, "table"))
    for name, evaluation in evaluations.items():
        evaluation.save(RunFolder(runs[name]).evaluation)
    page = report.write_report(list(runs.values()), folder / "report.html")
    logger.info(f"a report with all of it in {page}, figures in {figures}, sounds to listen to in {sounds}")
    return results


def table(results: dict[str, dict[str, float]]) -> str:
    """The metrics side by side, with an arrow for which way is better and a star at the better one."""
    names = list(results)
    rows = [["", *names]]
    for key, (title, better) in SHOWN.items():
        values = [results[name][key] for name in names]
        best = max(values) if better == "higher" else min(values)
        marked = [f"{value:.3f}{'*' if value == best else ' '}" for value in values]
        rows.append([f"{title} {'↑' if better == 'higher' else '↓'}", *marked])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "".join(
        row[0].ljust(widths[0])
        + "".join(cell.rjust(width + 2) for cell, width in zip(row[1:], widths[1:], strict=True))
        + "\n"
        for row in rows
    )


def _evaluate(run: Path, stores: Path) -> Evaluation:
    return evaluate_posterior(load(run), [stores / "held-out.h5"], ood=[stores / "novel.h5"], draws=DRAWS)


def _draw(evaluations: dict[str, Evaluation], runs: dict[str, Path], figures: Path) -> None:
    for name, path in {**runs, "upstream": runs["transferred"].parent / "upstream"}.items():
        report.save(
            report.training_curves(read_metrics(path / METRICS)), figures / f"training-{name.replace(' ', '-')}.png"
        )
    results = {name: evaluation.metrics for name, evaluation in evaluations.items()}
    report.save(report.comparison(results), figures / "comparison.png")
    calibration = Figure(figsize=(9, 4.2), layout="constrained")
    axes = calibration.subplots(1, len(evaluations))
    for axis, (name, evaluation) in zip(axes, evaluations.items(), strict=True):
        reliability(evaluation.uncertainty.probability, evaluation.target, evaluation.uncertainty.task).plot(axis)
        axis.set_title(name)
    report.save(calibration, figures / "reliability.png")
    histograms = Figure(figsize=(9, 4.2), layout="constrained")
    axes = histograms.subplots(1, len(evaluations), sharey=True)
    curves = {}
    for axis, (name, evaluation) in zip(axes, evaluations.items(), strict=True):
        confidence, right = top_label(evaluation.uncertainty.probability, evaluation.target)
        assert evaluation.ood is not None
        entropy = evaluation.uncertainty.entropy
        groups = {"right": entropy[right], "wrong": entropy[~right], "novel": evaluation.ood.entropy}
        report.uncertainty_histograms(axis, groups)
        axis.set_title(name)
        curves[name] = risk_coverage(-confidence, ~right)
    report.save(histograms, figures / "uncertainty.png")
    risk = Figure(figsize=(5.5, 4.2), layout="constrained")
    axis = risk.subplots()
    for name, curve in curves.items():
        curve.plot(axis, name)
    report.save(risk, figures / "risk-coverage.png")
