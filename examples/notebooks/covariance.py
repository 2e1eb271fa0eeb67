# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Which labels does it confuse together?
#
# **If a clip may have several sounds, does the model doubt them one by one, or together: this one *or* that one?**
# Draws of the weights give the answer: over the draws, the labels' probabilities have a covariance.
#
# Data: synthetic soundscapes with one to three of eight kinds at once, made here. Nothing is downloaded. This takes
# about four minutes on two cores.

# %%
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from bayes_panns.clips import ClipSet, Task, write
from bayes_panns.jobs.workflow import fit
from bayes_panns.metrics import bootstrap, mean_average_precision
from bayes_panns.metrics.plotting import INK, PALETTE, clean
from bayes_panns.predictions import predict
from bayes_panns.recipes.reading import Data, Run
from bayes_panns.soundscapes.scenes import DOWNSTREAM, soundscapes
from bayes_panns.svi import FitSettings

SMALL = bool(os.environ.get("SMALL"))
CLIPS, HELD_OUT, EPOCHS, DRAWS, RESAMPLES = (32, 16, 1, 8, 50) if SMALL else (640, 400, 15, 64, 1000)
WORK = Path(tempfile.mkdtemp())

# %% [markdown]
# ## The fit

# %%
for name, count, seed in (("fit", CLIPS, 0), ("held-out", HELD_OUT, 1)):
    made = soundscapes(DOWNSTREAM, count, seconds=0.5, sample_rate=8000, events=(1, 3), seed=seed)
    write(WORK / f"{name}.h5", made.waveform, made.target, made.labels, Task.MULTI_LABEL, made.sample_rate)
settings = FitSettings(
    epochs=EPOCHS, batch_size=16, learning_rate=2e-3, kl_weight=1e-3, kl_warmup=EPOCHS / 5, spec_augment=False
)
recipe = Run(data=Data(stores=[str(WORK / "fit.h5")], validation=0.0), fit=settings)
posterior = fit(recipe, WORK / "run").posterior

clips = ClipSet(WORK / "held-out.h5")
target, labels = clips.target(), posterior.labels
found = predict(posterior, clips, DRAWS, covariance=True)
print(f"mAP {mean_average_precision(found.probability, target):.3f} on {len(clips)} held-out clips")

# %% [markdown]
# ## Definition
#
# Given the weights, the labels of a clip are independent with probabilities p_t. By the law of total covariance, the
# covariance between two labels is then that of their probabilities over the draws, Cov(Y_j, Y_k) = cov_t(p_tj, p_tk):
# it is entirely epistemic. The diagonal is the epistemic variance. Below, labels are simulated from each draw's
# probabilities, and their covariance is computed.

# %%
draws = torch.stack(list(posterior.draws(torch.from_numpy(clips.waveform(np.arange(8))), DRAWS)))
coins = torch.rand(RESAMPLES, *draws.shape, generator=torch.Generator().manual_seed(0)) < draws
tossed = coins.flatten(0, 1).double()
centred = tossed - tossed.mean(dim=0)
counted = (torch.einsum("rnj,rnk->njk", centred, centred) / len(tossed)).numpy()
beside = ~np.eye(len(labels), dtype=bool)
noise = 0.25 / len(tossed) ** 0.5
print(f"largest |diagonal - epistemic|: {np.abs(np.einsum('njj->nj', found.covariance) - found.epistemic).max():.1e}")
print(f"labels tossed, off the diagonal: {np.abs(counted - found.covariance[:8])[:, beside].max():.4f} at most apart,")
print(
    f"from {len(tossed)} tosses, whose standard error is up to {noise:.4f}; on the diagonal stands the total variance:"
)
print(f"{np.abs(np.einsum('njj->nj', counted) - found.total[:8]).max():.4f} at most apart")

# %% [markdown]
# ## The pairs
#
# The mean epistemic correlation over the clips, and the pairs whose covariance is furthest from 0. Below 0 the draws
# hear one *or* the other; above 0, both or neither.

# %%
correlation = np.nanmean(found.correlation(), axis=0)
limit = max(abs(correlation[beside].min()), correlation[beside].max())
figure, ax = plt.subplots(figsize=(6, 5), layout="constrained")
image = ax.imshow(np.where(beside, correlation, np.nan), cmap="RdBu", vmin=-limit, vmax=limit)
ax.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
ax.set_yticks(range(len(labels)), labels)
figure.colorbar(image, label="epistemic correlation, mean of the clips")
clean(ax)

# %%
print(f"{'':<26}{'mean covariance, 95 % interval':>38}{'mean correlation':>18}")
for first, second, mean in found.confused_together(labels)[:8]:
    j, k = labels.index(first), labels.index(second)
    interval = bootstrap(np.mean, found.covariance[:, j, k], resamples=RESAMPLES)
    print(
        f"{first + ' and ' + second:<26}{mean:>14.5f}{f'({interval.low:.5f} to {interval.high:.5f})':>24}"
        f"{correlation[j, k]:>18.3f}"
    )

