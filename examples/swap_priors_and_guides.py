"""What a prior and a guide change: the same fit with each of them, side by side.

A strategy is data, as in guides/*.toml; here it is changed in Python. The last two guides are Pyro's own: see
own_guide.py. They start with the same scale in every layer, while a strategy's initial scales depend on the fan-in.
So the package's guide is also fitted with one scale for all layers ("one width for all"), to compare them with.

    python examples/swap_priors_and_guides.py --epochs 12
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from bayes_panns.bayes import BayesianNet, Settings, Strategy
from bayes_panns.clips import ClipSet, Task, write
from bayes_panns.evaluations import compare
from bayes_panns.jobs import evaluate_posterior
from bayes_panns.posterior import Posterior
from bayes_panns.soundscapes.scenes import DOWNSTREAM, NOVEL, soundscapes
from bayes_panns.svi import METRICS, Features, Fit, FitSettings, read_metrics

RATE = 8000

STRATEGIES: dict[str, Strategy | str] = {
    "mean-field, fan-in prior": Strategy(),
    "Normal(0, 1) prior": Strategy(default=Settings(prior="normal")),
    "Laplace prior": Strategy(default=Settings(prior="laplace")),
    "wider posterior": Strategy(default=Settings(init_scale=0.3)),
    "one draw a batch": Strategy(default=Settings(estimator="weights")),
    "Monte Carlo dropout": Strategy(dropout="always", default=Settings(posterior="point")),
    "one width for all": "bayes_panns.bayes:MeanField",
    "stock AutoNormal": "own_guide:auto_normal",
    "low-rank head": "own_guide:low_rank_head",
}
"""Each differs from the first as its name says; the last two differ in their initial scales as well. A string names a
guide in Python."""

SHOWN = {
    "cls/accuracy": "accuracy",
    "cal/nll": "NLL",
    "cal/ece": "ECE",
    "unc/epistemic": "epistemic",
    "ood/auroc_mutual_information": "novel AUROC",
}


def store(path: Path, kinds: tuple[str, ...], clips: int, seed: int) -> Path:
    made = soundscapes(kinds, clips, seconds=0.5, sample_rate=RATE, events=(1, 1), seed=seed)
    write(path, made.waveform, made.target, made.labels, Task.ONE_OF_K, RATE)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=160)
    parser.add_argument("--held-out", type=int, default=160, help="and as many of kinds that no fit has heard")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--draws", type=int, default=12)
    parser.add_argument("--resamples", type=int, default=300, help="of the bootstrap")
    arguments = parser.parse_args()
    evaluations = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fitted = ClipSet(store(folder / "fit.h5", DOWNSTREAM, arguments.clips, seed=0))
        held = store(folder / "held.h5", DOWNSTREAM, arguments.held_out, seed=1)
        novel = store(folder / "novel.h5", NOVEL, arguments.held_out, seed=2)
        print(f"{'':<26}{'KL / nats':>12}" + "".join(f"{title:>13}" for title in SHOWN.values()) + f"{'s / epoch':>11}")
        for number, (title, strategy) in enumerate(STRATEGIES.items()):
            torch.manual_seed(0)
            posterior = Posterior.build(
                net="resnet14-narrow",
                labels=fitted.labels,
                task=fitted.task,
                sample_rate=RATE,
                clip_seconds=fitted.seconds_per_clip,
                strategy=strategy if isinstance(strategy, Strategy) else None,
                guide_function=strategy if isinstance(strategy, str) else None,
                clips=len(fitted),
            )
            assert isinstance(posterior.model, BayesianNet)
            out = folder / str(number)
            out.mkdir()
            data = Features(fitted, posterior.front_end, fitted.task)
            settings = FitSettings(
                epochs=arguments.epochs, batch_size=16, learning_rate=2e-3, kl_weight=1e-3, spec_augment=False
            )
            job = Fit(posterior.model, posterior.guide, data, settings, out)
            job.run()
            seconds = np.median([line["seconds"] for line in read_metrics(out / METRICS)])
            evaluations[title] = evaluate_posterior(posterior, [held], ood=[novel], draws=arguments.draws)
            values = "".join(f"{evaluations[title].metrics[key]:>13.3f}" for key in SHOWN)
            print(f"{title:<26}{job.metrics['kl']:>12.0f}{values}{seconds:>11.1f}", flush=True)

    (first, reference), *others = evaluations.items()
    print(f'\nWhat changed from "{first}", if the 95 % interval of the paired difference excludes 0:')
    for title, found in others:
        assert found.ood is not None
        assert reference.ood is not None
        both = (found.ood, reference.ood)
        differences = compare(
            *(found.uncertainty, reference.uncertainty, reference.target, "one-of-k", both),
            resamples=arguments.resamples,
        )
        clear = [
            f"{SHOWN[key]} {'higher' if differences[key].value > 0 else 'lower'} by {abs(differences[key].value):.3f} "
            f"({differences[key].low:+.3f} to {differences[key].high:+.3f})"
            for key in SHOWN
            if differences[key].low > 0 or differences[key].high < 0
        ]
        print(f"{title}: {'; '.join(clear) or 'nothing'}.")


if __name__ == "__main__":
    main()
