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
# # Where its uncertainty comes from
#
# **Which layers' weights make the predictions uncertain? What do ambiguous sounds add, and what do more data remove?
# And how many draws are needed to measure it?**
#
# Data: synthetic soundscapes of eight kinds, one kind a clip, made here. Nothing is downloaded. This takes about four
# minutes on two cores.

# %%
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from bayes_panns.clips import Task, write
from bayes_panns.jobs import fit
from bayes_panns.metrics import accuracy, nll
from bayes_panns.metrics.plotting import INK, PALETTE, clean, legend_above
from bayes_panns.predictions import decompose
from bayes_panns.recipes import Data, Run
from bayes_panns.soundscapes.scenes import DOWNSTREAM, soundscapes
from bayes_panns.svi import FitSettings

SMALL = bool(os.environ.get("SMALL"))
SIZES, HELD_OUT, STEPS, DRAWS = ((16, 32), 16, 2, 8) if SMALL else ((60, 120, 240, 480), 120, 300, 24)
MANY = 16 if SMALL else 256
WORK = Path(tempfile.mkdtemp())

# %% [markdown]
# ## The fits
#
# The narrow network with every weight variational, fitted to more and more clips, each time with the same number of
# steps. A smaller set is the beginning of a larger one.

# %%
made = soundscapes(DOWNSTREAM, max(SIZES), seconds=0.5, sample_rate=8000, events=(1, 1), seed=0)
held = soundscapes(DOWNSTREAM, HELD_OUT, seconds=0.5, sample_rate=8000, events=(1, 1), seed=1)
waveforms = torch.from_numpy(held.waveform)

posteriors = {}
for clips in SIZES:
    store = WORK / f"{clips}.h5"
    write(store, made.waveform[:clips], made.target[:clips], made.labels, Task.ONE_OF_K, made.sample_rate)
    epochs = max(1, round(STEPS / np.ceil(clips / 16)))
    settings = FitSettings(
        epochs=epochs, batch_size=16, learning_rate=2e-3, kl_weight=1e-3, kl_warmup=epochs / 5, spec_augment=False
    )
    recipe = Run(data=Data(stores=[str(store)], validation=0.0), fit=settings)
    posteriors[clips] = fit(recipe, WORK / f"run-{clips}").posterior

# %% [markdown]
# ## Two splits, and what they promise
#
# Every draw t of the weights gives probabilities p_t with mean p. For a label, the variance p (1 - p) is the mean
# variance of the draws (aleatoric) plus the variance of their means (epistemic): the law of total variance. For a
# clip, the entropy of p is the mean entropy of the draws plus the mutual information between label and weights. Both
# hold exactly, with any number of draws. Each part is computed by its own formula:

# %%
posterior = posteriors[max(SIZES)]
draws = torch.stack(list(posterior.draws(waveforms, DRAWS)))
found = decompose(draws, "one-of-k", mirrored=posterior.mirrored)
p, p_t = found.probability, draws.double().numpy()
gap = np.abs(p * (1 - p) - (p_t * (1 - p_t)).mean(axis=0) - p_t.var(axis=0)).max()
divergence = (p_t * np.log(p_t / p)).sum(axis=2).mean(axis=0)  # mean KL of the draws from their mean
entropy_gap = np.abs(found.entropy - found.expected_entropy - divergence).max()
print(f"largest |total - aleatoric - epistemic| {gap:.1e}")
print(f"largest |entropy - expected entropy - mutual information| {entropy_gap:.1e} nats")
print(f"mean of the clips: total {found.total.sum(1).mean():.4f}", end=" = ")
print(f"aleatoric {found.aleatoric.sum(1).mean():.4f} + epistemic {found.epistemic.sum(1).mean():.4f}")
print(f"mean of the clips: entropy {found.entropy.mean():.4f}", end=" = ")
print(
    f"expected entropy {found.expected_entropy.mean():.4f} + mutual information {found.mutual_information.mean():.4f}"
)

# %% [markdown]
# ## Which layer's noise?
#
# The weights of one block are drawn while all others stay at their means. A block can matter in two ways: through the
# width of its posterior, and through the effect of its weights on the output.

# %%
blocks = (
    *("conv_block1", "resnet.layer1", "resnet.layer2", "resnet.layer3", "resnet.layer4"),
    *("conv_block_after1", "fc1", "fc_audioset"),
)
guide = posterior.guide
fitted = {site: (loc.clone(), scale.clone()) for site, (loc, scale) in guide.gaussians().items()}
alone = {}
for block in blocks:
    drawn = [site for site in guide.sites if site.startswith(f"net.{block}.")]
    # A scale must be positive; so small a one is none.
    guide.assign({site: (loc, scale if site in drawn else 1e-12 * scale) for site, (loc, scale) in fitted.items()})
    parts = decompose(torch.stack(list(posterior.draws(waveforms, DRAWS))), "one-of-k", mirrored=posterior.mirrored)
    alone[block] = parts
