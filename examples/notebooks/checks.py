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
# # Prior and posterior predictive checks
#
# **What does a prior over weights predict before any data? Do data simulated from the fitted model look like the real
# data? And what does the weight of the KL change in that?**
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

from bayes_panns.bayes import Settings, Strategy
from bayes_panns.clips import Task, write
from bayes_panns.jobs import fit
from bayes_panns.metrics import accuracy, ece, nll, reliability
from bayes_panns.metrics.plotting import INK, PALETTE, clean, legend_above
from bayes_panns.posterior import Posterior
from bayes_panns.predictions import decompose
from bayes_panns.recipes import Data, Run
from bayes_panns.soundscapes.scenes import DOWNSTREAM, soundscapes
from bayes_panns.svi import FitSettings

SMALL = bool(os.environ.get("SMALL"))
CLIPS, HELD_OUT, EPOCHS, DRAWS, PRIOR_DRAWS = (32, 16, 1, 4, 4) if SMALL else (320, 200, 15, 32, 60)
WEIGHTS = (1e-3, 1.0) if SMALL else (1e-3, 1e-2, 1.0)
WORK = Path(tempfile.mkdtemp())
K = len(DOWNSTREAM)

made = soundscapes(DOWNSTREAM, CLIPS, seconds=0.5, sample_rate=8000, events=(1, 1), seed=0)
held = soundscapes(DOWNSTREAM, HELD_OUT, seconds=0.5, sample_rate=8000, events=(1, 1), seed=1)
waveforms = torch.from_numpy(held.waveform)
write(WORK / "fit.h5", made.waveform, made.target, made.labels, Task.ONE_OF_K, made.sample_rate)

# %% [markdown]
# ## Before any data
#
# The model without labels can simulate labels: draw weights from the prior and run the network. If all you know is
# that there are eight kinds of sound, equally frequent, you want probabilities that spread over the kinds, and draws
# that do not give every clip the same label. BatchNorm uses the batch's statistics here, as in a fit.

# %%
priors = {
    "Normal(0, 1)": Settings(prior="normal"),
    "Normal(0, 1 / fan-in)": Settings(prior="fan-in"),
    "Laplace, same variance": Settings(prior="laplace"),
}
some = waveforms[:64]
before = {}
for name, settings in priors.items():
    torch.manual_seed(0)
    model = Posterior.build(
        net="resnet14-narrow",
        labels=held.labels,
        task=Task.ONE_OF_K,
        sample_rate=held.sample_rate,
        clip_seconds=0.5,
        strategy=Strategy(default=settings),
    ).model
    model.train()
    with torch.no_grad():
        before[name] = torch.stack([model(some).softmax(dim=-1) for _ in range(PRIOR_DRAWS)])

print(f"{'prior':<24}{'confidence':>11}{'p > 0.99':>10}{'entropy':>9}{'commonest label':>17}{'mutual information':>20}")
for name, draws in before.items():
    confidence, label = draws.max(dim=-1)
    commonest = torch.stack([(label == k).float().mean(dim=1) for k in range(K)]).amax(dim=0).mean()
    parts = decompose(draws, "one-of-k")
    print(
        f"{name:<24}{confidence.mean():>11.3f}{(confidence > 0.99).float().mean():>10.1%}"
        f"{parts.expected_entropy.mean():>9.3f}{commonest:>17.1%}{parts.mutual_information.mean():>20.3f}"
    )
print(f"evenly spread: confidence {1 / K:.3f}, entropy {np.log(K):.3f} nats, commonest label {1 / K:.1%}")

# %%
figure, axes = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
for (name, draws), color in zip(before.items(), PALETTE, strict=False):
    confidence, label = draws.max(dim=-1)
    style = {"density": True, "histtype": "step", "color": color, "linewidth": 1.5}
    axes[0].hist(confidence.flatten(), bins=np.linspace(0, 1, 41), label=name, **style)
    commonest = torch.stack([(label == k).float().mean(dim=1) for k in range(K)]).amax(dim=0)
    axes[1].hist(commonest, bins=np.linspace(0, 1, 21), **style)
axes[0].set(xlabel="confidence of one draw in one clip", ylabel="density")
axes[1].set(xlabel="share of the clips that a draw calls by one name", ylabel="density")
for ax in axes:
    clean(ax)
