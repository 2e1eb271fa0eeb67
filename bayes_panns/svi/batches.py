"""The batches of a fit's steps: which clips, whose they are in several processes, and how they are augmented."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from bayes_panns.audio.augment import Mixup, SpecAugment
from bayes_panns.clips import Sampler
from bayes_panns.clips.ahead import Planned
from bayes_panns.core.errors import FitError
from bayes_panns.devices import sent
from bayes_panns.ranks import Shard, generator_of, group, sharded
from bayes_panns.svi.checkpoint import State
from bayes_panns.svi.embeddings import Embeddings
from bayes_panns.svi.features import Features
from bayes_panns.svi.loader import Loader
from bayes_panns.svi.settings import FitSettings
from bayes_panns.svi.validation import own_batches

FITTED, HELD_OUT = 0, 1
"""The numbers of the sets of clips in a fit's loader."""

_MIXUP = 2
"""The stream of random numbers of mixup among those of a seed and a step."""


@dataclass(frozen=True)
class Batch:
    """What a process makes a step from.

    Attributes:
        clips: Features, waveforms or embeddings, on the device; behind the process's own the partners of mixup.
        target: Targets of its own clips, as the likelihood takes them; mixed already.
        part: Which clips of the step they are; by default all of them.
        spec_augment: What is applied to the normalised spectrograms first.
        mixup: How the step's clips are mixed, after that.
    """

    clips: Tensor
    target: Tensor
    part: Shard | None = None
    spec_augment: SpecAugment | None = None
    mixup: Mixup | None = None

    def __len__(self) -> int:
        return len(self.target)

    @property
    def shard(self) -> Shard:
        """Which clips of the step they are."""
        return self.part or Shard(0, len(self), len(self))

    @property
    def augment(self) -> Callable[[Tensor], Tensor] | None:
        """The augmentation of normalised spectrograms ``(batch, 1, frames, mels)``."""
        steps: list[Callable[[Tensor], Tensor]] = [] if self.spec_augment is None else [self.spec_augment]
        if self.mixup is not None:
            steps.append(self.mixup.of(self.shard))
        return (lambda values: reduce(lambda before, each: each(before), steps, values)) if steps else None

    def between(self, start: int, stop: int) -> "Batch":
        """Its clips from ``start`` to before ``stop``, with the partners that they need."""
        ours = self.shard
        part = replace(ours, start=ours.start + start, stop=ours.start + stop, partners=())
        part = part if self.mixup is None else self.mixup.with_partners(part)
        place = {place: row for row, place in enumerate(ours.rows.tolist())}
        rows = torch.tensor([place[each] for each in part.rows.tolist()])
        clips = self.clips[sent(rows, self.clips.device)] if part.partners else self.clips[start:stop]
        return replace(self, clips=clips, target=self.target[start:stop], part=part)

    def parts(self, count: int) -> list["Batch"]:
        """It in so many parts of nearly the same size."""
        if count == 1:
            return [self]
        parts = (Shard.of(number, count, len(self)) for number in range(count))
        return [self.between(part.start, part.stop) for part in parts]


class Batches:
    """The batches of a fit's steps, by the number of the step, and those of its validations.

    Args:
        data: The clips.
        settings: How they are sampled and augmented.
        validation: Clips that are scored at the end of each epoch.

    Attributes:
        an_epoch: How many batches there are in an epoch.

    Raises:
        FitError: There are fewer clips a step than processes.
    """

    def __init__(
        self, data: Features | Embeddings, settings: FitSettings, validation: Features | Embeddings | None = None
    ) -> None:
        self._data, self._settings, self._group = data, settings, group()
        self._validation = validation
        self._sampler = Sampler(
            data.target,
            settings.batch_size,
            sampling=settings.sampling,
            seed=settings.seed,
            block=settings.block,
            places=data.clips.places,
        )
        self.an_epoch = self._sampler.batches
        if len(data) // self.an_epoch < self._group.size:
            raise FitError(
                f"{self._group.size} processes cannot share out {len(data) // self.an_epoch} clips a step: start fewer "
                f"processes, or raise fit.batch_size (it is {settings.batch_size}) if there are more clips"
            )

    def index(self, step: int) -> Tensor:
        """The clips of a step, in all processes: int64 ``(batch,)``."""
        return self._sampler.batch(step)

    def ends_epoch(self, step: int) -> bool:
        """Whether an epoch, as ``settings.steps_per_epoch`` has it, has ended when so many steps are done."""
        each = self._settings.steps_per_epoch or self.an_epoch
        return step % each == 0 or step == self._settings.epochs * self.an_epoch

    def loader(self, device: torch.device, state: State | None = None, workers: int = 0) -> Loader:
        """What reads the batches of both sets of clips.

        Args:
            device: Where they go.
            state: Where the fit is, to read ahead what is left of it.
            workers: How many processes read ahead.
        """
        sets = [self._data] if self._validation is None else [self._data, self._validation]
        return Loader(sets, device, () if state is None else self._left(state), workers)

    def _left(self, state: State) -> Iterator[Planned]:
        """What this process reads in the rest of a fit, in order."""
        if state.unscored is not None:
            yield from self._held_out()
        for step in range(state.step, state.steps):
            yield FITTED, self._reads(step, state)
            if self.ends_epoch(step + 1):
                yield from self._held_out()

    def _held_out(self) -> Iterator[Planned]:
        if self._validation is not None:
            batches = own_batches(len(self._validation), self._settings.batch_size)
            yield from ((HELD_OUT, index) for index in batches if len(index))

    def take(self, index: Tensor, loader: Loader, state: State) -> Batch:
        """This process's clips of those at ``index``, their targets and the augmentation of their spectrograms.

        Args:
            index: The clips of the step, in all processes.
            loader: What reads them.
            state: Where the fit is.
        """
        part, mixup = self._part(state.step, len(index), state)
        with sharded(part):
            clips, target = loader.batch(index[part.rows])
        if mixup is not None:
            labels = len(self._data.clips.labels)
            target = mixup.of(part)(target if target.is_floating_point() else F.one_hot(target, labels).float())
        return Batch(clips, target, part, SpecAugment() if self._settings.spec_augment else None, mixup)

    def _reads(self, step: int, state: State) -> Tensor:
        """The clips that this process reads for a step: its own, then the partners of mixup."""
        index = self.index(step)
        part = self._part(step, len(index), state)[0] if state.mixup_by_step else self._own(len(index))
        return index[part.rows]

    def _part(self, step: int, total: int, state: State) -> tuple[Shard, Mixup | None]:
        """Which clips of a step this process has, and how the step's clips are mixed."""
        part = self._own(total)
        if not self._settings.mixup:
            return part, None
        # From the step alone, since clips are read before their step. Fits of older versions drew it at the step.
        generator = generator_of(self._settings.seed, step, _MIXUP) if state.mixup_by_step else None
        mixup = Mixup.draw(total, generator=generator)
        return mixup.with_partners(part), mixup

    def _own(self, total: int) -> Shard:
        return Shard.of(self._group.rank, self._group.size, total)
