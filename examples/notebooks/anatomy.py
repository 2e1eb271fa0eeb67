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
# # Anatomy of a posterior
#
# **Which weights has a fit learned, which still equal the prior, and which could be left out?** A mean-field
# posterior has a mean (`loc`) and a standard deviation (`scale`) for every weight, so each can be examined.
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
from bayes_panns.jobs import evaluate_posterior, fit
from bayes_panns.metrics.plotting import INK, PALETTE, clean, legend_above, percent
from bayes_panns.posterior import Posterior, load
from bayes_panns.recipes import Data, Run
from bayes_panns.soundscapes.scenes import DOWNSTREAM, soundscapes
from bayes_panns.svi import METRICS, FitSettings, read_metrics

SMALL = bool(os.environ.get("SMALL"))
CLIPS, HELD_OUT, EPOCHS, DRAWS = (32, 16, 2, 2) if SMALL else (480, 320, 15, 10)
PRUNED = (0, 0.5, 0.9) if SMALL else (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
WORK = Path(tempfile.mkdtemp())

# %% [markdown]
# ## The fit
#
# The narrow residual network. Every convolution and linear layer is variational, under the prior Normal(0, 1 /
# fan-in). The KL is multiplied by a thousandth, as in the package's recipes: with a thousand weights a clip, an
# untempered fit learns far less (see the notebook on predictive checks).

# %%
for name, count, seed in (("fit", CLIPS, 0), ("held-out", HELD_OUT, 1)):
    made = soundscapes(DOWNSTREAM, count, seconds=0.5, sample_rate=8000, events=(1, 1), seed=seed)
    write(WORK / f"{name}.h5", made.waveform, made.target, made.labels, Task.ONE_OF_K, made.sample_rate)

recipe = Run(
    net="resnet14-narrow",
    guide="flip",
    data=Data(stores=[str(WORK / "fit.h5")], validation=0.0),
    fit=FitSettings(
        epochs=EPOCHS, batch_size=16, learning_rate=2e-3, kl_weight=1e-3, kl_warmup=EPOCHS / 5, spec_augment=False
    ),
)
posterior = fit(recipe, WORK / "run").posterior
metrics = evaluate_posterior(posterior, [WORK / "held-out.h5"], draws=DRAWS).metrics
print(f"held out: accuracy {metrics['cls/accuracy']:.3f}, NLL {metrics['cal/nll']:.3f} nats")

# %% [markdown]
# ## Layer by layer
#
# All numbers are in units of the prior's standard deviation, so that 1 is the prior. `moved` is the root mean square
# distance of the locs from their random start; `at 0` is the share of locs within 0.01 of 0; `scale` is the median
# posterior scale, which started at 0.1; `SNR` is the median of |loc| / scale. The KL of a weight, (loc² + scale² - 1)
# / 2 - ln scale, has a part for its loc and a part for its scale.

# %%
torch.manual_seed(recipe.fit.seed)  # as the fit began
start = Posterior.build(
    net=posterior.net,
    labels=posterior.labels,
    task=posterior.task,
    sample_rate=posterior.sample_rate,
    clip_seconds=posterior.clip_seconds,
    strategy=posterior.strategy,
)
layers = {}
print(f"{'':<32}{'weights':>8}{'moved':>7}{'at 0':>7}{'scale':>7}{'SNR':>7}{'KL / nats':>11}{'of width':>10}")
for site, where in posterior.model.sites.items():
    if site.endswith(".bias"):
        continue
    unit = where.fan_in**0.5
    loc, scale = (each * unit for each in posterior.guide.gaussians()[site])
    layers[where.name.removesuffix(".weight")] = layer = {
        "loc": loc.flatten().numpy(),
        "scale": scale.flatten().numpy(),
        "moved": (loc - start.guide.gaussians()[site][0] * unit).flatten().numpy(),
        "KL of loc": float((loc**2).sum() / 2),
        "KL of width": float(((scale**2 - 1) / 2 - scale.log()).sum()),
    }
    kl = layer["KL of loc"] + layer["KL of width"]
    print(
        f"{where.name.removesuffix('.weight'):<32}{loc.numel():>8}{np.sqrt((layer['moved'] ** 2).mean()):>7.2f}"
        f"{(loc.abs() < 0.01).float().mean():>7.0%}{scale.median():>7.3f}{(loc.abs() / scale).median():>7.2f}"
        f"{kl:>11.0f}{layer['KL of width'] / kl:>10.0%}"
    )

# %%
figure, axes = plt.subplots(1, 3, figsize=(12, 5), sharey=True, layout="constrained")
rows = np.arange(len(layers))
for ax, title, values in (
    (axes[0], "scale / prior scale", [layer["scale"] for layer in layers.values()]),
    (axes[1], "signal to noise, |loc| / scale", [np.abs(layer["loc"]) / layer["scale"] for layer in layers.values()]),
):
    low, middle, high = np.array([np.quantile(value, (0.05, 0.5, 0.95)) for value in values]).T
    ax.hlines(rows, np.maximum(low, 1e-2), high, color=PALETTE[0], linewidth=3)
    ax.plot(np.maximum(middle, 1e-2), rows, "o", color=PALETTE[1])
    ax.set_xscale("log")
    ax.set_xlabel(title)
axes[0].axvline(0.1, color=INK, linewidth=1, linestyle=":")
axes[0].axvline(1, color=INK, linewidth=1)
axes[0].set_title("dotted: at the start; line: the prior", fontsize="small")
axes[1].set_title("dot: median; bar: 5 % to 95 % of the weights", fontsize="small")
weights = np.array([len(layer["loc"]) for layer in layers.values()])
of_loc, of_width = (
    np.array([layer[part] for layer in layers.values()]) / weights for part in ("KL of loc", "KL of width")
)
axes[2].barh(rows, of_loc, color=PALETTE[0], label="of the loc")
axes[2].barh(rows, of_width, left=of_loc, color=PALETTE[4], label="of the width")
axes[2].set_xlabel("KL / nats a weight")
axes[0].set_yticks(rows, list(layers))
axes[0].invert_yaxis()
for ax in axes:
    clean(ax)
legend_above(axes[2])

# %% [markdown]
# Neither signal to noise nor movement alone means "learned". A weight that never moved keeps its random start, whose
# size is about the prior's, over a scale of 0.1: an untouched layer has a median SNR near 7. The shortcuts
# (`downsample`) are such layers. And a weight that went to 0 has moved far without having learned anything.
#
# Nearly all of the KL comes from the small scales. The scales have moved only a small part of the way from their
# start to the prior. So they depend on `init_scale` and on the number of steps as much as on the data: a tempered fit
# of a few hundred steps does not measure the width of a posterior.

# %% [markdown]
# ## Two thirds at exactly 0
#
# In the last two convolutions about two thirds of the locs are at 0. Which ones? By their place in the 3 x 3 kernel:

# %%
site = "net.conv_block_after1.conv1.weight"
taps = (
    (posterior.guide.gaussians()[site][0].abs() * posterior.model.sites[site].fan_in ** 0.5 < 0.01).float().mean((0, 1))
)
print("share of locs at 0; rows: time, columns: frequency")
for row in taps.tolist():
    print("".join(f"{share:>8.0%}" for share in row))

# %% [markdown]
# Only the middle row is used. The network halves time five times, so clips of half a second are a single frame long
# in these layers. The rows before and after see only the padding. No gradient reaches those weights: only the prior
# acts on them, takes their locs to 0 and widens their scales. A point estimate would have left them at their random
# start, where nothing distinguishes them from the others. So the posterior shows what is wrong with this network for
# these clips: it is too deep for them, and a third of all its weights are unused.
#
# ## How the scales moved

# %%
lines = read_metrics(WORK / "run" / METRICS)
figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
units = {site.name: site.fan_in**0.5 for site in posterior.model.sites.values()}
shades = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(layers)))
for name, shade in zip(layers, shades, strict=True):
    ax.plot(
        [0, *(line["epoch"] for line in lines)],
        [0.1, *(line[f"scale/{name}.weight"] * units[f"{name}.weight"] for line in lines)],
        color=shade,
        label=name,
    )