legend_above(axes[0])

# %% [markdown]
# Under Normal(0, 1) a draw is certain about nearly every clip, and the draws contradict each other: before any data
# almost all of the uncertainty is mutual information. Under the prior scaled by fan-in, a draw is in doubt about each
# clip. BatchNorm rescales the outputs of the convolutions, so the difference comes from the last two layers. A
# Laplace prior of the same variance looks the same: each output sums over many weights. Under all three priors a draw
# gives about half of the clips the same label. Nobody holds such a belief about sounds; it is what a random network
# makes of similar spectrograms.
#
# ## Three weights of the KL
#
# The same fit with three weights of the KL; a weight of 1 is the ELBO. `scale` is the geometric mean of the posterior
# scales in units of the prior's.

# %%
fitted, after = {}, {}
print(f"{'KL weight':<11}{'KL / nats':>10}{'scale':>8}{'accuracy':>10}{'NLL':>8}{'ECE':>8}" + " aleatoric  epistemic")
for weight in WEIGHTS:
    settings = FitSettings(
        epochs=EPOCHS, batch_size=16, learning_rate=2e-3, kl_weight=weight, kl_warmup=EPOCHS / 4, spec_augment=False
    )
    recipe = Run(data=Data(stores=[str(WORK / "fit.h5")], validation=0.0), fit=settings)
    fitted[weight] = posterior = fit(recipe, WORK / f"run-{weight}").posterior
    after[weight] = draws = torch.stack(list(posterior.draws(waveforms, DRAWS)))
    parts = decompose(draws, "one-of-k", mirrored=posterior.mirrored)
    scales = [
        (posterior.guide.gaussians()[site][1] * where.fan_in**0.5).log().flatten()
        for site, where in posterior.model.sites.items()
    ]
    p, per_clip = parts.probability, parts.per_clip()
    print(
        f"{weight:<11g}{posterior.metrics['kl']:>10.0f}{torch.cat(scales).mean().exp():>8.3f}"
        f"{accuracy(p, held.target):>10.3f}{nll(p, held.target, 'one-of-k'):>8.3f}"
        f"{ece(p, held.target, 'one-of-k'):>8.3f}"
        f"{per_clip['aleatoric'].mean():>11.4f}{per_clip['epistemic'].mean():>11.4f}"
    )

# %%
figure, axes = plt.subplots(1, len(WEIGHTS), figsize=(3.4 * len(WEIGHTS), 4), layout="constrained")
for ax, (weight, draws) in zip(axes, after.items(), strict=True):
    reliability(draws.double().mean(dim=0).numpy(), held.target, "one-of-k").plot(ax)
    ax.set_xlabel(f"confidence, kl_weight {weight:g}")

# %% [markdown]
# At a weight of 1 the same number of steps teaches far less, and the epistemic uncertainty is the *smallest* of the
# three: every draw is in doubt about every clip, which counts as aleatoric. A small epistemic part is no sign of
# knowledge. The two tempered fits hardly differ. In none have the scales moved far from their start, 0.1 of the
# prior's: these widths mostly reflect the recipe's `init_scale`. All three fits are underconfident, the untempered
# one by far the most.
#
# ## Do simulated labels look like the real ones?
#
# A posterior predictive check (Gelman, Meng and Stern, 1996, "Posterior predictive assessment of model fitness via
# realized discrepancies") draws weights, simulates labels for the same clips, and compares a statistic of these with
# that of the true labels. The p-value is how often the simulated statistic is at least as large. Near 0 or 1, the
# model does not produce data like these. There are three statistics, for the training clips and for the held-out
# clips:
#
# - the NLL of the labels under the drawn weights: are the labels as surprising as the model expects?
# - the labels' error: how many are not the draw's first choice;
# - the errors among clips that the draw is more than 95 % sure of.


# %%
def discrepancies(probability: torch.Tensor, label: torch.Tensor) -> dict[str, torch.Tensor]:
    """The three statistics of labels ``(T, N)`` under the probabilities ``(T, N, K)`` of each draw: each ``(T,)``."""
    likelihood = probability.gather(2, label[..., None])[..., 0]
    confidence, first = probability.max(dim=2)
    wrong = (first != label).double()
    return {
        "NLL": -likelihood.log().mean(dim=1),
        "errors": wrong.sum(dim=1),
        "sure errors": (wrong * (confidence > 0.95)).sum(dim=1),
    }


