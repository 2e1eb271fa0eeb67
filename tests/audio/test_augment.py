import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bayes_panns.audio.augment import Mixup, SpecAugment


@settings(max_examples=25)
@given(frames=st.integers(1, 300), seed=st.integers(0, 1000))
def test_specaugment_hides_at_most_what_panns_hides(frames, seed):
    spectrogram = torch.ones(4, 1, frames, 64)
    masked = SpecAugment()(spectrogram, torch.Generator().manual_seed(seed))
    assert (spectrogram == 1).all()
    hidden = masked[:, 0] == 0
    assert (hidden | (masked[:, 0] == 1)).all()
    whole_frames, whole_mels = hidden.all(dim=2).sum(dim=1), hidden.all(dim=1).sum(dim=1)
    assert (whole_frames <= min(frames, 2 * 63)).all()
    if frames > 2 * 63:
        assert (whole_mels <= 2 * 7).all()
        # Stripes are all that is hidden.
        stripes = hidden.all(dim=2)[:, :, None] | hidden.all(dim=1)[:, None, :]
        assert (hidden == stripes).all()


def test_specaugment_hides_on_average_what_panns_hides():
    """A stripe's width is uniform on 0..63 (and 0..7), its start uniform on where it fits."""
    masked = SpecAugment()(torch.ones(1000, 1, 1000, 16), torch.Generator().manual_seed(0))
    frames = (masked[:, 0] == 0).all(dim=2).sum(dim=1).float()
    # Two stripes of mean 31.5; their overlap is about 31.5^2 / 1000.
    assert abs(frames.mean() - (63 - 31.5**2 / 1000)) < 5 * 18.5 * 2**0.5 / 1000**0.5


def test_each_clip_has_stripes_of_its_own():
    masked = SpecAugment()(torch.ones(8, 1, 400, 64), torch.Generator().manual_seed(1))
    assert len({tuple(clip.flatten().tolist()) for clip in masked}) == 8


def test_mixup_mixes_inputs_and_targets_alike():
    mixup = Mixup.draw(6, generator=torch.Generator().manual_seed(0))
    target = torch.eye(6)
    values = torch.arange(6.0)[:, None, None, None].expand(6, 1, 3, 4)
    soft = mixup(target)
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(6))
    torch.testing.assert_close(mixup(values)[:, 0, 0, 0], soft @ torch.arange(6.0))
    assert (soft >= 0).all()


def test_mixup_portions_follow_the_beta():
    """Beta(a, a) has mean 1/2 and variance 1 / (4 (2a + 1))."""
    for alpha in (1.0, 0.3):
        portion = Mixup.draw(20000, alpha, torch.Generator().manual_seed(0)).portion
        assert abs(portion.mean() - 0.5) < 0.01
        assert abs(portion.var() - 1 / (4 * (2 * alpha + 1))) < 0.005
