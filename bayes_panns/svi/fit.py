"""One fit by stochastic variational inference, from its first step or from a checkpoint."""

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyro
import torch
from torch import Tensor

from bayes_panns.bayes import BayesianNet, Part
from bayes_panns.core import choices, progress
from bayes_panns.ranks import group, lost, own_dropout, synchronised_batch_norm
from bayes_panns.svi.agreement import Agreement
from bayes_panns.svi.batches import HELD_OUT, Batches
from bayes_panns.svi.checkpoint import State
from bayes_panns.svi.embeddings import Embeddings
from bayes_panns.svi.epochs import Epochs, shown
from bayes_panns.svi.features import Features
from bayes_panns.svi.fit_checkpoints import FitCheckpoints, backbone_names
from bayes_panns.svi.interrupts import Interrupts, Stop, interruptible, note_stop
from bayes_panns.svi.loader import workers_for
from bayes_panns.svi.schedules import kl_warmup, learning_rate
from bayes_panns.svi.settings import FitSettings, Running
from bayes_panns.svi.step_memory import state_memory
from bayes_panns.svi.stepper import Stepper
from bayes_panns.svi.time_limit import TimeLimit
from bayes_panns.svi.validation import validate
from bayes_panns.svi.width_report import WidthReport
from bayes_panns.svi.widths import log_widths, start_widths

logger = logging.getLogger(__name__)


