"""What a fit writes down at the end of each epoch."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path

from bayes_panns.bayes import BayesianNet, Part, effective_parameters
from bayes_panns.core import progress
from bayes_panns.ranks import group
from bayes_panns.svi.checkpoint import State
from bayes_panns.svi.metrics import METRICS, append_metrics, drop_metrics_after, effective_shares, widths
from bayes_panns.svi.settings import FitSettings
from bayes_panns.svi.stepper import Stepper
from bayes_panns.svi.width_report import WidthReport

logger = logging.getLogger(__name__)


class Epochs:
    """The lines of metrics of a fit; of several processes the first writes.

    Args:
        model: The model.
        guide: Its guide.
        settings: The settings of the fit.
        folder: Where ``metrics.jsonl`` is.
        report: Warns of layers at their prior; None to warn of none.
    """

    def __init__(
        self, model: BayesianNet, guide: Part, settings: FitSettings, folder: Path, report: WidthReport | None
    ) -> None:
        self._model, self._guide, self._settings, self._report = model, guide, settings, report
        self._path, self._first = folder / METRICS, group().first

    def start(self) -> None:
        """Begin a file of no lines."""
        if self._first:
            self._path.write_text("")

    def resume(self, state: State) -> None:
        """Drop the lines that a fit will write again.

        Raises:
            OSError: The file cannot be written.
        """
        if self._first:
            drop_metrics_after(self._path, state.step if state.unscored is None else state.step - 1)

    def measured(self, state: State, stepper: Stepper, *, epoch: float) -> dict[str, float]:
        """The line of an epoch whose last step is done, without what follows: its time and scores.

        Args:
            state: Where the fit is.
            stepper: What made the steps.
            epoch: How many passes over the clips are done.
        """
        running, natural = state.running, stepper.natural
        return {
            "epoch": round(epoch, 3),
            "step": state.step,
            "nll": running.mean,
            "kl": stepper.kl(),
            "kl_weight": stepper.kl_weight,
            "learning_rate": stepper.rate,
            **({} if natural is None else {"natural_learning_rate": natural.param_groups[0]["lr"]}),
            **({} if self._settings.clip_gradient is None else {"gradient_norm": running.norms / running.steps}),
            "seconds": math.nan,
        }

    def write(self, state: State, *, epoch: float) -> None:
        """Append the line of the epoch that has ended.

        Args:
            state: Where the fit is.
            epoch: How many passes over the clips are done.

        Raises:
            OSError: The disk is full.
        """
        effective = effective_parameters(self._model, self._guide)
        shares = effective_shares(effective)
        if self._first:
            append_metrics(self._path, state.metrics | widths(self._model, self._guide) | shares)
        if self._report is not None:
            self._report.warn_early(effective, done=state.step / state.steps, epoch=epoch)
        # A bar shows as much; a log has no bar.
        if not progress.visible():
            words = shown(state.metrics, nll=state.metrics["nll"], kl=state.metrics["kl"])
            logger.info(f"epoch {epoch:.4g} of {self._settings.epochs}: {words}, {state.metrics['seconds']:.1f} s")


def shown(metrics: Mapping[str, float], *, nll: float, kl: float) -> str:
    """What a reader sees of a fit.

    Args:
        metrics: The last line of metrics.
        nll: In nats a clip.
        kl: In nats; NaN if it is not known.
    """
    found = {"nll": f"{nll:.3f}"} | ({} if math.isnan(kl) else {"kl": f"{kl:.4g}"})
    found |= {name: f"{value:.3f}" for name, value in metrics.items() if name.startswith("val/")}
    return ", ".join(f"{name} {value}" for name, value in found.items())
