"""What the processes of a fit check together, and how the fit ends where they do not agree or one of them is lost."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bayes_panns.core.errors import FitError, LostProcessError
from bayes_panns.ranks import group
from bayes_panns.svi.checkpoint import State
from bayes_panns.svi.fit_checkpoints import FitCheckpoints
from bayes_panns.svi.guards import diverged, first_not_finite
from bayes_panns.svi.moments import Moment, unlike
from bayes_panns.svi.reading import NotFiniteError
from bayes_panns.svi.settings import FitSettings
from bayes_panns.svi.stepper import Stepper


class Agreement:
    """That the state of a fit is finite, and the same in all its processes.

    Args:
        stepper: What makes the steps.
        checkpoints: The checkpoints of the fit.
        settings: Its settings.
        batches: How many steps a pass over the clips takes.
        device: Where it computes.
    """

    def __init__(
        self,
        stepper: Stepper,
        checkpoints: FitCheckpoints,
        settings: FitSettings,
        batches: int,
        device: torch.device,
    ) -> None:
        self._stepper, self._checkpoints, self._settings = stepper, checkpoints, settings
        self._batches, self._device, self._group = batches, device, group()
        self._before: Moment | None = None

    def remember(self) -> None:
        """Note what the next step changes before all processes have agreed on it."""
        self._before = Moment.of(self._stepper.objective, self._device)

    def forget(self) -> None:
        """Forget it: there is nothing to go back to."""
        self._before = None

    def require(self, step: int) -> None:
        """Check that the state is finite, and the same in all processes; all must call it.

        Args:
            step: How many steps are done.

        Raises:
            FitError: It is not.
        """
        objective = self._stepper.objective
        bad = first_not_finite(objective, gradients=False) is not None
        if self._group.any(bad)[0]:
            raise self.diverged("weights are no longer finite", step, here=bad)
        differs = unlike(objective, self._device, self._group)
        if differs is not None:
            raise FitError(
                f"step {step}: the processes have different values of {differs}; their machines, or versions of "
                f"torch, may differ; the last good checkpoint is {self._checkpoints.last}"
            )

    @contextmanager
    def finite(self, step: int) -> Iterator[None]:
        """A block that ends the fit if the loss of a step, or the norm of its gradient, is not finite.

        Args:
            step: How many steps are done.

        Raises:
            FitError: It is not.
        """
        try:
            yield
        except NotFiniteError as error:
            raise self.diverged(str(error), error.step) from error
        except FloatingPointError as error:
            raise self.diverged(str(error), step) from error

    def diverged(self, what: str, step: int, *, here: bool | None = None) -> FitError:
        """The end of a fit in which something is not finite; see :func:`~bayes_panns.svi.guards.diverged`.

        Args:
            what: What.
            step: When.
            here: Whether it comes from this process; by default, whether the loss does.
        """
        return diverged(
            what,
            self._stepper.objective,
            self._settings,
            step=step,
            epoch=step / self._batches,
            here=not self._stepper.finite_here if here is None else here,
            natural=self._stepper.natural is not None,
            checkpoint=self._checkpoints.last if self._checkpoints.exist else None,
        )

    def left_alone(self, state: State) -> LostProcessError:
        """Keep what can be kept after another process has ended.

        Args:
            state: Where the fit is.

        Returns:
            The error that says so.
        """
        last = self._checkpoints.last
        kept = f"the last checkpoint is {last}" if self._checkpoints.exist else "there is no checkpoint"
        if self._before is not None:
            self._before.restore(self._stepper.objective)
            if self._group.first:
                self._checkpoints.save(state, wait=True)
                kept = f"{last} has the steps before it" if state.step else f"{last} is its start"
        return LostProcessError(
            f"step {state.step} (epoch {state.step / self._batches:.1f}): another process has ended, so the fit ends; "
            f"{kept}; resume with --resume"
        )
