"""The parts of the decisions study: its shifts and its splits."""

import pytest
import torch

from benchmarks.decisions.design import DIVISIONS, splits
from benchmarks.decisions.shifts import NOISES, RATES, SHIFTS, shifted

RATE = 32000


@pytest.mark.parametrize("division", DIVISIONS, ids=lambda each: each.name)
def test_no_fold_is_used_twice_and_each_is_tested_once(division):
    made = list(splits(division))
    assert [each.test for each in made] == list(division.folds)
    for each in made:
        assert sorted([*each.train, *each.held, each.test]) == sorted(division.folds)
        assert len(each.held) == division.calibrated


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_shift_keeps_the_length_and_does_what_it_says(shift):
    time = torch.arange(RATE) / RATE
    low, high = torch.sin(2 * torch.pi * 500 * time), torch.sin(2 * torch.pi * 6000 * time)
    sound = torch.cat([low + high, torch.zeros(RATE // 2)])
    found = shifted(sound, shift, RATE, seconds=1.0, seed=0)
    assert found.shape == sound.shape
    change = found - sound
    if shift in NOISES:
        ratio = 10 * torch.log10(sound[:RATE].square().mean() / change[:RATE].square().mean())
        assert float(ratio) == pytest.approx(NOISES[shift], abs=0.1)
        assert not change[RATE:].any()
        assert torch.equal(found, shifted(sound, shift, RATE, seconds=1.0, seed=0))
    elif shift in RATES:
        middle = slice(RATE // 4, 3 * RATE // 4)
        # 6 kHz passes at a rate of 16 kHz, and not at 8 kHz.
        lost = 0.0 if RATES[shift] == 16000 else 0.5
        assert float(change[middle].square().mean()) == pytest.approx(lost, abs=0.02)
    else:
        assert not change.any()