# %% [markdown]
# ## Do the errors agree?
#
# If the draws were samples of the truth, the errors y - p of two labels would have the same covariance, over clips.
# The two can be compared for each pair.

# %%
error = target - found.probability
first, second = np.triu_indices(len(labels), k=1)
claimed = found.covariance.mean(axis=0)[first, second]
happened = (error[:, first] * error[:, second]).mean(axis=0)
print(f"mean of the pairs: claimed {claimed.mean():.5f}, happened {happened.mean():.5f}")
print(f"correlation between claimed and happened, over {len(first)} pairs: {np.corrcoef(claimed, happened)[0, 1]:.2f}")

figure, ax = plt.subplots(figsize=(5.5, 4.5), layout="constrained")
ax.axhline(0, color=INK, linewidth=0.5)
ax.axvline(0, color=INK, linewidth=0.5)
ax.plot(claimed, happened, "o", color=PALETTE[0])
for index in np.argsort(happened)[:3]:
    ax.annotate(
        f" {labels[first[index]]}, {labels[second[index]]}", (claimed[index], happened[index]), fontsize="small"
    )
ax.set(xlabel="epistemic covariance, mean of the clips", ylabel="mean product of the errors")
clean(ax)

# %% [markdown]
# They do not match. Over the pairs, the claimed and the observed values do not rise together, and the products of the
# errors are ten times as large as the claims. The pairs that the model really confuses are those with the most
# negative products, marked here. About these its draws hardly disagree, or disagree in the other direction. What ties
# labels together in these data is the same under every draw: one kind of sound is mistaken for another, and no clip
# has more than three. A likelihood with independent labels given the weights can express neither. Epistemic
# covariance says which labels the draws disagree about together. It does not predict which errors occur together.
#
# ## The clips
#
# The clips and pairs with the most negative and the most positive covariance, and the draws behind them: each dot is
# a draw.

# %%
waveforms = clips.waveform(np.arange(len(clips)))
off = np.where(beside, found.covariance, 0)
extremes = {"one or the other": off.argmin(), "both or neither": off.argmax()}
figure, axes = plt.subplots(1, 2, figsize=(9, 4.5), layout="constrained")
for ax, (title, place) in zip(axes, extremes.items(), strict=True):
    clip, j, k = np.unravel_index(place, off.shape)
    these = torch.stack(list(posterior.draws(torch.from_numpy(waveforms[clip : clip + 1]), DRAWS)))[:, 0]
    held = [label for label, there in zip(labels, target[clip], strict=True) if there]
    print(
        f"{title}: clip {clip}, {labels[j]} p = {found.probability[clip, j]:.2f}, {labels[k]} p = "
        f"{found.probability[clip, k]:.2f}, covariance {off[clip, j, k]:.4f} "
        f"(standard error {found.standard_error.covariance[clip, j, k]:.4f}); it holds {', '.join(held)}"
    )
    ax.plot(these[:, j], these[:, k], "o", color=PALETTE[0], alpha=0.7)
    ax.set(xlabel=f"p({labels[j]})", ylabel=f"p({labels[k]})", xlim=(0, 1), ylim=(0, 1), title=f"{title}: clip {clip}")
    clean(ax)

# %% [markdown]
# ## An application: how many sounds are there?
#
# The number of sounds in a clip would have the variance sum_k p_k (1 - p_k) if the labels were independent. With the
# covariances, it is that plus the sum of all off-diagonal elements. Over clips, the squared error of the expected
# number divided by its variance is 1 on average if the variance is right.

# %%
expected = found.probability.sum(axis=1)
alone = found.total.sum(axis=1)
joint = alone + np.where(beside, found.covariance, 0).sum(axis=(1, 2))
squared = (target.sum(axis=1) - expected) ** 2
print(f"{'variance of the number':<28}{'mean':>7}{'squared error / variance':>26}")
for name, variance in (("labels independent", alone), ("with their covariance", joint)):
    interval = bootstrap(np.mean, squared / variance, resamples=RESAMPLES)
    print(f"{name:<28}{variance.mean():>7.3f}{f'{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})':>26}")
print(f"{'what happened':<28}{squared.mean():>7.3f}")

figure, ax = plt.subplots(figsize=(5.5, 4.5), layout="constrained")
ax.plot(alone, joint / alone, ".", color=PALETTE[0])
ax.axhline(1, color=INK, linewidth=1)
ax.set(xlabel="variance of the number of sounds, labels independent", ylabel="with their covariance / without")
clean(ax)

# %% [markdown]
# The covariances reduce the variance of the number for nearly every clip, as they should, and most where the model is
# most in doubt. But they do so by a few per cent, where half would be needed. Again the rest does not depend on the
# weights: every clip has one to three sounds, which a model with independent labels does not know.
