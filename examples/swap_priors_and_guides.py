"""What a prior and a posterior's first width do: the same fit under each, side by side.

A strategy is data, the same that guides/*.toml hold; here it is changed in Python.

    python examples/swap_priors_and_guides.py --epochs 6
"""

import argparse
import tempfile
from pathlib import Path

from bayes_panns.audio.soundscapes import DOWNSTREAM, NOVEL, soundscapes
from bayes_panns.bayes import BayesianNet, Settings, Strategy
from bayes_panns.clips import ClipSet, Task, write
from bayes_panns.posterior import Posterior
from bayes_panns.svi import Features, Fit, FitSettings
from bayes_panns.workflow import evaluate_posterior

RATE = 8000

STRATEGIES = {
    "fan-in prior": Strategy(),
    "Normal(0, 1) prior": Strategy(default=Settings(prior="normal")),
    "Laplace prior": Strategy(default=Settings(prior="laplace")),
    "wider posterior": Strategy(default=Settings(init_scale=0.3)),
    "one draw a batch": Strategy(default=Settings(estimator="weights")),
    "Monte Carlo dropout": Strategy(dropout="always", default=Settings(posterior="point")),
}


def store(path: Path, kinds: tuple[str, ...], clips: int, seed: int) -> Path:
    made = soundscapes(kinds, clips, seconds=1.0, sample_rate=RATE, events=(1, 1), seed=seed)
    write(path, made.waveform, made.target, made.labels, Task.ONE_OF_K, RATE)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=160)
    parser.add_argument("--held-out", type=int, default=80)
    parser.add_argument("--epochs", type=int, default=6)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fitted = ClipSet(store(folder / "fit.h5", DOWNSTREAM, arguments.clips, seed=0))
        held = store(folder / "held.h5", DOWNSTREAM, arguments.held_out, seed=1)
        novel = store(folder / "novel.h5", NOVEL, arguments.held_out, seed=2)
        print(f"{'':<22}{'KL / nats':>12}{'accuracy':>10}{'NLL':>8}{'epistemic':>11}{'novel AUROC':>13}")
        for number, (title, strategy) in enumerate(STRATEGIES.items()):
            posterior = Posterior.build(
                net="resnet14-narrow",
                labels=fitted.labels,
                task=fitted.task,
                sample_rate=RATE,
                clip_seconds=1.0,
                strategy=strategy,
                clips=len(fitted),
            )
            assert isinstance(posterior.model, BayesianNet)
            out = folder / str(number)
            out.mkdir()
            data = Features(fitted, posterior.front_end, fitted.task)
            settings = FitSettings(epochs=arguments.epochs, batch_size=16, kl_weight=1e-3, spec_augment=False)
            job = Fit(posterior.model, posterior.guide, data, settings, out)
            job.run()
            metrics = evaluate_posterior(posterior, [held], ood=[novel], draws=10).metrics
            print(
                f"{title:<22}{job.metrics['kl']:>12.0f}{metrics['cls/accuracy']:>10.2f}{metrics['cal/nll']:>8.2f}"
                f"{metrics['unc/epistemic']:>11.4f}{metrics['ood/auroc_mutual_information']:>13.2f}"
            )


if __name__ == "__main__":
    main()
