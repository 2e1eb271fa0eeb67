import math

import pytest
import torch

from bayes_panns.core.errors import FitError
from bayes_panns.svi import reading
from bayes_panns.svi.reading import NotFiniteError, Reading, Readings
from tests.svi.test_fit import job, metrics, store  # noqa: F401


class Late:
    """A copy that is there when it is told to be, or waited for."""

    def __init__(self):
        self.there = False
        self.waited = False

    def query(self):
        return self.there

    def synchronize(self):
        self.there = self.waited = True


@pytest.fixture
def late(monkeypatch):
    """The copies of a device that is behind, in order."""
    begun = []

    def copy_begun(values):
        begun.append(Late())
        return values.clone(), begun[-1]

    monkeypatch.setattr(reading, "copy_begun", copy_begun)
    return begun


def sent(readings, *losses):
    for step, loss in enumerate(losses):
        readings.send(step, loss=torch.tensor(loss), nll=torch.tensor(loss / 2), kl=4.0)


def test_only_what_has_arrived_is_read_and_in_order(late):
    readings = Readings()
    sent(readings, 8.0, 6.0, 4.0)
    assert readings.arrived() == []
    # The device does one after the other; a later one is not asked for before an earlier one.
    late[0].there = late[2].there = True
    assert readings.arrived() == [Reading(0, 8.0, 4.0, 4.0)]
    assert readings.arrived() == []
    assert [each.step for each in readings.arrived(wait=True)] == [1, 2]
    assert late[1].waited


def test_processes_read_a_step_when_so_many_more_have_been_sent(late):
    readings = Readings(behind=2)
    found = []
    for step in range(5):
        readings.send(step, loss=torch.tensor(1.0), nll=torch.tensor(0.5), kl=4.0)
        late[step].there = True
        found.append([each.step for each in readings.arrived()])
    assert found == [[], [], [0], [1], [2]]
    assert [each.step for each in readings.arrived(wait=True)] == [3, 4]


def test_on_a_cpu_a_reading_is_there_at_once():
    readings = Readings()
    sent(readings, 8.0)
    assert readings.arrived() == [Reading(0, 8.0, 4.0, 4.0)]


def test_a_loss_that_is_not_finite_is_told_of_its_own_step(late):
    readings = Readings()
    sent(readings, 8.0, math.inf, 4.0)
    late[0].there = True
    assert len(readings.arrived()) == 1
    with pytest.raises(NotFiniteError, match=r"^the loss is inf \(NLL inf a clip, KL 4.0 nats\)$") as caught:
        readings.arrived(wait=True)
    assert caught.value.step == 1


def test_a_fit_on_a_device_that_is_behind_has_the_metrics_of_one_that_is_not(store, tmp_path, late, monkeypatch):  # noqa: F811
    slow = job(store, tmp_path / "slow")
    shown, step = [], slow._step

    def behind(index):
        # The device is two steps behind.
        for each in late[: max(0, slow.step - 2)]:
            each.there = True
        shown.append(step(index))
        return shown[-1]

    slow._step = behind
    assert slow.run()
    assert math.isnan(shown[0])
    assert any(each.waited for each in late)
    monkeypatch.undo()
    fast = job(store, tmp_path / "fast")
    assert fast.run()
    for one, other in zip(metrics(tmp_path / "slow"), metrics(tmp_path / "fast"), strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_a_fit_on_a_device_that_is_behind_names_the_step_that_failed(store, tmp_path, late):  # noqa: F811
    fit = job(store, tmp_path / "run", epochs=1)
    send = fit._stepper._readings.send

    def failing(number, **values):
        send(number, **(values | {"loss": torch.tensor(math.nan)} if number == 1 else values))

    fit._stepper._readings.send = failing
    with pytest.raises(FitError, match=r"^step 1 \(epoch 0\.3\): the loss is nan"):
        fit.run()
    assert fit.step == 3
    assert not fit.checkpointed
