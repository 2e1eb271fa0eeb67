"""What a fit says of its own posterior: how much of it is the data's, and warnings of layers that are not."""

import logging
from collections.abc import Mapping

from bayes_panns.bayes import BayesianNet, EffectiveParameters, Part, effective_parameters
from bayes_panns.core.choices import Optimizer, WidthStart
from bayes_panns.svi.settings import FitSettings
from bayes_panns.svi.widths import (
    LogWidths,
    bound_warning,
    log_widths,
    prior_warning,
    start_warning,
    trained_log_scales,
)

logger = logging.getLogger(__name__)


class WidthReport:
    """Logs what the widths of a fit show, during it and at its end.

    Args:
        model: The model.
        guide: Its guide.
        settings: The settings of the fit.
    """

    def __init__(self, model: BayesianNet, guide: Part, settings: FitSettings) -> None:
        self._model, self._guide, self._settings = model, guide, settings
        self._warned = False

    def warn_early(self, effective: EffectiveParameters, *, done: float, epoch: float) -> None:
        """Warn once of layers that are at their prior, while much of the fit is left and widths say something.

        Args:
            effective: The effective parameters now.
            done: The part of the fit that is done.
            epoch: How many passes over the clips are done.
        """
        if self._warned or not 0.1 <= done < 0.5:
            return
        warning = prior_warning(effective, trained_log_scales(self._guide, rotated=False))
        if warning is not None:
            logger.warning(f"epoch {epoch:.4g} of {self._settings.epochs}: {warning}")
            self._warned = True

    def conclude(self, start: LogWidths | None, at_upper: Mapping[str, float]) -> None:
        """Say how much of the posterior is the data's.

        Args:
            start: Where the widths started; None if that is not known.
            at_upper: The share of each tensor's widths that are at their upper bound.
        """
        effective, end = effective_parameters(self._model, self._guide), log_widths(self._guide)
        if effective.by_parameter:
            logger.info(str(effective.total))
        found = [bound_warning(at_upper, self._settings), prior_warning(effective, end)]
        # The others infer widths, which may then be where they started because that is where they belong.
        guessed = self._settings.optimizer == Optimizer.ADAM and self._settings.start == WidthStart.GUIDE
        if guessed and start is not None:
            weights = {name: values.numel() for name, values in trained_log_scales(self._guide).items()}
            found.append(start_warning(start, end, weights))
        for warning in found:
            if warning is not None:
                logger.warning(warning)
