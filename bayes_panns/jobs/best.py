"""The posterior of a fit's best epoch, beside that of its last."""

import logging
import shutil
from collections.abc import Callable

from bayes_panns.jobs.run_folder import RunFolder
from bayes_panns.posterior import Posterior, save
from bayes_panns.svi import Fit

logger = logging.getLogger(__name__)


def save_best(job: Fit, posterior: Posterior, run: RunFolder, describe: Callable[[], None]) -> None:
    """Save the posterior of the epoch with the lowest ``val/nll`` in ``best/`` of the run, if that is not the last.

    Else ``best/`` of an earlier fit of the run is removed: ``posterior/`` is then the best.

    Args:
        job: The fit, at its end.
        posterior: Its posterior, whose weights are the fit's.
        run: The run's folder.
        describe: Makes metrics and provenance of the posterior those of where the fit is.

    Raises:
        OSError: The folder cannot be written.
    """
    epoch = job.epoch
    with job.at_best() as found:
        if found:
            describe()
            nll = job.metrics["val/nll"]
            posterior.provenance["best"] = {"epoch": round(job.epoch, 3), "of": round(epoch, 3), "val/nll": nll}
            save(posterior, run.best)
            logger.info(f"the best epoch is {job.epoch:.4g} of {epoch:.4g} (val/nll {nll:.4f}): saved in {run.best}")
        elif run.best.is_dir():
            shutil.rmtree(run.best)