guide.assign(fitted)

whole = found.per_clip()["epistemic"].mean()
print(f"{'drawn':<22}{'weights':>9}{'epistemic':>12}{'of all':>9}")
for block, parts in alone.items():
    count = sum(loc.numel() for site, (loc, _) in fitted.items() if site.startswith(f"net.{block}."))
    epistemic = parts.per_clip()["epistemic"].mean()
    print(f"{block:<22}{count:>9}{epistemic:>12.5f}{epistemic / whole:>9.0%}")
together = sum(parts.per_clip()["epistemic"].mean() for parts in alone.values())
print(f"{'added up':<31}{together:>12.5f}{together / whole:>9.0%}")
print(f"{'all at once':<31}{whole:>12.5f}")

# %%
figure, ax = plt.subplots(figsize=(7, 3.5), layout="constrained")
ax.barh(list(alone), [parts.per_clip()["epistemic"].mean() for parts in alone.values()], color=PALETTE[0])
ax.axvline(whole, color=INK, linewidth=1, linestyle=":", label="all weights drawn")
ax.invert_yaxis()
ax.set_xlabel("epistemic variance, mean of the clips")
clean(ax)
legend_above(ax)

# %% [markdown]
# The second smallest block contributes most: the first convolutions, with fewer than one in two hundred of the
# weights. An output there sums nine inputs or 144, so little of its noise averages out, and every later layer depends
# on it. The last layer, the only one that a posterior of the last layer draws, contributes almost nothing here. The
# parts nearly add up to the whole: the noises of the blocks hardly interact. The width of the first block was set by
# the recipe (`init_scale`) and barely changed by the fit, as the notebook on anatomy shows. So most of this
# uncertainty was chosen.
#
# ## How many draws?
#
# The package gives each number a standard error for its finite number of draws, by the jackknife over groups of
# draws. Here the same clips are predicted with more and more draws. The claimed error is compared with the true one,
# for which the largest number of draws is the reference.

# %%
few = waveforms[:24]
many = torch.stack(list(posterior.draws(few, MANY, seed=1)))
reference = decompose(torch.stack(list(posterior.draws(few, MANY, seed=2))), "one-of-k", mirrored=posterior.mirrored)
counts = [count for count in (4, 8, 16, 32, 64, 128, 256) if count <= MANY]
rows = []
for count in counts:
    # As many non-overlapping runs of draws as there are, so that the true error is a mean over several.
    runs = [decompose(run, "one-of-k", mirrored=posterior.mirrored) for run in many.split(count)]
    error = np.sqrt(np.mean([(run.probability - reference.probability) ** 2 for run in runs]))
    claimed = np.sqrt(np.mean([run.standard_error.probability**2 for run in runs]))
    spread = np.mean([run.per_clip()["epistemic"].mean() for run in runs])
    spread_error = np.sqrt(np.mean([(run.epistemic - reference.epistemic) ** 2 for run in runs]))
    spread_claimed = np.sqrt(np.mean([run.standard_error.epistemic**2 for run in runs]))
    rows.append((count, claimed, error, spread_claimed, spread_error, spread))

print(
    f"{'':<8}{'probability':^22}{'epistemic':^22}\n{'draws':<8}"
    + f"{'claimed':>11}{'true':>11}" * 2
    + f"{'epistemic':>12}"
)
for count, *errors, spread in rows:
    print(f"{count:<8}" + "".join(f"{error:>11.5f}" for error in errors) + f"{spread:>12.5f}")

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
table = np.array(rows)
for ax, claimed, true, title in ((axes[0], 1, 2, "a probability"), (axes[1], 3, 4, "an epistemic variance")):
    ax.plot(counts, table[:, claimed], "o-", color=PALETTE[0], label="standard error that is given")
    ax.plot(counts, table[:, true], "s--", color=PALETTE[1], label="distance from many more draws")
    ax.plot(counts, table[0, claimed] * (counts[0] / np.array(counts)) ** 0.5, ":", color=INK, label="1 / sqrt(draws)")
    ax.set(xscale="log", yscale="log", xlabel="draws", ylabel=f"error of {title}, root mean square")
    ax.set_xticks(counts, [str(count) for count in counts])
    ax.minorticks_off()
    clean(ax)
