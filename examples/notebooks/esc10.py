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
# # Real sounds: when is epistemic uncertainty meaningful?
#
# **Does a fit to ESC-10 know what it has not heard: other sounds of the street, and speech? Does its epistemic
# uncertainty fall with more labels? And does noise show as aleatoric uncertainty?** The notebook asks the same
# questions of several posteriors, because the answers differ.
#
# Data: [UrbanSound8K](https://urbansounddataset.weebly.com/urbansound8k.html) (CC BY-NC 3.0),
# [ESC-50](https://github.com/karolpiczak/ESC-50), of which ESC-10 is a part (CC BY 3.0), and [spoken
# digits](https://github.com/Jakobovski/free-spoken-digit-dataset) (CC BY-SA 4.0). Fetch them from their authors and
# pack them; the excluded numbers are recordings that UrbanSound8K shares with ESC-10:
#
# ```
# SHARED=114587,180256,203128,163459,199261,30344,59513
# bayes-panns pack urbansound8k UrbanSound8K -o stores/us8k.h5 --exclude $SHARED
# bayes-panns pack esc50 ESC-50-master --esc10 -o stores/esc10.h5
# bayes-panns pack folder free-spoken-digit-dataset/recordings -o stores/fsdd.h5 --seconds 5
# ```
#
# The environment variables `STORES` and `RUNS` name other folders. Fits that `runs/` has already, as the README makes
# them, are used; the others take about 20 minutes on two cores. The rest takes about 8 on one.

# %%
import os
from itertools import islice
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from pyro.infer import SVI, TraceMeanField_ELBO
from pyro.optim import ClippedAdam
from torchaudio.functional import resample

from bayes_panns.bayes import Rule, Settings, Strategy, head_logits, mirrored_draws
from bayes_panns.clips import ClipSet
from bayes_panns.evaluations import intervals
from bayes_panns.jobs import fit
from bayes_panns.metrics import accuracy, auroc, bootstrap, detection, nll
from bayes_panns.metrics.plotting import FAINT, INK, PALETTE, clean, legend_above
from bayes_panns.posterior import Posterior, load
from bayes_panns.predictions import UncertaintyAccumulator, scores
from bayes_panns.recipes import read_run

SMALL = bool(os.environ.get("SMALL"))
STORES, RUNS = Path(os.environ.get("STORES", "stores")), Path(os.environ.get("RUNS", "runs"))
STEPS, DRAWS, DRAWS_OF_NET, RESAMPLES, SEEDS = (8, 4, 2, 20, 1) if SMALL else (300, 50, 10, 500, 3)
WIDTHS = (1.0, 10.0) if SMALL else (1.0, 3.0, 10.0, 30.0)
OUTSIDE = 20 if SMALL else 150  # clips of each kind of strange sound

# %% [markdown]
# ## Clips
#
# Folds 1 to 4 of ESC-10 are for fits and for the choice of settings; fold 5 is only scored. Near sounds are fold 10
# of UrbanSound8K, which the upstream fit never heard, without the one class that ESC-10 has too.

# %%
esc = ClipSet(STORES / "esc10.h5")
known, tested = esc.select(folds=[1, 2, 3, 4]), esc.select(folds=[5])
street = ClipSet(STORES / "us8k.h5", folds=[10])
street = street.select(indices=np.flatnonzero(~street.target()[:, street.labels.index("dog_bark")]))
digits = ClipSet(STORES / "fsdd.h5")


def some(clips):
    """A random part of a set."""
    chosen = np.random.default_rng(0).permutation(len(clips))[:OUTSIDE]
    return clips.select(indices=np.sort(chosen))


def waveforms(clips):
    return torch.from_numpy(clips.waveform(np.arange(len(clips))))


def without_top(waveform, hertz):
    """The sound below a frequency, as a recording at twice that rate would have it."""
    return resample(resample(waveform, esc.sample_rate, 2 * hertz), 2 * hertz, esc.sample_rate)


near, speech = some(street), some(digits)
label = torch.from_numpy(known.target().argmax(axis=1))
target = tested.target()
sounds = {"fold 5": waveforms(tested), "near": waveforms(near), "speech": waveforms(speech)}
sounds |= {
    "fold 5 below 10 kHz": without_top(sounds["fold 5"], 10_000),
    "near below 10 kHz": without_top(sounds["near"], 10_000),
    "fold 5 below 4 kHz": without_top(sounds["fold 5"], 4_000),
}
recordings = {
    "fold 5": tested.sources,
    "near": near.sources,
    "speech": np.array(speech.names),
}
for name in sounds:
    recordings.setdefault(name, recordings[name.split(" below")[0]])
