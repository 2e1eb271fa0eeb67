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
# Which weights has a fit learned?

# %%
import os

import matplotlib.pyplot as plt
import torch

import bayes_panns

SMALL = bool(os.environ.get("SMALL"))

# %%
plt.plot([1, 2])
print(torch.ones(3), bayes_panns.__version__)