legend_above(axes[0])

# %% [markdown]
# The reference has an error of its own, as large as that of the last row, so the true error there is too high by a
# factor of about sqrt(2). Before that it exceeds the claim by up to a quarter. All clips are predicted with the same
# draws, so this is one experiment and not one for each clip, and the excess may be chance. With few draws the
# epistemic variance is also too small on average, since a variance over T draws misses the variance of their mean.

# %% [markdown]
# ## Aleatoric: mixing two sounds
#
# Two clips of different kinds are mixed in changing proportions. A mixture of halves is truly ambiguous for a model
# that must name one kind, so the aleatoric part should grow. No such mixture was in the training data, so the
# epistemic part may grow too.

# %%
kind = held.target.argmax(axis=1)
partner = np.array(
    [np.flatnonzero(kind != kind[index])[index % (kind != kind[index]).sum()] for index in range(HELD_OUT)]
)
shares = np.linspace(0, 0.5, 3 if SMALL else 6)
level = waveforms.square().mean(dim=1, keepdim=True).sqrt()
equal = 0.1 * waveforms / level
mixed = []
for share in shares:
    mixture = (1 - share) ** 0.5 * equal + share**0.5 * equal[partner]
    parts = decompose(torch.stack(list(posterior.draws(mixture, DRAWS))), "one-of-k", mirrored=posterior.mirrored)
    mixed.append(parts)
print(
    f"{'share of the other':<20}{'aleatoric':>10}{'epistemic':>11}{'entropy':>9}{'mutual inf.':>13}{'one of both':>13}"
)
for share, parts in zip(shares, mixed, strict=True):
    named = parts.probability.argmax(axis=1)
    either = ((named == kind) | (named == kind[partner])).mean()
    per_clip = parts.per_clip()
    print(
        f"{share:<20.1f}{per_clip['aleatoric'].mean():>10.4f}{per_clip['epistemic'].mean():>11.4f}"
        f"{parts.entropy.mean():>9.3f}{parts.mutual_information.mean():>13.4f}{either:>13.2f}"
    )

# %%
figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
for name, color in (("aleatoric", PALETTE[0]), ("epistemic", PALETTE[1])):
    ax.plot(shares, [parts.per_clip()[name].mean() for parts in mixed], "o-", color=color, label=name)
ax.set(xlabel="share of the other sound's energy", ylabel="variance, mean of the clips", ylim=(0, None))
clean(ax)
legend_above(ax)

# %% [markdown]
# Both grow, by about the same factor. A tenth of the other sound has nearly the full effect; more changes little. So
# the draws do not agree on "it is one of these two": they give different answers, and the aleatoric part is not the
# ambiguity of the sound alone. The identity separates the two parts, but it does not separate their causes.
#
# ## Epistemic: more data

# %%
learned = {}
print(
    f"{'clips':<8}{'accuracy':>9}{'NLL':>8}{'aleatoric':>11}{'epistemic':>11}{'mutual inf.':>13}{'epistemic share':>17}"
)
for clips, each in posteriors.items():
    parts = decompose(torch.stack(list(each.draws(waveforms, DRAWS))), "one-of-k", mirrored=each.mirrored)
    learned[clips] = per_clip = {name: values.mean() for name, values in parts.per_clip().items()}
    right, cost = accuracy(parts.probability, held.target), nll(parts.probability, held.target, "one-of-k")
    print(
        f"{clips:<8}{right:>9.3f}{cost:>8.3f}"
        f"{per_clip['aleatoric']:>11.4f}{per_clip['epistemic']:>11.4f}{parts.mutual_information.mean():>13.4f}"
        f"{per_clip['epistemic'] / per_clip['total']:>17.1%}"
    )

# %%
figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
for name, color in (("total", PALETTE[2]), ("aleatoric", PALETTE[0]), ("epistemic", PALETTE[1])):
    ax.plot(SIZES, [values[name] for values in learned.values()], "o-", color=color, label=name)
ax.set(xscale="log", yscale="log", xlabel="training clips", ylabel="variance, mean of the held-out clips")
ax.set_xticks(SIZES, [str(size) for size in SIZES])
ax.minorticks_off()
clean(ax)
legend_above(ax)

# %% [markdown]
# With eight times the clips the epistemic part falls by about a quarter, in size and as a share, and not at every
# step. A posterior whose width depended on the data alone would fall far more. The number of steps is the same, and
# so is the distance that the scales can move from their start. Accuracy and NLL are best in between, since with more
# clips in as many steps each clip is seen less often.