generator = torch.Generator().manual_seed(0)
print(f"{'KL weight':<11}{'clips':<10}{'statistic':<13}{'true labels':>12}{'made up':>10}{'p-value':>9}")
shown = {}
for weight, posterior in fitted.items():
    for name, scenes in (("training", made), ("held out", held)):
        sounds = torch.from_numpy(scenes.waveform[:HELD_OUT])
        drawn = after[weight] if scenes is held else torch.stack(list(posterior.draws(sounds, DRAWS)))
        probability = drawn.double().clamp(min=1e-12)
        truth = torch.from_numpy(scenes.target[:HELD_OUT].argmax(axis=1)).expand(len(probability), -1)
        made_up = torch.multinomial(probability.flatten(0, 1), 1, generator=generator).view(truth.shape)
        real, replicated = discrepancies(probability, truth), discrepancies(probability, made_up)
        shown[weight, name] = real["NLL"], replicated["NLL"]
        for statistic in real:
            p_value = (replicated[statistic] >= real[statistic]).double().mean()
            print(
                f"{weight:<11g}{name:<10}{statistic:<13}{real[statistic].mean():>12.3f}"
                f"{replicated[statistic].mean():>10.3f}{p_value:>9.3f}"
            )

# %%
figure, axes = plt.subplots(1, len(WEIGHTS), figsize=(3.4 * len(WEIGHTS), 3.6), layout="constrained")
for ax, weight in zip(axes, WEIGHTS, strict=True):
    limits = [1e9, 0.0]
    for name, color in (("training", PALETTE[0]), ("held out", PALETTE[1])):
        real, replicated = shown[weight, name]
        ax.plot(real, replicated, ".", color=color, label=name)
        limits = [min(limits[0], *real, *replicated), max(limits[1], *real, *replicated)]
    ax.plot(limits, limits, color=INK, linewidth=1)
    ax.set(xlabel=f"NLL of the true labels, kl_weight {weight:g}", ylabel="NLL of made-up labels")
    clean(ax)
legend_above(axes[0])

# %% [markdown]
# Each dot is a draw of the weights. On the line, the true labels surprise the draw as much as its own. Above the
# line, it expects more surprise than it gets. That is so for all fits on the training clips: they have seen these
# labels, and their draws still hedge. On the held-out clips the tempered fits pass, with p-values towards 1, but none
# that so few draws could call extreme. At a weight of 1 the model expects more errors than it makes everywhere: it is
# too uncertain to produce data like these. If the labels fitted the model, p-values would crowd towards the middle.
# So an extreme p-value says something, a middling one little.
#
# ## Counts of each label

# %%
posterior = fitted[1e-3]
probability = after[1e-3].double()
label = torch.multinomial(probability.flatten(0, 1), 1, generator=generator).view(probability.shape[:2])
counts = torch.stack([(label == k).sum(dim=1) for k in range(K)], dim=1).double()
observed = held.target.sum(axis=0)
low, high = counts.quantile(torch.tensor([0.05, 0.95]).double(), dim=0)
figure, ax = plt.subplots(figsize=(7, 3.5), layout="constrained")
ax.vlines(range(K), low, high, color=PALETTE[0], linewidth=6, alpha=0.5, label="made up, 5 % to 95 % of the draws")
ax.plot(range(K), observed, "o", color=PALETTE[1], label="true labels")
ax.set_xticks(range(K), held.labels, rotation=30, ha="right")
ax.set(ylabel="held-out clips", ylim=(0, None))
clean(ax)
legend_above(ax)
print("posterior predictive p-values of the counts, kl_weight 0.001:")
for k, name in enumerate(held.labels):
    p_value = (counts[:, k] >= observed[k]).double().mean()
    print(f"{name:<12}true {observed[k]:>4}  made up {counts[:, k].mean():>6.1f}  p {p_value:.2f}")

# %% [markdown]
# The frequency of each kind is as in the data. This fit passes the check, and so would any fit that is right on
# average, even if it were wrong for every clip.