for name, waveform in sounds.items():
    print(f"{name:<20} {len(waveform):>4} clips of {len(set(recordings[name])):>3} recordings")

# %% [markdown]
# ## Posteriors of a whole network
#
# Upstream: every weight variational, fitted to UrbanSound8K. From there, the package's ESC-10 recipe with three
# guides: `flip`, every weight variational, its KL multiplied by a thousandth; `drop`, Monte Carlo dropout; `det`,
# point weights.


# %%
def fitted(name, recipe, **settings):
    """The posterior in RUNS/name, from a fit that is done now if there is none."""
    if not (RUNS / name / "posterior").is_dir():
        if SMALL:
            settings |= {"fit.epochs": 1, "fit.kl_warmup": 0}
        fit(read_run(recipe, [f"{key}={value}" for key, value in settings.items()]), RUNS / name)
    return load(RUNS / name)


data = {"us8k": [str(STORES / "us8k.h5")], "esc10": [str(STORES / "esc10.h5")]}
upstream = fitted("us8k", "urbansound8k", **{"data.stores": data["us8k"]})
nets = {
    guide: fitted(f"esc10-{guide}", "esc10", upstream=RUNS / "us8k", guide=guide, **{"data.stores": data["esc10"]})
    for guide in ("flip", "drop", "det")
}

# %% [markdown]
# ## Posteriors of a last layer
#
# A new last layer on the frozen upstream network has 1,290 weights. That is few enough to fit by the plain ELBO,
# `kl_weight` 1, in seconds, with Pyro alone: the model, the mean-field guide, SVI. The network runs once for each
# clip; its output, the input of the last layer, is the clip's *embedding*.
#
# Two choices remain. **The prior's width**, in units of 1 / sqrt(fan-in). **The axes**: a mean-field guide has no
# correlations, so the coordinates in which it is mean-field matter. In the principal axes of the embeddings the model
# is the same, since the prior is isotropic, but the guide is another.


# %%
def last_layer(width, clips):
    """A posterior with a point backbone, the upstream's, and a variational last layer, not yet fitted."""
    posterior = Posterior.build(
        net=upstream.net,
        labels=esc.labels,
        task=esc.task,
        sample_rate=esc.sample_rate,
        clip_seconds=esc.seconds_per_clip,
        strategy=Strategy(
            default=Settings(posterior="point"),
            rule=[Rule(match="head.*", posterior="normal", prior_scale=width, init_scale=0.3, estimator="local")],
        ),
        clips=clips,
    )
    posterior.start_from(upstream)
    return posterior


def fit_last_layer(embedding, label, width, seed=0):
    """Fit to embeddings ``(clips, E)``; of ``(views, clips, E)`` each step takes one view of every clip."""
    torch.manual_seed(seed)
    views = embedding.reshape(-1, *embedding.shape[-2:])
    posterior = last_layer(width, len(label))
    optimiser = ClippedAdam({"lr": 0.05, "lrd": 0.05 ** (1 / STEPS)})
    svi = SVI(posterior.model, posterior.guide, optimiser, TraceMeanField_ELBO())
    every = torch.arange(len(label))
    for _ in range(STEPS):
        svi.step(views[torch.randint(len(views), (len(label),)), every], label, embedded=True)
    return posterior


def of_embedding(posterior, embedding):
    accumulator = UncertaintyAccumulator(posterior.task, mirrored=True)
    for weights in islice(mirrored_draws(posterior.guide, seed=0), DRAWS):
        accumulator.update(head_logits(posterior.model, weights, embedding).softmax(dim=1))
    return accumulator.result()


backbone = last_layer(1.0, len(known)).model.eval()


@torch.no_grad()
def embed(waveform):
    return torch.cat([backbone.embed(batch) for batch in waveform.split(32)])


learned = embed(waveforms(known))
embeddings = {name: embed(waveform) for name, waveform in sounds.items()}
axes = {"plain": torch.eye(learned.shape[1]), "principal": torch.linalg.eigh(learned.T @ learned).eigenvectors}

# %% [markdown]
# The width is chosen by the NLL of left-out training folds, with four fits each. Fold 5 and the out-of-distribution
# sounds are not used.

