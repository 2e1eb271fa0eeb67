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
# # First look: what is in a recording, and how sure is that?
#
# **What does a posterior say of a sound, of a minute of sound, and of a sound that it has never heard? And how do I get
# at the numbers?** The notebook fits a small posterior, tags sounds with it, and looks at the tags: as a picture, as
# events, and as tables.
#
# Data: synthetic soundscapes of eight kinds, made here. Nothing is downloaded. This takes about a minute on two cores.

# %%
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import soundfile

from bayes_panns import fit, load
from bayes_panns.clips import Task, write
from bayes_panns.metrics.plotting import PALETTE, clean
from bayes_panns.predictions import EventRules
from bayes_panns.recipes import Data, Run
from bayes_panns.soundscapes.scenes import DOWNSTREAM, NOVEL, render, soundscapes
from bayes_panns.svi import FitSettings

SMALL = bool(os.environ.get("SMALL"))
CLIPS, EPOCHS, DRAWS, MINUTE = (16, 1, 2, 2) if SMALL else (320, 20, 50, 30)
RATE, SECONDS = 8000, 1.0
WORK = Path(tempfile.mkdtemp())

# %% [markdown]
# ## A posterior
#
# `fit` leaves it in a folder, and `load` reads it again. The last line of a cell shows it: what it is, what it was
# fitted to, and whether its probabilities are calibrated. Several folders make an ensemble: `load("runs/a", "runs/b")`.

# %%
made = soundscapes(DOWNSTREAM, CLIPS, seconds=SECONDS, sample_rate=RATE, events=(1, 1), seed=0)
write(WORK / "clips.h5", made.waveform, made.target, made.labels, Task.ONE_OF_K, made.sample_rate)
settings = FitSettings(
    epochs=EPOCHS, batch_size=16, learning_rate=2e-3, kl_weight=1e-3, kl_warmup=EPOCHS / 5, spec_augment=False
)
fit(Run(data=Data(stores=[str(WORK / "clips.h5")], validation=0.0), fit=settings), WORK / "run")
posterior = load(WORK / "run")
posterior

# %% [markdown]
# ## One sound
#
# `predict` takes a file, a folder, several of them, or samples in memory with their rate. Each label has a bar for its
# probability, and a line for where the central 90 % of the draws of the weights put it.

# %%
held = soundscapes(DOWNSTREAM, MINUTE, seconds=2.0, sample_rate=RATE, events=(1, 1), seed=1)
truth = [held.labels[k] for k in held.target.argmax(axis=1)]
tags = posterior.predict({truth[0]: held.waveform[0, :RATE]}, rate=RATE, draws=DRAWS)
tags

# %%
tags.top(3)

# %% [markdown]
# ## A minute of sound
#
# Two seconds of each of several kinds, one after the other, as a file. It is cut into windows, one every quarter of a
# second. Below the spectrogram each of the surest labels has a lane: its probability, and its band.

# %%
soundfile.write(WORK / "minute.wav", held.waveform.reshape(-1), RATE)
minute = posterior.predict(WORK / "minute.wav", hop=0.25, draws=DRAWS)
minute

# %% [markdown]
# Windows that follow each other make events. An event has a probability of its own, from the draws: that the label is
# there at all.

# %%
events = minute.events(EventRules(threshold=0.5, least=0.5))
heard = {name: [(event.onset, event.offset) for event in events if event.label == name] for name in set(truth)}
found = sum(
    any(onset < 2 * place + 2 and offset > 2 * place for onset, offset in heard[name])
    for place, name in enumerate(truth)
)
print(f"{found} of {len(truth)} stretches have an event of their own kind, of {len(events)} events in all")
for event in events[:5]:
    print(f"{event.onset:5.1f} to {event.offset:4.1f} s  {event.label:<12} {event.probability:.2f}")

# %% [markdown]
# ## The numbers
#
# Windows and files are taken out like items of a list: `minute[10]`, `minute[10:20]`, `folder["a.wav"]`. All numbers
# are there as NumPy arrays, and as tables and arrays of other packages.

# %%
minute.to_pandas().groupby("label")[["probability", "epistemic", "aleatoric"]].mean().sort_values("probability")

# %%
data = minute.to_xarray()
data["probability"].mean("window").to_series().sort_values(ascending=False).head(3)

# %%
spread = data["samples"].std("draw").max("label")
print(f"the draws disagree most at {float(data['start'][spread.argmax('window')]):.2f} s")
minute.save(WORK / "minute.csv")
print((WORK / "minute.csv").read_text().splitlines()[0])

# %% [markdown]
# `to_polars()` gives a table of Polars, and `to_arviz()` the draws as a posterior predictive for ArviZ. `plot` draws on
# any Axes.

# %%
figure, ax = plt.subplots(figsize=(9, 3), layout="constrained")
minute[:40].plot(ax, top=4)
plt.show()

# %% [markdown]
# ## Sounds that it has never heard
#
# For kinds of sound that are in none of its clips, the draws of the weights should disagree more: the mutual
# information between label and weights is higher.

# %%
strange = posterior.predict(
    {name: render(name, 1, seconds=2.0, sample_rate=RATE, seed=2)[0] for name in NOVEL}, rate=RATE, draws=DRAWS
)
figure, ax = plt.subplots(figsize=(6, 2.6), layout="constrained")
bins = np.linspace(0, max(part.uncertainty.mutual_information.max() for part in (minute, strange)), 20)
for part, colour, name in ((minute, PALETTE[0], "kinds that it knows"), (strange, PALETTE[1], "other kinds")):
    values = part.uncertainty.mutual_information
    ax.hist(values, bins, weights=np.full(len(values), 1 / len(values)), color=colour, alpha=0.6, label=name)
ax.set(xlabel="mutual information / nats", ylabel="share of the windows")
ax.legend(frameon=False)
clean(ax)
plt.show()
print(f"medians: {np.median(minute.uncertainty.mutual_information):.3f}", end=" and ")
print(f"{np.median(strange.uncertainty.mutual_information):.3f} nats")

# %%
strange
