"""One fit by stochastic variational inference, from its first step or from a checkpoint."""

import json
import logging
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

import pyro
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from sklearn.metrics import average_precision_score
from torch import Tensor, nn
from torch.nn import functional as F

from bayes_panns.audio.augment import Mixup, SpecAugment
from bayes_panns.bayes import BayesianNet, MeanField, logits_under, mean_weights
from bayes_panns.clips import Sampler, Task
from bayes_panns.core import progress
from bayes_panns.core.errors import FitError
from bayes_panns.core.files import whole_file
from bayes_panns.nets import HEAD
from bayes_panns.svi.elbo import MeanFieldELBO
from bayes_panns.svi.embeddings import Embeddings
from bayes_panns.svi.features import Features
from bayes_panns.svi.schedules import kl_warmup, learning_rate

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"


class FitSettings(BaseModel):
    """The settings of a fit: the table ``[fit]`` of a run recipe.

    Attributes:
        epochs: Passes over the clips; of a sampling that is not random, steps enough to show as many.
        steps_per_epoch: Steps after which metrics and a checkpoint are written; by default one pass.
        batch_size: Clips a step.
        sampling: Which clips: ``random``, each once an epoch; ``balanced``, labels equally often, as in PANNs; or
            ``alternate``, a batch of these and one of those. See :class:`~bayes_panns.clips.Sampler`.
        learning_rate: Adam's peak step size.
        schedule: ``cosine``: half a cosine down to 0; ``constant``.
        kl_weight: The weight of the KL: 1 is the ELBO, below it a tempered posterior.
        kl_warmup: Epochs over which the KL's weight rises from 0.
        spec_augment: Whether to mask stripes of the spectrograms.
        mixup: Whether to mix pairs of clips and their targets.
        features: What a step starts from: log-mels, kept in ``memory`` or on ``disk``, or ``none`` of them kept; or
            ``embeddings`` of a frozen backbone, computed once and kept beside the store.
        views: With ``embeddings``, how many views of each clip a step may take beside the clip itself: embeddings of
            its spectrogram under SpecAugment's stripes, computed once a fit.
        seed: Seeds the initial weights, the order of clips, augmentation and draws.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    epochs: Annotated[int, Field(ge=1)] = 30
    steps_per_epoch: Annotated[int, Field(ge=1)] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 32
    sampling: Literal["random", "balanced", "alternate"] = "random"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    schedule: Literal["constant", "cosine"] = "cosine"
    kl_weight: Annotated[float, Field(ge=0)] = 1.0
    kl_warmup: Annotated[float, Field(ge=0)] = 0.0
    spec_augment: bool = True
    mixup: bool = False
    features: Literal["memory", "disk", "none", "embeddings"] = "memory"
    views: Annotated[int, Field(ge=0)] = 0
    seed: Annotated[int, Field(ge=0, lt=2**40)] = 0

    @field_validator("features")
    @classmethod
    def _embeddings_stay_as_they_are(cls, features: str, fields: ValidationInfo) -> str:
        asked = [name for name in ("spec_augment", "mixup") if fields.data.get(name)]
        if features == "embeddings" and asked:
            wanted = " and ".join(f"fit.{name} = false" for name in asked)
            raise PydanticCustomError(
                "augmented", "Embeddings are computed once and not augmented; set {wanted}", {"wanted": wanted}
            )
        return features

    @field_validator("views")
    @classmethod
    def _views_are_embeddings(cls, views: int, fields: ValidationInfo) -> int:
        if views and fields.data.get("features") != "embeddings":
            raise PydanticCustomError("views", 'Views are of embeddings; set fit.features = "embeddings"')
        return views


class Fit:
    """A fit of a guide to labelled clips.

    Maximises the ELBO with :class:`~bayes_panns.svi.elbo.MeanFieldELBO` and one fused Adam over the parameters of model
    and guide. Each epoch appends a line to ``metrics.jsonl`` (NLL in nats a clip, KL in nats, the KL's weight, learning
    rate, seconds, validation metrics) and writes a checkpoint. Ctrl-C ends it after the step under way.

    Args:
        model: The model; its ``clips`` is the size of ``data``.
        guide: Any Pyro guide of it that is a module and has ``median()``; what requires no gradient stays as it is.
        data: The clips to fit, as ``settings.features`` says.
        settings: How.
        folder: Where the metrics and the checkpoint go.
        validation: Clips that are scored at the posterior mean after each epoch, and never trained on.
        device: Where to compute.
    """

    def __init__(
        self,
        model: BayesianNet,
        guide: nn.Module,
        data: Features | Embeddings,
        settings: FitSettings,
        folder: Path,
        *,
        validation: Features | Embeddings | None = None,
        device: torch.device | str = "cpu",
    ):
        self._embedded = settings.features == "embeddings"
        if any(clips.embedded != self._embedded for clips in (data, validation) if clips is not None):
            raise ValueError(f"settings.features is {settings.features}, and the data are of another kind")
        self.model, self.guide = model.to(device), guide.to(device)
        self.data, self.validation = data, validation
        self.settings, self.folder = settings, folder
        self.device = torch.device(device)
        self.step = 0
        self.metrics: dict[str, float] = {}
        self._sampler = Sampler(data.target, settings.batch_size, sampling=settings.sampling, seed=settings.seed)
        self._batches = self._sampler.batches
        self.steps = settings.epochs * self._batches
        self._elbo = MeanFieldELBO()
        # Guides that build themselves from a run of the model do so here, in eval mode: BatchNorm must not move.
        self.model.eval()
        with torch.no_grad():
            self.guide(*data.batch(torch.arange(1), self.device), embedded=self._embedded)
        self._objective = self._elbo(self.model, self.guide)
        parameters = [parameter for parameter in self._objective.parameters() if parameter.requires_grad]
        if not parameters:
            raise FitError("there is nothing to train: every part of the network is frozen")
        self._optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate, fused=True)

    @property
    def epoch(self) -> float:
        """How many passes over the clips are done."""
        return self.step / self._batches

    def run(self) -> bool:
        """Fit until the last epoch is done.

        Returns:
            False where Ctrl-C or SIGTERM ended it early; the checkpoint then stands where it stopped.

        Raises:
            FitError: The loss or a weight is no longer finite; the checkpoint is the last good one.
        """
        if self.step == 0:
            torch.manual_seed(self.settings.seed)
            (self.folder / METRICS).write_text("")
        marks = self.settings.steps_per_epoch or self._batches
        total, since = {"nll": 0.0, "steps": 0.0}, time.monotonic()
        with (
            _interruptible() as interrupted,
            warnings.catch_warnings(),
            # The loss is checked at each step; Pyro's validation would read every weight again.
            pyro.validation_enabled(False),
            progress.task("fitting", total=self.steps, unit="step", done=self.step) as bar,
        ):
            # A NaN is an error here, told with its step; Pyro's warning would come on top.
            warnings.filterwarnings("ignore", message="Encountered NaN")
            self._objective.train()
            for index in self._order():
                nll = self._step(index)
                total = {"nll": total["nll"] + nll, "steps": total["steps"] + 1}
                bar.advance()
                if self.step % marks == 0 or self.step == self.steps:
                    self._record(total["nll"] / total["steps"], time.monotonic() - since)
                    total, since = {"nll": 0.0, "steps": 0.0}, time.monotonic()
                    self.save_checkpoint()
                bar.show(", ".join(f"{name} {value}" for name, value in self._shown(nll).items()))
                if interrupted():
                    break
        if self.step < self.steps:
            self.save_checkpoint()
        self.model.eval()
        return self.step == self.steps

    def _order(self) -> Iterator[Tensor]:
        """The batches still to come."""
        while self.step < self.steps:
            yield self._sampler.batch(self.step)

    def _step(self, index: Tensor) -> float:
        settings = self.settings
        clips, target = self.data.batch(index, self.device)
        augmentations: list[Callable[[Tensor], Tensor]] = [SpecAugment()] if settings.spec_augment else []
        if settings.mixup:
            mixup = Mixup.draw(len(index))
            augmentations.append(mixup)
            soft = target if target.is_floating_point() else F.one_hot(target, self._classes()).float()
            target = mixup(soft)
        rate = settings.learning_rate * learning_rate(self.step, self.steps, settings.schedule)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        warmup = round(settings.kl_warmup * self._batches)
        self._elbo.kl_weight = settings.kl_weight * kl_warmup(self.step, warmup)
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._objective(clips, target, augment=_chain(augmentations), embedded=self._embedded) / len(self.data)
        nll = float(self._elbo.nll) / len(self.data)
        if not math.isfinite(loss.item()):
            raise self._diverged(f"the loss is {loss.item()} (NLL {nll} a clip, KL {float(self._elbo.kl)} nats)")
        loss.backward()
        self._optimizer.step()
        self.step += 1
        return nll

    def _classes(self) -> int:
        return len(self.data.clips.labels)

    def _diverged(self, what: str) -> FitError:
        kept = f"the last good checkpoint is {self.folder / CHECKPOINT}" if self.checkpointed else "no checkpoint yet"
        return FitError(
            f"step {self.step} (epoch {self.epoch:.1f}): {what}; try a lower fit.learning_rate (it is "
            f"{self.settings.learning_rate:g}), a longer fit.kl_warmup or smaller init_scale; {kept}"
        )

    def _record(self, nll: float, seconds: float) -> None:
        self.metrics = {
            "epoch": round(self.epoch, 3),
            "step": self.step,
            "nll": nll,
            "kl": float(self._elbo.kl),
            "kl_weight": self._elbo.kl_weight,
            "learning_rate": self._optimizer.param_groups[0]["lr"],
            "seconds": round(seconds, 3),
        }
        if self.validation is not None:
            self.metrics |= self.validate()
            self._objective.train()
        with (self.folder / METRICS).open("a") as file:
            file.write(json.dumps(self.metrics | self._scales() | self._prior_scales()) + "\n")
        shown = ", ".join(f"{name} {value}" for name, value in self._shown(nll).items())
        # A bar shows as much; a log has no bar.
        if not progress.visible():
            logger.info(f"epoch {self.epoch:.4g} of {self.settings.epochs}: {shown}, {seconds:.1f} s")

    @torch.no_grad()
    def _scales(self) -> dict[str, float]:
        """The geometric mean of each weight's posterior scales, as ``scale/<parameter>``."""
        if not isinstance(self.guide, MeanField):
            return {}
        return {
            f"scale/{site.removeprefix('net.')}": scale.log().mean().exp().item()
            for site, (_, scale) in self.guide.gaussians().items()
        }

    @torch.no_grad()
    def _prior_scales(self) -> dict[str, float]:
        """The same of each prior whose width is learned, as ``prior/<parameter>``."""
        return {
            f"prior/{site.removeprefix('net.')}": self.model.prior(site).variance.log().mean().div(2).exp().item()
            for site in self.model.learned
        }

    def _shown(self, nll: float) -> dict[str, str]:
        shown = {"nll": f"{nll:.3f}", "kl": f"{float(self._elbo.kl):.4g}"}
        return shown | {name: f"{value:.3f}" for name, value in self.metrics.items() if name.startswith("val/")}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """NLL (nats a clip) and accuracy, or mean average precision, of the validation clips at the posterior mean."""
        assert self.validation is not None
        self.model.eval()
        self.model.drop(False)
        logits, target = [], []
        state = torch.get_rng_state()
        first, _ = self.validation.batch(torch.arange(1), self.device)
        weights = mean_weights(self.guide, first)
        for index in torch.arange(len(self.validation)).split(self.settings.batch_size):
            clips, truth = self.validation.batch(index, self.device)
            logits.append(logits_under(self.model, weights, clips, embedded=self._embedded).cpu())
            target.append(truth.cpu())
        # So that scoring leaves no trace in the fit.
        torch.set_rng_state(state)
        score, truth = torch.cat(logits), torch.cat(target)
        nll = -self.model.likelihood(score, truth).log_prob(truth).mean()
        if self.model.likelihood.task is Task.ONE_OF_K:
            return {"val/nll": nll.item(), "val/accuracy": (score.argmax(dim=1) == truth).float().mean().item()}
        present = truth.any(dim=0).numpy()
        precision = average_precision_score(truth.numpy()[:, present], score.numpy()[:, present], average="macro")
        return {"val/nll": nll.item(), "val/map": float(precision)}

    @property
    def checkpointed(self) -> bool:
        """Whether the folder holds a checkpoint."""
        return (self.folder / CHECKPOINT).is_file()

    def save_checkpoint(self) -> None:
        """Write all that a resumed fit needs, in place of the last checkpoint, whole or not at all.

        Raises:
            FitError: A parameter is not finite; the last checkpoint is left as it is.
        """
        for name, parameter in self._objective.named_parameters():
            if parameter.requires_grad and not torch.isfinite(parameter).all():
                raise self._diverged(f"{name} holds values that are not finite")
        fixed = self._fixed()
        state: dict[str, Any] = {
            "objective": {name: value for name, value in self._objective.state_dict().items() if name not in fixed},
            "optimizer": self._optimizer.state_dict(),
            "step": self.step,
            "steps": self.steps,
            "rng": torch.get_rng_state(),
            "metrics": self.metrics,
        }
        if isinstance(self.data, Embeddings):
            state["backbone"] = self.data.backbone
        if self.device.type == "cuda":
            state["cuda_rng"] = torch.cuda.get_rng_state(self.device)
        with whole_file(self.folder / CHECKPOINT) as part:
            torch.save(state, part)

    def load_checkpoint(self) -> None:
        """Go on from the folder's checkpoint; the fit then runs as if it had never stopped.

        Raises:
            FitError: There is none, it is damaged, or it is of another fit.
        """
        path = self.folder / CHECKPOINT
        if not path.is_file():
            raise FitError(f"{self.folder}: no checkpoint to resume from")
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            if state["steps"] > self.steps:
                raise FitError(f"{path}: is of a fit of {state['steps']} steps, and this one has {self.steps}")
            if isinstance(self.data, Embeddings) and state["backbone"] != self.data.backbone:
                raise FitError(
                    f"{path}: is of a fit on another backbone's embeddings: the upstream posterior has changed since; "
                    "start again in another folder"
                )
            self._objective.load_state_dict({**self._fixed(), **state["objective"]})
            self._optimizer.load_state_dict(state["optimizer"])
        except FitError:
            raise
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise FitError(f"{path}: cannot be resumed from ({reason}); remove it to start again") from error
        self.step, self.metrics = state["step"], state["metrics"]
        torch.set_rng_state(state["rng"].cpu())
        if "cuda_rng" in state and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self.device)
        self._forget_after(self.step)

    def _fixed(self) -> dict[str, Tensor]:
        """The state that a checkpoint leaves out: a backbone whose embeddings are fitted, most of it by far."""
        if not self._embedded:
            return {}
        state, backbone, head = self._objective.state_dict(), "model.net.", f"model.net.{HEAD}."
        return {name: state[name] for name in state if name.startswith(backbone) and not name.startswith(head)}

    def _forget_after(self, step: int) -> None:
        """Drop metrics of steps that the checkpoint does not know of."""
        path = self.folder / METRICS
        path.write_text("".join(json.dumps(line) + "\n" for line in read_metrics(path) if line["step"] <= step))


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The lines of a ``metrics.jsonl``, oldest first; none where there is no file.

    A damaged line, such as one that a killed process left half-written, is left out with a warning.
    """
    lines, damaged = [], 0
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if _is_logged(line):
            lines.append(line)
        else:
            damaged += 1
    if damaged:
        logger.warning(f"{path}: {damaged} damaged {'line is' if damaged == 1 else 'lines are'} left out")
    return lines


def _is_logged(line: Any) -> bool:
    """Whether a line of ``metrics.jsonl`` is an object of numbers with an epoch."""
    if not isinstance(line, dict) or line.get("epoch") is None:
        return False
    return all(value is None or (isinstance(value, int | float) and math.isfinite(value)) for value in line.values())


def _chain(functions: list[Callable[[Tensor], Tensor]]) -> Callable[[Tensor], Tensor] | None:
    if not functions:
        return None

    def chained(values: Tensor) -> Tensor:
        for function in functions:
            values = function(values)
        return values

    return chained


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a flag, so that a step is never cut in half; a second one interrupts."""
    asked = threading.Event()

    def ask(signum: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