# %%
truth, chosen = known.target(), {}
print("NLL / nats of the fold left out, mean over folds 1 to 4\n")
print(f"{'axes':<12}" + "".join(f"{f'width {width:g}':>12}" for width in WIDTHS))
for name, axis in axes.items():
    losses = {}
    for width in WIDTHS:
        losses[width] = []
        for fold in (1, 2, 3, 4):
            out = known.folds == fold
            posterior = fit_last_layer(learned[~out] @ axis, label[~out], width)
            probability = of_embedding(posterior, learned[out] @ axis).probability
            losses[width].append(nll(probability, truth[out], posterior.task))
    chosen[name] = min(WIDTHS, key=lambda width: np.mean(losses[width]))
    print(f"{name:<12}" + "".join(f"{np.mean(loss):>12.3f}" for loss in losses.values()))
print("\nchosen:", ", ".join(f"{width:g} in {name} axes" for name, width in chosen.items()))

# %% [markdown]
# The package's default width, 1, is too narrow for a last layer at `kl_weight` 1: its pull towards 0 costs more than
# it saves. It is kept below as a warning.

# %%
heads = {
    "last layer, width 1": (1.0, "plain"),
    "last layer": (chosen["plain"], "plain"),
    "last layer, principal axes": (chosen["principal"], "principal"),
}
heads = {
    name: (fit_last_layer(learned @ axes[axis], label, width), axes[axis]) for name, (width, axis) in heads.items()
}

found = {}
for name, (posterior, axis) in heads.items():
    found[name] = {sound: of_embedding(posterior, embedding @ axis) for sound, embedding in embeddings.items()}
for name, posterior in nets.items():
    found[name] = {}
    for sound, waveform in sounds.items():
        accumulator = UncertaintyAccumulator(posterior.task, mirrored=posterior.mirrored)
        for probability in posterior.draws(waveform, DRAWS_OF_NET):
            accumulator.update(probability)
        found[name][sound] = accumulator.result()

print("ESC-10, fold 5, after folds 1 to 4; 95 % bootstrap intervals over recordings\n")
for name, results in found.items():
    metrics = intervals(results["fold 5"], target, esc.task, groups=recordings["fold 5"], resamples=RESAMPLES)
    print(
        f"{name:<28} accuracy {metrics['cls/accuracy']}   NLL {metrics['cal/nll']}   ECE {metrics['cal/ece']}   "
        f"epistemic share {metrics['unc/epistemic'].value / metrics['unc/total'].value:.0%}"
    )

# %% [markdown]
# ## Sounds that the fit has not heard
#
# AUROC of each score: the probability that an out-of-distribution clip scores above a known one; 0.5 is chance. Two
# differences could be detected that have nothing to do with the kind of sound, so there are controls for both. The
# spoken digits were recorded at 8 kHz, and sounds of UrbanSound8K may lack the top of the spectrum as well. The
# *trivial score* is the loudest frame of the top eight mel bands, which is lower for out-of-distribution clips. Near
# sounds are also compared after both sides have lost everything above 10 kHz, which weakens the trivial score. And
# known sounds below 4 kHz are themselves scored as out-of-distribution clips, though only the missing band is unusual
# about them.

# %%
PAIRS = {
    "near": ("fold 5", "near"),
    "near, both below 10 kHz": ("fold 5 below 10 kHz", "near below 10 kHz"),
    "speech": ("fold 5", "speech"),
    "known, below 4 kHz": ("fold 5", "fold 5 below 4 kHz"),
}
SCORES = ("confidence", "entropy", "expected_entropy", "mutual_information", "epistemic")


def interval(inside, outside, pair):
    """AUROC, and its interval over recordings of both sides."""
    score, strange = np.concatenate([inside, outside]), np.repeat([False, True], [len(inside), len(outside)])
    groups = np.concatenate([[f"{side} {name}" for name in recordings[sound]] for side, sound in enumerate(pair)])
    return bootstrap(
        lambda score, strange: auroc(score[~strange], score[strange]),
        score,
        strange,
        groups=groups,
        resamples=RESAMPLES,
    )


@torch.no_grad()
def trivial(waveform):
    """Minus the loudest frame of the top eight mel bands, in dB: known from the front end alone."""
    return np.concatenate(
        [-upstream.front_end(batch)[:, :, -8:].mean(2).amax(1).numpy() for batch in waveform.split(32)]
    )