ax.set(xlabel="epoch", ylabel="scale / prior scale, geometric mean")
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize="x-small")
clean(ax)

# %% [markdown]
# The layers with the largest scales are those of the last stages, which have by far the most weights, each of which
# matters least. In the two layers with unused weights, the mean is over both kinds of weights. The curves flatten
# because the learning rate falls to 0, not because the scales have converged.

# %% [markdown]
# ## Pruning by signal to noise
#
# A weight whose posterior hardly excludes 0 can be set to 0 (Graves, 2011, "Practical Variational Inference for
# Neural Networks"; Blundell et al., 2015, "Weight Uncertainty in Neural Networks"). Here the weights of the whole
# network are removed in the order of |loc| / scale, in the order of |loc| alone in prior units, and in random order.
# Each network is scored at the posterior mean.

# %%
locs = {site: loc.clone() for site, (loc, _) in posterior.guide.gaussians().items()}
scales = {site: scale.clone() for site, (_, scale) in posterior.guide.gaussians().items()}
fans = {site: where.fan_in for site, where in posterior.model.sites.items()}
generator = torch.Generator().manual_seed(0)
orders = {
    "|loc| / scale": {site: locs[site].abs() / scales[site] for site in locs},
    "|loc| / prior scale": {site: locs[site].abs() * fans[site] ** 0.5 for site in locs},
    "random": {site: torch.rand(locs[site].shape, generator=generator) for site in locs},
}
pruned = load(WORK / "run")
curves = {}
for order, rank in orders.items():
    every = torch.cat([values.flatten() for values in rank.values()]).sort().values
    for share in PRUNED:
        cut = every[round(share * (len(every) - 1))]
        kept = {site: (values >= cut).float() if share else torch.ones_like(values) for site, values in rank.items()}
        # A scale must be positive; so small a one is none.
        pruned.guide.assign({site: (locs[site] * kept[site], scales[site] * kept[site] + 1e-12) for site in locs})
        found = evaluate_posterior(pruned, [WORK / "held-out.h5"], draws=0).metrics
        curves.setdefault(order, []).append((found["cls/accuracy"], found["cal/nll"]))