class Fit:
    """A fit of a guide to labelled clips.

    Maximises the ELBO with :class:`~bayes_panns.svi.MeanFieldELBO` and one fused Adam over the parameters of model and
    guide; with ``settings.optimizer = "natural-gradient"`` the mean-field Normals are fitted by
    :class:`~bayes_panns.svi.NaturalGradient` instead. A guide that has none, such as one of points, is left to Adam.

    Each epoch appends a line to ``metrics.jsonl`` (NLL in nats a clip, KL in nats, the KL's weight, learning
    rate, seconds, validation metrics; for each parameter its width and how much of it the data determine). Checkpoints
    are written meanwhile: see :mod:`bayes_panns.svi.checkpoint_writer`. Ctrl-C, SIGTERM, SIGUSR1, SIGUSR2 and the time
    limit end the fit after the current step, or the current batch of a validation, which is then made again by the
    resumed fit. At its end a fit logs how many weights the data determine, and warns of a posterior that is all prior
    or all start.

    Args:
        model: The model; its ``clips`` is the size of ``data``.
        guide: Its guide; any other Pyro guide as a :class:`~bayes_panns.bayes.CustomGuide`. Parameters that require no
            gradient stay as they are.
        data: The clips to fit, as ``settings.features`` says.
        settings: How.
        folder: Where the metrics and the checkpoint go.
        validation: Clips that are scored at the posterior mean after each epoch, and never trained on.
        device: Where to compute.
        running: How it runs on this machine.
        widen: A factor on the widths of the mean-field Normals at the start of the fit, whatever they started from. It
            is for a second fit that shows how much of the first one's widths is the start; such a fit logs nothing at
            its end.

    Raises:
        FitError: No parameter requires a gradient.
        ValueError: The data are not what ``settings.features`` says.
    """

    def __init__(
        self,
        model: BayesianNet,
        guide: Part,
        data: Features | Embeddings,
        settings: FitSettings,
        folder: Path,
        *,
        validation: Features | Embeddings | None = None,
        device: torch.device | str = "cpu",
        running: Running | None = None,
        widen: float = 1.0,
    ):
        self._embedded = settings.features == choices.Features.EMBEDDINGS
        if any(clips.embedded != self._embedded for clips in (data, validation) if clips is not None):
            raise ValueError(f"settings.features is {settings.features}, but the data are something else")
        self.model, self.guide = model.to(device), guide.to(device)
        self.data, self.validation = data, validation
        self.settings, self.folder, self.running = settings, folder, running or Running()
        self.device = torch.device(device)
        self._widen = widen
        self._group = group()
        self._batches = Batches(data, settings, validation)
        self._state = State(settings.epochs * self._batches.an_epoch, backbone=getattr(data, "backbone", None))
        self.stopped: Stop | None = None
        """What ended it early, if something did."""
        self._nll = self._kl = math.nan
        self._loader = self._batches.loader(self.device)
        self._drop_at: Callable[[int], None] = lambda step: None
        # A guide that builds itself from a run of the model does so here, in eval mode: BatchNorm must not move.
        self.model.eval()
        with torch.no_grad():
            self.guide(*data.batch(torch.arange(1), self.device), embedded=self._embedded)
        self._stepper = Stepper(self.model, self.guide, settings, clips=len(data), embedded=self._embedded)
        self._objective, self._optimizers = self._stepper.objective, self._stepper.optimizers
        self._checkpoints = FitCheckpoints(
            folder,
            self._objective,
            self._optimizers,
            # The backbone whose embeddings are fitted: most of the state by far.
            fixed=backbone_names(self._objective, self.model) if self._embedded else frozenset(),
            device=self.device,
            minutes=self.running.checkpoint_minutes,
        )
        self._agreement = Agreement(self._stepper, self._checkpoints, settings, self._batches.an_epoch, self.device)
        self._report = None if widen != 1 else WidthReport(self.model, self.guide, settings)
        self._epochs = Epochs(self.model, self.guide, settings, folder, self._report)
        self._limit = TimeLimit(
            self.running,
            validation=0 if validation is None else -(-len(validation) // settings.batch_size),
            # Adam keeps two numbers beside each.
            size=3 * sum(each.nbytes for each in self._objective.parameters()),
        )

    @property
    def step(self) -> int:
        """How many steps are done."""
        return self._state.step

    @property
    def steps(self) -> int:
        """How many steps the fit has."""
        return self._state.steps

    @property
    def epoch(self) -> float:
        """How many passes over the clips are done."""
        return self.step / self._batches.an_epoch

    @property
    def metrics(self) -> dict[str, float]:
        """The last line of metrics."""
        return self._state.metrics

    @property
    def kl_weight(self) -> float:
        """The weight of the KL, after its warm-up."""
        return self.settings.kl_weight

    @property
    def workers(self) -> int:
        """How many processes read clips ahead, if they are not in memory."""
        return workers_for(self.running, self.settings.features, self.device)

    @property
    def checkpointed(self) -> bool:
        """Whether the folder holds a checkpoint."""
        return self._checkpoints.exist

    def run(self) -> bool:
        """Fit until the last epoch is done.

        Returns:
            False if a signal or the time limit ended it early, as :attr:`stopped` says; the checkpoint then holds where
            it stopped.

        Raises:
            FitError: The loss or a weight is no longer finite; the checkpoint is the last good one.
            OSError: Metrics or a checkpoint could not be written, such as to a full disk.
        """
        if self.step == 0:
            torch.manual_seed(self.settings.seed)
            start_widths(
                self.model,
                self.guide,
                self.data,
                self.settings,
                factor=self._widen,
                device=self.device,
                workers=self.workers,
            )
            self._state.start = log_widths(self.guide)
            self._stepper.bounds.start()
            self._state.limits = self._stepper.bounds.limits
            self._epochs.start()
        settings, size = self.settings, self._group.size
        state_memory(self._objective, self._optimizers, self.data, settings, processes=size, device=self.device)
        self._stepper.join()
        with (
            interruptible() as interrupts,
            self._checkpoints.writer,
            warnings.catch_warnings(),
            synchronised_batch_norm(self.model, self._group),
            own_dropout(self.model, settings.seed, own=size * settings.accumulate > 1) as self._drop_at,
            # The loss is checked at each step; Pyro's validation would read every weight again.
            pyro.validation_enabled(False),
            progress.task("fitting", total=self.steps, unit="step", done=self.step) as bar,
            self._batches.loader(self.device, self._state, self.workers) as self._loader,
        ):
            # A NaN raises an error here that names the step; Pyro would warn as well.
            warnings.filterwarnings("ignore", message="Encountered NaN")
            self._objective.train()
            self.stopped = None
            try:
                self._train(interrupts, bar)
                if self.stopped is not None:
                    self.save_checkpoint()
            except RuntimeError as error:
                if not lost(error):
                    raise
                self._collect_norms()
                raise self._agreement.left_alone(self._state) from error
            finally:
                self._stepper.part()
        complete = self.stopped is None
        note_stop(self.stopped)
        if complete and self._report is not None:
            self._report.conclude(self._state.start, self._stepper.bounds.at_upper())
        self.model.eval()
        return complete

    def _train(self, interrupts: Interrupts, bar: progress.ProgressTask) -> None:
        """Make steps until the fit is done or to end; write metrics at the end of each epoch, and checkpoints."""
        state = self._state
        if state.unscored is not None:
            # As the first step of a fit always is, what was cut short is made up for whatever the time limit.
            self._end_epoch(interrupts, limited=False)
        while state.step < state.steps and self.stopped is None:
            # Before the first exchange since the last step: a process that is lost from here on has changed nothing.
            if self._group.size > 1:
                self._agreement.remember()
            self.stopped, overdue = self._asked(interrupts)
            if overdue:
                self.save_checkpoint(wait=False)
            if self.stopped is not None:
                return
            started = time.monotonic()
            nll = self._step(self._batches.index(state.step))
            state.running.seconds += time.monotonic() - started
            bar.advance()
            if self._batches.ends_epoch(state.step):
                # Until the epoch has ended, only the last checkpoint is whole.
                self._agreement.forget()
                self._measure_epoch()
                self._end_epoch(interrupts)
            bar.show(shown(self.metrics, nll=nll, kl=self._kl))

    def _asked(self, interrupts: Interrupts) -> tuple[Stop | None, bool]:
        """Why to stop before the next step, if so, and whether a checkpoint is overdue; all processes agree on both."""
        writer = self._checkpoints.writer
        writer.check()
        late = self._limit.reached(ends_epoch=self._batches.ends_epoch(self.step + 1), checkpoint=writer.seconds)
        *stops, overdue = self._group.any(*interrupts.flags(out_of_time=late), self._group.first and writer.overdue)
        return Stop.first_of(stops), overdue

    def _step(self, index: Tensor) -> float:
        """One gradient step on the clips at ``index``.

        Returns:
            The NLL, in nats a clip: that of the last step that was read, NaN before there is one. On a GPU it is of a
            step before this one.
        """
        settings = self.settings
        self._drop_at(self.step)
        with self._agreement.finite(self.step):
            self._stepper.step(
                self._batches.take(index, self._loader, self._state),
                rate=learning_rate(self.step, self.steps, settings.schedule),
                kl_weight=settings.kl_weight * kl_warmup(self.step, round(settings.kl_warmup * self._batches.an_epoch)),
                number=self.step,
            )
        self._state.step += 1
        self._read()
        return self._nll

    def _read(self, *, wait: bool = False) -> None:
        """Count what is known by now of the steps made; ``wait`` for all of it."""
        with self._agreement.finite(self.step):
            readings = self._stepper.read(wait=wait)
        for reading in readings:
            self._state.running.add(reading.nll)
            self._nll = reading.nll
            self._kl = self._kl if math.isnan(reading.kl) else reading.kl

    def _measure_epoch(self) -> None:
        """Note what the line of metrics says of the epoch's steps."""
        state, started = self._state, time.monotonic()
        if waiting := self._loader.waiting():
            logger.info(waiting)
        self._read(wait=True)
        self._collect_norms()
        state.unscored = self._epochs.measured(state, self._stepper, epoch=self.epoch)
        self._kl = state.unscored["kl"]
        state.running.seconds += time.monotonic() - started

    def _end_epoch(self, interrupts: Interrupts, *, limited: bool = True) -> None:
        """Score the validation clips, append a line of metrics and write a checkpoint, unless a stop comes before.

        Args:
            interrupts: What signals ask for.
            limited: Whether the time limit is a reason to stop.
        """
        state, started = self._state, time.monotonic()
        late = self._limit.within_validation(self._checkpoints.writer.seconds) if limited else lambda: False

        def stopped() -> bool:
            self.stopped = Stop.first_of(self._group.any(*interrupts.flags(out_of_time=late())))
            return self.stopped is not None

        scores = {} if self.validation is None else self.validate(stopped)
        state.running.seconds += time.monotonic() - started
        if scores is None:
            return
        state.end_epoch(scores)
        self._epochs.write(state, epoch=self.epoch)
        self._require_sound()
        if self._checkpoints.wanted(state):
            self._checkpoints.save(state, wait=False)

    def _collect_norms(self) -> None:
        if self._stepper.clip is not None:
            # One by one, so that the sum does not depend on where a fit was stopped.
            for norm in self._stepper.clip.taken():
                self._state.running.norms += norm

    def validate(self, stopped: Callable[[], bool] = lambda: False) -> dict[str, float] | None:
        """Score the validation clips; see :func:`~bayes_panns.svi.validation.validate`."""
        assert self.validation is not None, "there are no validation clips"
        training = self.model.training
        with self.model.computing_in(self.settings.precision):
            scores = validate(
                self.model,
                self.guide,
                self.validation,
                batch_size=self.settings.batch_size,
                device=self.device,
                read=lambda index: self._loader.batch(index, of=HELD_OUT),
                stopped=stopped,
            )
        self.model.train(training)
        return scores

    def save_checkpoint(self, *, wait: bool = True) -> None:
        """Write a checkpoint in place of the last one, whole or not at all; of several processes the first writes.

        Args:
            wait: Whether to wait until it is written.

        Raises:
            FitError: A parameter is not finite, or the processes have come apart; the last checkpoint is left as it is.
            OSError: This one, or the one before, could not be written.
        """
        self._require_sound()
        self._collect_norms()
        self._checkpoints.save(self._state, wait=wait)

    def _require_sound(self) -> None:
        self._read(wait=True)
        self._agreement.require(self.step)

    def load_checkpoint(self) -> None:
        """Continue from the folder's checkpoint; the fit then runs as if it had never stopped.

        If the last checkpoint is damaged, the one before it is taken, with a warning. All processes read the one that
        the first has written, since their random states are equal. So there may be another number of them than before.

        Raises:
            FitError: There is none, it is damaged, or it belongs to another fit.
        """
        self._state = self._checkpoints.load(self._state)
        self._stepper.bounds.resume(self._state.limits)
        self._epochs.resume(self._state)

    @contextmanager
    def at_best(self) -> Iterator[bool]:
        """The fit as it was at the end of its best epoch, in this block.

        Yields:
            Whether it is. False if the best epoch is the last, there are no validation clips, or its checkpoint is
            lost, which is logged.
        """
        last = self._state
        with self._checkpoints.best(last) as best:
            self._state = best or last
            try:
                yield best is not None
            finally:
                self._state = last