table = {}
for title, pair in PAIRS.items():
    inside, outside = (trivial(sounds[sound]) for sound in pair)
    table[title] = {("trivial", ""): interval(inside, outside, pair)}
    print(f"\n{title}\n  {'trivial: top mel bands':<30}{table[title]['trivial', '']}")
    print(f"  {'':<30}" + "".join(f"{score.replace('_', ' '):<26}" for score in SCORES))
    for name, results in found.items():
        inside, outside = (scores(results[sound]) for sound in pair)
        for score in SCORES:
            if np.ptp(np.concatenate([inside[score], outside[score]])):
                table[title][name, score] = interval(inside[score], outside[score], pair)
        row = [str(table[title].get((name, score), "none: no draws")) for score in SCORES]
        print(f"  {name:<30}" + "".join(f"{cell:<26}" for cell in row))

# %%
figure, panels = plt.subplots(2, 2, figsize=(11, 9), sharex=True, sharey=True, layout="constrained")
marks = {"entropy": "o", "mutual_information": "s", "expected_entropy": "^"}
for ax, (title, values) in zip(panels.flat, table.items(), strict=True):
    for row, name in enumerate(found):
        for offset, (score, mark) in enumerate(marks.items()):
            if (name, score) in values:
                value, height = values[name, score], row + 0.22 * (offset - 1)
                ax.plot([value.low, value.high], [height, height], color=PALETTE[offset], linewidth=1.5)
                ax.plot(value.value, height, mark, color=PALETTE[offset], markersize=6)
    ax.axvline(0.5, color=INK, linewidth=1)
    ax.axvline(values["trivial", ""].value, color=PALETTE[3], linewidth=1.5, linestyle="--")
    ax.set_title(title, loc="left", fontsize="medium")
    ax.set(xlim=(0.15, 1.01), yticks=range(len(found)), yticklabels=list(found))
    ax.grid(visible=True, axis="x", color=FAINT)
    clean(ax)
handles = [
    plt.Line2D([], [], marker=mark, color=PALETTE[index], label=score.replace("_", " "))
    for index, (score, mark) in enumerate(marks.items())
]
handles.append(plt.Line2D([], [], color=PALETTE[3], linestyle="--", label="trivial: top mel bands"))
figure.legend(handles=handles, loc="outside upper left", ncols=4, frameon=False)
panels[0, 0].invert_yaxis()
for ax in panels[1]:
    ax.set_xlabel("AUROC, 95 % interval over recordings")

# %%
figure, panels = plt.subplots(1, 3, figsize=(12, 4.4), layout="constrained")
for ax, name in zip(panels, ("last layer", "last layer, principal axes", "flip"), strict=True):
    for sound, color in (("near", PALETTE[0]), ("speech", PALETTE[1])):
        for score, style in (("mutual_information", "-"), ("expected_entropy", ":")):
            inside, outside = (scores(found[name][which])[score] for which in ("fold 5", sound))
            curve = detection(inside, outside)
            curve.plot(ax, label=f"{sound}, {score.replace('_', ' ')}", color=color)
            ax.lines[-1].set_linestyle(style)
    legend_above(ax)
    ax.set_title(name, fontsize="medium", pad=72)

# %% [markdown]
# **Near sounds.** At the package's default width, the mutual information of a last layer points in the wrong
# direction, if in any: its draws disagree more about ESC-10 than about the street. With the width from
# cross-validation it is better than chance, and in the principal axes it is as good as the entropy. So meaningful
# epistemic uncertainty needed three things: `kl_weight` 1, a width chosen by the data, and axes in which the weights
# are nearly independent.
#
# **Fits of the whole network** detect near sounds better, by their entropy; `det`, which has no draws at all, does as
# well as `flip`. The mutual information of `flip` is a weaker score, and that of `drop` is about at chance. So
# fitting the whole network to ESC-10 matters more than how its uncertainty is split. And the best of them is about as
# good as the top of the spectrum: the copy of UrbanSound8K used for this text had been resampled to 22 kHz, which the
# original is not. Without that band the trivial score falls and those of the whole networks hardly do, so they detect
# something else; but all these intervals overlap.
#
# **Speech.** The mutual information of the plain last layer is nearly perfect, and so is the trivial score. Part of
# what its draws detect is the missing band: known sounds without everything above 4 kHz are detected as well, though
# far less than speech. The expected entropy, the aleatoric part, does far worse there, as the split promises. In the
# whole networks it is the other way round, and mutual information says little.

# %% [markdown]
# ## More labels
#
# The same last layer with a tenth, a quarter, a half and all of the labels of folds 1 to 4. The subsets are
# stratified by class and nested, so that a larger one contains the smaller ones. Each point is the mean over fold 5
# and over several random orders; the band is a bootstrap interval over the clips of fold 5.