print(
    f"{'removed':<10}"
    + "".join(f"{order:>28}" for order in curves)
    + "\n"
    + " " * 10
    + f"{'accuracy':>19}{'NLL':>9}" * 3
)
for index, share in enumerate(PRUNED):
    print(f"{share:<10.0%}" + "".join(f"{curve[index][0]:>19.3f}{curve[index][1]:>9.3f}" for curve in curves.values()))

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for part, (ax, title) in enumerate(zip(axes, ("accuracy", "NLL / nats"), strict=True)):
    for (order, curve), color in zip(curves.items(), PALETTE, strict=False):
        ax.plot(PRUNED, [values[part] for values in curve], "o-", color=color, label=order)
    ax.set(xlabel="share of the weights removed", ylabel=title)
    percent(ax.xaxis)
    clean(ax)
axes[1].set_ylim(0, 3)
legend_above(axes[0])

# %% [markdown]
# More than half of the weights can be removed without loss; in random order, a tenth is too many. |loc| alone does
# about as well, because many of the free weights are the unused ones. The scale begins to matter only where removal
# begins to hurt. Beyond that point both orders end in a constant answer, since BatchNorm was not fitted again.
#
# The share of its weights that a layer keeps when half of all are removed, in the order of signal to noise:

# %%
half = torch.cat([values.flatten() for values in orders["|loc| / scale"].values()]).median()
for name in layers:
    kept = (orders["|loc| / scale"][f"net.{name}.weight"] > half).float().mean()
    print(f"{name:<32}{kept:>6.0%}  {'#' * round(40 * float(kept))}")

# %% [markdown]
# ## What a mean-field posterior cannot say
#
# It has no correlations, so it cannot say "this weight or that one". One such direction is known exactly: adding the
# same number to the biases of all labels leaves every probability unchanged. The data say nothing about it, so along
# it the true posterior is the prior, tempered or not. The guide gives it the width of its single weights:

# %%
scale = scales["net.fc_audioset.bias"]
prior = fans["net.fc_audioset.bias"] ** -0.5
along = scale.square().mean().sqrt()
print(f"standard deviation along (1, ..., 1) / sqrt(K): guide {along:.4f}, true posterior {prior:.4f}")
print(f"the guide is {prior / along:.1f} times too narrow there")

# %% [markdown]
# This is harmless, since no prediction depends on that direction. But trade-offs between weights on which predictions
# do depend are lost as well. `examples/nuts_head.py` measures that on a last layer that is small enough for NUTS.
