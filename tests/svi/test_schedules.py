import pytest

from bayes_panns.svi import kl_warmup, learning_rate


def test_warmup_rises_to_one_and_stays():
    assert [kl_warmup(step, 4) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert kl_warmup(0, 0) == 1
    assert [kl_warmup(step, 1) for step in range(2)] == [1, 1]


def test_cosine_falls_from_one_to_zero():
    rates = [learning_rate(step, 10, "cosine") for step in range(11)]
    assert rates[0] == 1
    assert rates[5] == pytest.approx(0.5)
    assert rates[10] == pytest.approx(0)
    assert rates == sorted(rates, reverse=True)
    assert learning_rate(7, 10, "constant") == 1
    assert learning_rate(0, 0, "cosine") == 1


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match="linear"):
        learning_rate(0, 10, "linear")
