"""Checkpoints that are written while a fit goes on, the files that are kept, and what ends a fit."""

import errno
import os
import signal
import threading
from pathlib import Path

import pytest
import torch

from bayes_panns.core.errors import FitError
from bayes_panns.svi import Running, Stop, interrupts, last_stop
from bayes_panns.svi.checkpoint import BEST, CHECKPOINT, PREVIOUS, State, read_checkpoint
from bayes_panns.svi.checkpoint_writer import CheckpointWriter, Snapshot, load_last
from bayes_panns.svi.interrupts import Interrupts
from bayes_panns.svi.time_limit import TimeLimit
from tests.harness.waiting import PATIENCE
from tests.svi.test_fit import job, metrics, same, state, store  # noqa: F401


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, now=0.0):
        self.now = now

    def __call__(self):
        return self.now


def content(step):
    return {"step": step, "objective": {"weight": torch.full((1000,), float(step))}}


def step_of(path):
    return read_checkpoint(path)["step"]


@pytest.fixture
def slow(monkeypatch):
    """Checkpoints that are written only when an event is set."""
    go, save = threading.Event(), torch.save

    def wait(*args, **kwargs):
        assert go.wait(PATIENCE)
        save(*args, **kwargs)

    monkeypatch.setattr(torch, "save", wait)
    return go


def test_what_is_written_is_what_was_there_when_it_was_copied(tmp_path, slow):
    weight = torch.arange(6.0)
    with CheckpointWriter(tmp_path) as writer:
        writer.save({"step": 1, "objective": {"weight": weight, "same": weight}, "trained": ["weight"]})
        weight.zero_()
        slow.set()
    found = read_checkpoint(tmp_path / CHECKPOINT)
    assert found["objective"]["weight"].tolist() == [0, 1, 2, 3, 4, 5]
    assert found["objective"]["same"].data_ptr() == found["objective"]["weight"].data_ptr(), "kept once"
    assert found["trained"] == ["weight"]


def test_the_buffers_of_a_copy_are_used_again():
    snapshot, weight = Snapshot(), torch.zeros(3, 4).t()
    first = snapshot.take({"a": [{"weight": weight}]})["a"][0]["weight"]
    again = snapshot.take({"a": [{"weight": weight + 1}]})["a"][0]["weight"]
    assert first.data_ptr() == again.data_ptr() != weight.data_ptr()
    assert again.stride() == weight.stride()
    assert snapshot.take({"a": [{"weight": torch.zeros(7)}]})["a"][0]["weight"].shape == (7,)


