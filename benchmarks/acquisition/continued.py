"""The command ``python -m benchmarks continuing``: new clips alone, on an earlier last layer, or with the old clips."""

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from bayes_panns.bayes.likelihoods import OneOfK
from bayes_panns.core.choices import Task
from bayes_panns.core.errors import BayesPannsError
from bayes_panns.metrics import accuracy, nll
from bayes_panns.svi.last_layer import HeadAxes, HeadPosterior, HeadPrior, infer_head, realigned
from benchmarks.acquisition.command import read_store
from benchmarks.acquisition.games import Data, Learner
from benchmarks.acquisition.tables import interval
from benchmarks.messages import messages
from benchmarks.transfer_study.command import whole_numbers, write_and_show

SIZES = ((40, 20), (100, 20), (100, 100), (300, 30))
"""How many old and new clips."""

ROWS = {
    "old": "the old clips alone",
    "new": "the new clips alone, as `rotated-head` fits them",
    "continued": "the new clips on the posterior of the old ones, as `continue` fits them",
    "all": "the old and the new clips together, as `rotated-head` fits them",
}


@click.command("continuing", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--data", "stores", required=True, multiple=True, type=click.Path(), help="A store with folds; repeatable."
)
@click.option("--from", "source", required=True, type=click.Path(), help="The network, imported.")
@click.option("--seeds", callback=whole_numbers, metavar="N,...", default="0,1,2", show_default=True)
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The results, without an ending.")
def continuing(stores: tuple[str, ...], source: str, seeds: list[int], out: Path) -> None:
    """Compare a last layer that goes on with new clips only with one that is fitted to all clips again.

    \b
    Example:
      python -m benchmarks continuing --data stores/esc10.h5 --from mn04 -o runs/continuing
    """
    try:
        with messages():
            record = {data.name: _compared(data, seeds) for data in (read_store(each, source, None) for each in stores)}
    except BayesPannsError as error:
        raise click.ClickException(str(error)) from error
    write_and_show(record, _tables(record), [out])


def _compared(data: Data, seeds: list[int]) -> dict[str, Any]:
    """Scores by sizes and row: ``[fold, seed]`` of accuracy and NLL."""
    found: dict[str, Any] = {}
    most = min(len(data.pool(fold, 0)) for fold in np.unique(data.fold).tolist())
    for old_count, new_count in SIZES:
        if old_count + new_count > most:
            continue
        scores: dict[str, list[list[tuple[float, float]]]] = {row: [] for row in ROWS}
        for fold in np.unique(data.fold).tolist():
            for line in scores.values():
                line.append([])
            for seed in seeds:
                random = np.random.default_rng([seed, fold, old_count])
                clips = random.choice(data.pool(fold, seed), old_count + new_count, replace=False)
                old, new = clips[:old_count], clips[old_count:]
                learner = Learner.fitted(data, old, seed)
                learners = {
                    "old": learner,
                    "new": Learner.fitted(data, new, seed),
                    "continued": Learner(_went_on(data, learner.posterior, new, seed), learner.power),
                    "all": Learner.fitted(data, clips, seed),
                }
                out = np.flatnonzero(data.fold == fold)
                target = np.eye(data.labels, dtype=bool)[data.label[out]]
                for row, each in learners.items():
                    p = each.probability(data.embeddings[out])
                    scores[row][-1].append((accuracy(p, target), nll(p, target, Task.ONE_OF_K)))
        found[f"{old_count} old, {new_count} new"] = scores
    return found


def _went_on(data: Data, before: HeadPosterior, clips: NDArray[np.intp], seed: int) -> HeadPosterior:
    """The posterior of new clips whose prior is that of earlier ones."""
    axes, rank = before.axes, before.axes.right.shape[1]
    complete = HeadAxes(axes.left, axes.complete, axes.centre, axes.spread)
    size = len(complete.right)
    outside = (data.labels, size - rank)
    prior = HeadPrior(
        torch.cat([before.loc[0], torch.zeros(outside)], dim=1),
        torch.cat([before.scale[0], before.prior_scale[0].expand(outside)], dim=1),
        before.bias_loc[0],
        before.bias_scale[0],
    )
    return infer_head(
        data.embeddings[clips][:, None],
        torch.from_numpy(data.label[clips]),
        OneOfK(),
        realigned(complete, torch.arange(size) >= rank, data.embeddings[clips]),
        [float(before.prior_scale[0])],
        [float(before.kl_weight[0])],
        prior=prior,
        seed=seed,
    )


def _tables(record: dict[str, Any]) -> str:
    parts = ["# Going on with new clips", ""]
    parts += [f"- {row}: {text}." for row, text in ROWS.items()] + [""]
    parts += [
        "Means over folds; in brackets the 95 % interval of the difference from *all*, Student's t over folds.",
        "",
    ]
    for name, sizes in record.items():
        parts += [f"## {name}", "", "| | " + " | ".join(sizes) + " |", "|---" * (len(sizes) + 1) + "|"]
        for place, metric in enumerate(("accuracy", "NLL")):
            for row in ROWS:
                cells = []
                for scores in sizes.values():
                    values, base = (np.array(scores[each])[..., place].mean(axis=1) for each in (row, "all"))
                    _, low, high = interval((values - base).tolist())
                    cells.append(f"{values.mean():.3f}" + ("" if row == "all" else f" ({low:+.3f} to {high:+.3f})"))
                parts.append(f"| {metric}, {row} | " + " | ".join(cells) + " |")
        parts.append("")
    return "\n".join(parts)