# %%
SHARES = (0.25, 1.0) if SMALL else (0.1, 0.25, 0.5, 1.0)
MEASURES = ("mutual_information", "epistemic", "expected_entropy", "aleatoric")
curves = {name: {measure: {share: [] for share in SHARES} for measure in MEASURES} for name in list(heads)[1:]}
right = {name: {share: [] for share in SHARES} for name in curves}
strangers = {name: {share: [] for share in SHARES} for name in curves}
for name, axis in (("last layer", "plain"), ("last layer, principal axes", "principal")):
    for seed in range(SEEDS):
        random = np.random.default_rng(seed)
        order = [random.permutation(np.flatnonzero(label.numpy() == kind)) for kind in range(len(esc.labels))]
        for share in SHARES:
            subset = np.concatenate([clips[: max(1, round(share * len(clips)))] for clips in order])
            posterior = fit_last_layer(learned[subset] @ axes[axis], label[subset], chosen[axis], seed=seed)
            inside, outside = (of_embedding(posterior, embeddings[sound] @ axes[axis]) for sound in ("fold 5", "near"))
            for measure in MEASURES:
                curves[name][measure][share].append(scores(inside)[measure])
            right[name][share].append(accuracy(inside.probability, target))
            strangers[name][share].append(auroc(inside.mutual_information, outside.mutual_information))

for name, measures in curves.items():
    print(f"\n{name}\n{'share of labels':<34}" + "".join(f"{share:>24.0%}" for share in SHARES))
    for measure, by_share in measures.items():
        cells = [bootstrap(np.mean, np.mean(by_share[share], axis=0), resamples=RESAMPLES) for share in SHARES]
        print(f"{measure.replace('_', ' '):<34}" + "".join(f"{cell!s:>24}" for cell in cells))
    for what, values in (("accuracy", right), ("AUROC of near, mutual information", strangers)):
        print(f"{what:<34}" + "".join(f"{np.mean(values[name][share]):>24.3f}" for share in SHARES))


# %%
def band(ax, positions, values, color, label, style="-"):
    """Means of ``{position: (clips,)}`` with their bootstrap intervals."""
    cells = [bootstrap(np.mean, values[position], resamples=RESAMPLES) for position in positions]
    ax.fill_between(
        positions, [cell.low for cell in cells], [cell.high for cell in cells], color=color, alpha=0.2, lw=0
    )
    ax.plot(positions, [cell.value for cell in cells], "o", linestyle=style, color=color, label=label)


figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
for ax, (name, measures) in zip(panels, curves.items(), strict=True):
    for measure, title, color in (
        ("mutual_information", "epistemic: mutual information", PALETTE[0]),
        ("expected_entropy", "aleatoric: expected entropy", PALETTE[1]),
    ):
        by_share = {share: np.mean(values, axis=0) for share, values in measures[measure].items()}
        band(ax, SHARES, by_share, color, title)
    ax.set_xscale("log")
    ax.set_xticks(SHARES, [f"{share:.0%}" for share in SHARES])
    ax.minorticks_off()
    ax.set(xlabel="share of the labels of folds 1 to 4", ylabel="nats, mean over fold 5", title=name)
    ax.label_outer()
    ax.legend(frameon=False)
    clean(ax)

# %% [markdown]
# Epistemic uncertainty falls at every step to more labels, in both axes and in both units, nats and variance; the
# intervals do not overlap. This is what it should do. The aleatoric part should not depend on the number of labels.
# In plain axes it hardly does. In the principal axes it rises a little at first: with few labels and a wide prior
# each draw is certain, and wrong in its own way.
#
# As a detector, the disagreement improves with the labels too. With a tenth of them the plain last layer disagrees
# more about ESC-10 than about the street, because it knows neither yet. A large mutual information means little by
# itself; the difference between sounds counts.

# %% [markdown]
# ## Noise
#
# Each clip of fold 5 with white noise mixed in, at a falling signal-to-noise ratio, and then with a clip of another
# class instead. The sum has the loudness of the clip, so that the level gives nothing away. Then the same for a last
# layer that has been fitted with noise: to the same clips, at `kl_weight` 1, but at each step every clip is clean or
# has noise at one of a few ratios.

# %%
RATIOS = (40, 0) if SMALL else (40, 20, 10, 0, -10, -20)


