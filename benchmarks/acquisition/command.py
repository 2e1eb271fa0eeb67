"""The command ``python -m benchmarks acquisition``."""

import json
import logging
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from bayes_panns.clips import ClipSet
from bayes_panns.core.choices import Task
from bayes_panns.core.errors import BayesPannsError
from bayes_panns.svi import Embeddings
from benchmarks.acquisition.games import STRATEGIES, Data, play
from benchmarks.acquisition.tables import plot, summary, tables
from benchmarks.foundation_study.embedded import backbone
from benchmarks.messages import messages
from benchmarks.transfer_study.command import whole_numbers, write_and_show

logger = logging.getLogger(__name__)


@click.command("acquisition", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--data", "stores", required=True, multiple=True, type=click.Path(), help="A store with folds; repeatable."
)
@click.option("--from", "source", required=True, type=click.Path(), help="The network, imported.")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The folder of the study.")
@click.option("--seeds", callback=whole_numbers, metavar="N,...", default="0,1,2", show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="How often labels are added.")
@click.option("--budget", type=click.IntRange(min=1), default=20, show_default=True, help="How many each time.")
@click.option(
    "--tailed",
    multiple=True,
    type=click.Path(),
    help="A store to choose from with its classes thinned out, the rarest to a TAIL-th; repeatable.",
)
@click.option("--tail", type=click.FloatRange(min=1), default=20, show_default=True)
@click.option(
    "--strategy", "strategies", type=click.Choice(STRATEGIES), multiple=True, help="Only this one; repeatable [all]."
)
@click.option("--results", type=click.Path(path_type=Path), help="Write the results to RESULTS.json, .md and .png too.")
@click.option("--note", default="", help="What to say above the tables.")
def main(
    stores: tuple[str, ...],
    source: str,
    out: Path,
    seeds: list[int],
    rounds: int,
    budget: int,
    tailed: tuple[str, ...],
    tail: float,
    strategies: tuple[str, ...],
    results: Path | None,
    note: str,
) -> None:
    """Compare strategies of active learning with random clips, by learning curves of a Bayesian last layer.

    Every fold is held out in turn. After Ctrl-C, the same command continues.

    \b
    Example:
      python -m benchmarks acquisition --data stores/esc10.h5 --from mn04 -o runs/acquisition --seeds 0
    """
    try:
        with messages():
            sets = [
                *(read_store(store, source, None) for store in stores),
                *(read_store(store, source, tail) for store in tailed),
            ]
            games = _play(sets, strategies or STRATEGIES, seeds, out, rounds=rounds, budget=budget)
    except BayesPannsError as error:
        raise click.ClickException(str(error)) from error
    record = summary(games, note)
    places = [out / "results", *([results] if results else [])]
    write_and_show(record, tables(record), places)
    for place in places:
        plot(record, place.with_suffix(".png"))


def read_store(store: str, source: str, tail: float | None) -> Data:
    """The embeddings of a store's clips under the pooled features of an imported network.

    Args:
        store: The store.
        source: The posterior.
        tail: As for :class:`~benchmarks.acquisition.games.Data`.

    Raises:
        BayesPannsError: The store has no folds, or several labels a clip; or the two do not fit.
    """
    clips = ClipSet(store)
    if clips.task != Task.ONE_OF_K or clips.folds is None:
        raise BayesPannsError(f"{store}: needs folds, and one label a clip")
    posterior = backbone(source, clips)
    posterior.freeze(["backbone"])
    embedded = Embeddings(clips, posterior.model, Task.ONE_OF_K)
    name = Path(store).stem + ("" if tail is None else f"-tail{tail:g}")
    folds, labels = np.asarray(clips.folds), clips.target().argmax(axis=1)
    return Data(name, embedded.views[:, 0], labels, clips.recordings, folds, len(clips.labels), tail)


def _play(
    sets: Sequence[Data], strategies: Sequence[str], seeds: Sequence[int], out: Path, *, rounds: int, budget: int
) -> list[dict[str, Any]]:
    """The results of all games; those that were played before are read from ``out``."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "games.jsonl"
    whole = path.read_text(encoding="utf-8") if path.is_file() else ""
    # An interruption may have cut the last line.
    whole = whole[: whole.rfind("\n") + 1]
    path.write_text(whole, encoding="utf-8")
    known = {tuple(each["game"]): each for each in map(json.loads, whole.splitlines())}
    found = []
    # Seed by seed, so that an interrupted study has something of each.
    todo = [
        (each, fold, strategy, seed)
        for seed, each in product(seeds, sets)
        for fold in np.unique(each.fold).tolist()
        for strategy in strategies
    ]
    for number, (each, fold, strategy, seed) in enumerate(todo, 1):
        key = (each.name, strategy, fold, seed, rounds, budget)
        if key not in known:
            line = {"game": key, **play(each, strategy, fold, seed, rounds=rounds, budget=budget)}
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            known[key] = line
            last = f"accuracy {line['accuracy'][-1]:.3f}"
            logger.info(f"[{number}/{len(todo)}] {each.name}, fold {fold}, seed {seed}, {strategy}: {last}")
        found.append(known[key])
    return found
