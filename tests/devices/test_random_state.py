import numpy as np
import torch

from bayes_panns.clips.samples import as_floats
from bayes_panns.clips.store_format import FULL_SCALE
from bayes_panns.devices import forked, random_state, sent, set_random_state


def test_a_state_is_gone_back_to():
    kept = random_state("cpu")
    first = torch.rand(5)
    set_random_state("cpu", kept)
    assert torch.equal(torch.rand(5), first)
    # That of a device that the state was not of stays as it is.
    set_random_state("cpu", {"cpu": kept["cpu"], "cuda": torch.zeros(16, dtype=torch.uint8)})
    assert torch.equal(torch.rand(5), first)


def test_a_block_leaves_the_state_as_it_was_also_after_an_error():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    try:
        with forked("cpu"):
            torch.rand(100)
            raise KeyError
    except KeyError:
        pass
    assert torch.equal(torch.rand(4), expected)


def test_on_the_cpu_what_is_sent_is_the_tensor_itself():
    values = torch.arange(4)
    assert sent(values, "cpu") is values


def test_16_bit_samples_become_the_floats_that_a_store_gives():
    raw = np.arange(-(1 << 15), 1 << 15, dtype=np.int64).astype(np.int16).reshape(256, 256)
    expected = np.divide(raw, np.float32(FULL_SCALE), dtype=np.float32)
    assert np.array_equal(as_floats(torch.from_numpy(raw)).numpy(), expected)
    floats = torch.rand(3)
    assert as_floats(floats) is floats