def level(waveform):
    return waveform.square().mean(dim=1, keepdim=True).sqrt()


def mixed(waveform, other, ratio):
    """A sum with the first one's level, its parts ``ratio`` dB apart."""
    gain = 10 ** (-ratio / 20)
    return (waveform + gain * level(waveform) / level(other) * other) / np.sqrt(1 + gain**2)


generator = torch.Generator().manual_seed(0)
clips = sounds["fold 5"]
kind = target.argmax(axis=1)
partner = [int(np.random.default_rng(clip).choice(np.flatnonzero(kind != kind[clip]))) for clip in range(len(clips))]
white = torch.randn(clips.shape, generator=generator)
noisy = {
    "white noise": {ratio: embed(mixed(clips, white, ratio)) for ratio in RATIOS},
    "a clip of another class": {ratio: embed(mixed(clips, clips[partner], ratio)) for ratio in RATIOS},
}
practice = waveforms(known)
views = [learned] + [
    embed(mixed(practice, torch.randn(practice.shape, generator=generator), ratio))
    for ratio in ((10,) if SMALL else (35, 20, 5, -10))
]
listeners = {
    "last layer": heads["last layer"][0],
    "last layer that has met noise": fit_last_layer(torch.stack(views), label, chosen["plain"]),
}
noise = {
    (name, what): {ratio: of_embedding(posterior, embedding) for ratio, embedding in by_ratio.items()}
    for name, posterior in listeners.items()
    for what, by_ratio in noisy.items()
}
for (name, what), by_ratio in noise.items():
    print(f"\n{name}, {what}\n{'dB':<22}" + "".join(f"{ratio:>8}" for ratio in RATIOS))
    print(f"{'accuracy':<22}" + "".join(f"{accuracy(u.probability, target):>8.2f}" for u in by_ratio.values()))
    for measure in MEASURES:
        print(
            f"{measure.replace('_', ' '):<22}"
            + "".join(f"{scores(u)[measure].mean():>8.3f}" for u in by_ratio.values())
        )

# %%
figure, panels = plt.subplots(2, 2, figsize=(11, 7.5), sharex=True, sharey=True, layout="constrained")
for ax, ((name, what), by_ratio) in zip(panels.flat, noise.items(), strict=True):
    for measure, title, color in (
        ("mutual_information", "epistemic: mutual information", PALETTE[0]),
        ("expected_entropy", "aleatoric: expected entropy", PALETTE[1]),
    ):
        band(ax, RATIOS, {ratio: scores(u)[measure] for ratio, u in by_ratio.items()}, color, title)
    ax.set_title(f"{name}\n{what}", loc="left", fontsize="medium")
    clean(ax)
panels[0, 0].legend(frameon=False)
panels[0, 0].invert_xaxis()
for ax in panels[1]:
    ax.set_xlabel("signal to noise / dB: ever noisier to the right")
for ax in panels[:, 0]:
    ax.set_ylabel("nats, mean over fold 5")

# %% [markdown]
# **A model that was fitted without noise does not see noise as noise.** White noise takes the accuracy down to
# chance, but the aleatoric uncertainty rises only a little and then falls well below its start: to this last layer
# loud noise is a sound like any other, and it becomes certain of its wrong answer. The epistemic part rises a little
# and falls again as well. Neither gives a warning.
#
# **A model that was fitted with noise does.** Its aleatoric uncertainty rises at every step, as it should: it has
# learned what noise hides. So aleatoric uncertainty is not a property of the recording that every model can read; it
# is learned like the rest. Its epistemic part rises too, but less.
#
# **Another class mixed in** raises the aleatoric part of both models moderately, while the epistemic part hardly
# changes. It does not fall again where the other clip dominates, although the sound is then nearly that clip alone.
# Wrong answers there are counted against the first label only, and the model is less certain of the second label than
# it was of the first.
#
# ## What was confirmed and what was not
#
# - Epistemic uncertainty falls as labels are added: clearly confirmed.
# - Epistemic uncertainty detects sounds that were never heard: that of a last layer detects speech, and so does a
#   trivial score. It detects near sounds only with a chosen width and axes, no better than entropy, and no better than
#   the trivial score.
# - Aleatoric uncertainty rises with noise: only in a model that was fitted with noise. With another sound mixed in, it
#   rises in both.
# - A mean-field posterior's epistemic uncertainty depends on choices that accuracy does not reveal: the three last
#   layers are within a few hundredths in accuracy, but their epistemic share of the variance is 0.1 to 0.4.
