"""The story of the demo, on synthetic soundscapes: pretrain, transfer, and compare with the same model from scratch."""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile

from bayes_panns import report
from bayes_panns.cli.demo_figures import save_figures
from bayes_panns.cli.main import LINES
from bayes_panns.clips import write
from bayes_panns.core.choices import TagFormat, Task
from bayes_panns.core.strict_json import write_json
from bayes_panns.evaluations import Evaluation
from bayes_panns.jobs import RunFolder, choose_device, evaluate_posterior, fit
from bayes_panns.posterior import load
from bayes_panns.predictions import tag
from bayes_panns.recipes import read_run
from bayes_panns.soundscapes.scenes import DOWNSTREAM, NOVEL, UPSTREAM, soundscapes

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
"""The metrics of the demo's table: what the table calls them, and which way is better."""


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
        device: Where to fit; see :func:`~bayes_panns.jobs.choose_device`.

    Returns:
        The metrics of the posteriors ``transferred`` and ``from scratch``, by name.
    """
    folder, sizes = Path(folder), sizes or Sizes()
    stores, figures, sounds = (folder / name for name in ("stores", "figures", "sounds"))
    for path in (stores, figures, sounds):
        path.mkdir(parents=True, exist_ok=True)
    logger.info(f"making {sum(vars(sizes).values())} clips of {len(UPSTREAM + DOWNSTREAM + NOVEL)} kinds of sound")
    _make_clips(stores, sounds, sizes)

    def fitted(name: str, recipe: str, store: str, upstream: RunFolder | None = None) -> RunFolder:
        run = RunFolder(folder / name)
        if run.is_run:
            shutil.rmtree(run.path)
        start = None if upstream is None else upstream.path
        fit(read_run(recipe, changes, stores=[stores / f"{store}.h5"], upstream=start), run.path, device=device)
        return run

    _say("\n1. pretraining on upstream: 16 kinds of sound, up to three at once")
    upstream = fitted("upstream", "demo-upstream", "upstream")
    _say("\n2. transfer: 8 new kinds, few clips of each, starting from the upstream posterior")
    transferred = fitted("transferred", "demo-downstream", "downstream", upstream)
    _say("\n3. the same from scratch")
    scratch = fitted("scratch", "demo-downstream", "downstream")
    runs = {"transferred": transferred, "from scratch": scratch}

    _say(f"\n4. scoring on {sizes.held_out} held-out clips, and on {sizes.novel} of kinds of sound new to both")
    evaluations = {name: _evaluated(run, stores, device) for name, run in runs.items()}
    results = {name: evaluation.metrics for name, evaluation in evaluations.items()}
    write_json(results, folder / "results.json", indent=2)
    save_figures(evaluations, {name: run.metrics for name, run in {**runs, "upstream": upstream}.items()}, figures)
    _say("\n" + table(results))
    examples = tag(load(transferred.posterior, device=choose_device(device)), sorted(sounds.glob("*.wav")), DRAWS)
    _say("The transferred posterior's tags of three held-out and three novel sounds:\n")
    _say(report.render_tags(examples, TagFormat.TABLE))
    page = report.write_report([run.path for run in runs.values()], folder / "report.html")
    logger.info(f"the report is {page}; figures are in {figures}, and sounds to listen to in {sounds}")
    return results


def table(results: dict[str, dict[str, float]]) -> str:
    """The metrics side by side: an arrow shows which way is better, and a star the better one."""
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


def _say(lines: str) -> None:
    logger.info(lines, extra={LINES: True})


def _make_clips(stores: Path, sounds: Path, sizes: Sizes) -> None:
    """Write the four stores, and three sounds each of the held-out and the novel ones to listen to."""
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


def _evaluated(run: RunFolder, stores: Path, device: str) -> Evaluation:
    """Score a run, and keep the evaluation in its folder."""
    posterior = load(run.posterior, device=choose_device(device))
    evaluation = evaluate_posterior(posterior, [stores / "held-out.h5"], ood=[stores / "novel.h5"], draws=DRAWS)
    evaluation.save(run.evaluation)
    return evaluation