def test_the_last_two_and_the_best_are_kept_without_being_written_again(tmp_path):
    with CheckpointWriter(tmp_path) as writer:
        for step, best in ((1, False), (2, True), (3, False)):
            writer.save(content(step), best=best)
        writer.wait()
        assert (tmp_path / PREVIOUS).samefile(tmp_path / BEST)
        writer.save(content(4))
    assert [step_of(tmp_path / name) for name in (CHECKPOINT, PREVIOUS, BEST)] == [4, 3, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted((CHECKPOINT, PREVIOUS, BEST))


def test_a_file_system_without_links_has_copies(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    with CheckpointWriter(tmp_path) as writer:
        for step in (1, 2):
            writer.save(content(step), best=True)
    assert [step_of(tmp_path / name) for name in (CHECKPOINT, PREVIOUS, BEST)] == [2, 1, 2]


def test_a_checkpoint_that_cannot_be_written_is_told_and_the_one_before_stays(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = CheckpointWriter(tmp_path)
    writer.save(content(1))
    writer.wait()
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="the disk is full; free some space") as error, writer:
        writer.save(content(2))
    assert error.value.filename == str(tmp_path / CHECKPOINT)
    assert step_of(tmp_path / CHECKPOINT) == 1
    writer.save(content(2))
    writer._thread.join()
    with pytest.raises(OSError, match="the disk is full"):
        writer.check()
    assert not (tmp_path / PREVIOUS).exists()


def test_an_error_counts_more_than_a_checkpoint_that_fails(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    writer = CheckpointWriter(tmp_path)

    def work():
        with writer:
            writer.save(content(1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert "a checkpoint could not be written" in caplog.text


def test_a_second_ctrl_c_abandons_what_is_being_written(tmp_path, slow, monkeypatch):
    writer = CheckpointWriter(tmp_path)
    monkeypatch.setattr(writer._abandoned, "set", lambda set=writer._abandoned.set: (set(), slow.set()))

    def work():
        with writer:
            writer.save(content(1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_of_short_epochs_take_a_small_part_of_the_time(tmp_path):
    clock = Clock()
    writer = CheckpointWriter(tmp_path, minutes=10, clock=clock)
    assert writer.worthwhile
    assert not writer.overdue
    writer.save(content(1))
    writer.wait()
    writer.seconds = 2.0
    for now, worthwhile, overdue in ((39, False, False), (40, True, False), (599, True, False), (600, True, True)):
        clock.now = now
        assert (writer.worthwhile, writer.overdue) == (worthwhile, overdue)


@pytest.mark.parametrize("scores", [(3.0, 2.0, 2.0, 2.5), (1.0, 1.0), (float("nan"), 4.0), ()])
def test_the_best_epoch_is_the_first_with_the_least_nll(scores):
    found = State(10)
    for step, nll in enumerate(scores, 1):
        found.step, found.unscored = step, {}
        found.end_epoch({"val/nll": nll})
    finite = [(nll, step) for step, nll in enumerate(scores, 1) if nll == nll]
    assert found.best == ((min(finite)[1], min(finite)[0]) if finite else None)


def test_without_the_last_checkpoint_the_one_before_is_taken(tmp_path, caplog):
    folder = tmp_path
    (folder / PREVIOUS).write_bytes(b"before")
    assert load_last(folder, Path.read_bytes) == b"before"
    assert "checkpoint.pt: is missing; resuming from the checkpoint before it, checkpoint.previous.pt" in caplog.text
    assert (folder / CHECKPOINT).read_bytes() == b"before"


def test_a_fit_whose_last_checkpoint_is_deleted_does_not_start_again(store, tmp_path):  # noqa: F811
    first = job(store, tmp_path / "run")
    for _ in range(2):
        first.save_checkpoint()
        first._step(first._batches.index(first.step))
    first.save_checkpoint()
    (tmp_path / "run" / CHECKPOINT).unlink()
    second = job(store, tmp_path / "run")
    assert second.checkpointed
    second.load_checkpoint()
    assert second.step == 1


def test_a_fit_goes_on_from_the_checkpoint_before_a_damaged_one(store, tmp_path, caplog):  # noqa: F811
    whole = job(store, tmp_path / "whole")
    whole.run()
    folder = tmp_path / "parts"
    first = job(store, folder)
    step = first._step

    def stop(index):
        if first.step in (2, 4):
            first.save_checkpoint()
            os.kill(os.getpid(), signal.SIGUSR1 if first.step == 4 else signal.SIGCONT)
        return step(index)

    first._step = stop
    assert not first.run()
    assert first.stopped is last_stop() is Stop.REQUESTED
    assert (step_of(folder / CHECKPOINT), step_of(folder / PREVIOUS)) == (5, 4)
    last = folder / CHECKPOINT
    last.write_bytes(last.read_bytes()[:-100])
    torch.randn(3)
    second = job(store, folder)
    second.load_checkpoint()
    assert "checkpoint.pt: is damaged; resuming from the checkpoint before it, checkpoint.previous.pt" in caplog.text
    assert second.step == step_of(last) == 4, "the next checkpoint does not replace the good one by the damaged one"
    assert second.run()
    assert last_stop() is None
    assert same(state(whole), state(second))
    assert [line["step"] for line in metrics(folder)] == [3, 6]
    for name in (CHECKPOINT, PREVIOUS):
        (folder / name).write_bytes(b"PK\3\4")
    with pytest.raises(FitError, match=r"checkpoint.pt: cannot be .*; .*checkpoint.previous.pt: cannot be resumed"):
        job(store, folder).load_checkpoint()


def test_a_fit_is_as_it_was_at_its_best_epoch(store, tmp_path):  # noqa: F811
    fit = job(store, tmp_path / "run", validation=True, epochs=3, learning_rate=3e-3)
    scores, at = iter((2.0, 1.0, 3.0)), {}

    def validate(stopped):
        at[fit.step] = {name: value.clone() for name, value in state(fit).items()}
        return {"val/nll": next(scores)}

    fit.validate = validate
    assert fit.run()
    assert step_of(tmp_path / "run" / BEST) == 6
    with fit.at_best() as found:
        assert found
        assert (fit.step, fit.epoch, fit.metrics["val/nll"]) == (6, 2, 1.0)
        assert same(at[6], state(fit))
    assert (fit.step, fit.metrics["val/nll"]) == (9, 3.0)
    assert same(at[9], state(fit))
    # A kill may come between the checkpoint and its second name.
    (tmp_path / "run" / BEST).write_bytes(b"damaged")
    with fit.at_best() as found:
        assert not found


def test_the_second_name_of_the_best_checkpoint_is_made_up_for(store, tmp_path):  # noqa: F811
    fit = job(store, tmp_path / "run", validation=True, epochs=1)
    fit.run()
    (tmp_path / "run" / BEST).unlink()
    again = job(store, tmp_path / "run", validation=True, epochs=1)
    again.load_checkpoint()
    assert (tmp_path / "run" / BEST).samefile(tmp_path / "run" / CHECKPOINT)


def test_a_fit_writes_checkpoints_between_the_ends_of_epochs(store, tmp_path, monkeypatch):  # noqa: F811
    steps, save = [], CheckpointWriter.save

    def note(self, found, **given):
        steps.append(found["step"])
        save(self, found, **given)
        self.wait()

    monkeypatch.setattr(CheckpointWriter, "save", note)
    fit = job(store, tmp_path / "run", epochs=1)
    fit._checkpoints.writer._minutes = 0
    fit.run()
    assert steps == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("number", "reason"),
    [(signal.SIGINT, Stop.INTERRUPTED), (signal.SIGTERM, Stop.TERMINATED), (signal.SIGUSR2, Stop.REQUESTED)],
)
def test_a_signal_ends_a_fit_after_the_step_with_a_checkpoint(store, tmp_path, number, reason):  # noqa: F811
    fit = job(store, tmp_path / "run", epochs=1)
    step = fit._step
    fit._step = lambda index: os.kill(os.getpid(), number) or step(index)
    assert not fit.run()
    assert fit.stopped is reason
    assert step_of(tmp_path / "run" / CHECKPOINT) == 1


def test_only_ctrl_c_interrupts_a_fit_that_is_ending(monkeypatch):
    asked = Interrupts()
    for reason in (Stop.REQUESTED, Stop.TERMINATED, Stop.TERMINATED):
        asked.ask(reason)
    assert asked.flags() == (False, True, True, False)
    assert Stop.first_of(asked.flags(out_of_time=True)) is Stop.TERMINATED
    assert Stop.first_of((False,) * 4) is None
    with pytest.raises(KeyboardInterrupt):
        asked.ask(Stop.INTERRUPTED)
    # torchrun passes on what its processes got from the terminal.
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    clock = Clock(5.0)
    monkeypatch.setattr(interrupts.time, "monotonic", clock)
    passed_on = Interrupts()
    passed_on.ask(Stop.INTERRUPTED)
    clock.now += 0.4
    passed_on.ask(Stop.INTERRUPTED)
    clock.now += 0.2
    with pytest.raises(KeyboardInterrupt):
        passed_on.ask(Stop.INTERRUPTED)


def limited(clock, seconds, **given):
    return TimeLimit(
        Running(time_limit=seconds, started=clock()), **{"validation": 10, "size": 0, **given}, clock=clock
    )


def test_a_time_limit_leaves_time_for_a_step_and_the_checkpoints():
    clock = Clock(1e9)
    limit = limited(clock, 1000)
    made, first = 0, clock()
    while not limit.reached(ends_epoch=False, checkpoint=20.0):
        clock.now += 60 if made == 0 else 10
        made += 1
    left = 1000 - (clock() - first)
    # A step, the checkpoint under way, the last one and the posterior: 10 + 3 x 20 s, half as much again, 10 to end.
    assert 1.5 * 70 + 10 - 10 <= left <= 1.5 * 70 + 10


@pytest.mark.parametrize(("measured", "late"), [(False, True), (True, False)])
def test_a_time_limit_leaves_time_for_a_validation_only_where_one_comes(measured, late):
    """Ten batches of validation clips count as ten steps, until they turn out to take one."""
    clock = Clock()
    limit = limited(clock, 1000)
    while clock() < 860:
        ends_epoch = measured and clock() == 50
        assert not limit.reached(ends_epoch=ends_epoch, checkpoint=1.0)
        clock.now += 20 if ends_epoch else 10
    assert not limit.reached(ends_epoch=False, checkpoint=1.0)
    assert limit.reached(ends_epoch=True, checkpoint=1.0) is late


def test_the_first_step_is_made_however_short_the_time_is():
    clock = Clock()
    limit = limited(clock, 1.0)
    clock.now = 50
    assert not limit.reached(ends_epoch=False, checkpoint=None)
    assert limit.reached(ends_epoch=False, checkpoint=None)


def test_a_validation_ends_while_there_is_time_for_a_batch_and_the_checkpoints():
    clock = Clock()
    limit = limited(clock, 1000)
    over = limit.within_validation(20.0)
    while not over():
        clock.now += 10
    assert 1.5 * 70 + 10 - 10 <= 1000 - clock() <= 1.5 * 70 + 10
    assert not TimeLimit(Running(), validation=0, size=0, clock=clock).within_validation(None)()


@pytest.mark.parametrize(("told", "end"), [("1000", 1000.0), ("", 5000.0), ("soon", 5000.0), ("9000", 5000.0)])
def test_a_job_of_slurm_ends_in_time(monkeypatch, told, end):
    monkeypatch.setenv("SLURM_JOB_END_TIME", told)
    clock = Clock()
    assert limited(clock, 5000).end == end
    assert limited(clock, None).end == (float(told) if told.isdecimal() else None)


def test_a_fit_ends_itself_in_time_and_goes_on(store, tmp_path):  # noqa: F811
    whole = job(store, tmp_path / "whole")
    whole.run()
    fit = job(store, tmp_path / "run")
    fit._limit.end = 0.0
    assert not fit.run()
    assert (fit.stopped, fit.step) == (Stop.TIME, 1)
    again = job(store, tmp_path / "run")
    again.load_checkpoint()
    assert again.run()
    assert same(state(whole), state(again))
