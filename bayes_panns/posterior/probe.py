"""Where a probed last layer starts: logistic regression on the embeddings of the clips to fit."""

from functools import partial

import torch
from torch import Tensor

from bayes_panns.audio.augment import SpecAugment
from bayes_panns.bayes import BayesianNet, Part, embeddings_under, logistic_regression, mean_weights
from bayes_panns.svi import Embeddings, Features, require_single_embedding
from bayes_panns.svi.features import as_observed
from bayes_panns.svi.loader import one_pass

_VIEWS = 3
"""Views of each clip under SpecAugment, beside the clip itself."""

_BIAS_PRIOR_SCALE = 10.0
"""The standard deviation of the bias under its prior: wide."""

_BATCH = 32


def probed_head(
    model: BayesianNet,
    guide: Part,
    data: Features | Embeddings,
    labels: int,
    *,
    spec_augment: bool,
    seed: int,
    workers: int = 0,
) -> tuple[Tensor, Tensor]:
    """Weight ``(K, E)`` and bias ``(K,)`` of the most probable last layer, under the means of the backbone's weights.

    Args:
        model: The model.
        guide: Its guide.
        data: The clips to fit.
        labels: K.
        spec_augment: Whether masked views of each clip are fitted too, where ``data`` are not embeddings.
        seed: Seeds the masks.
        workers: How many processes read clips ahead.

    Raises:
        RecipeError: The network applies its last layer to every segment of a clip.
    """
    require_single_embedding(model, 'head = "probe"', 'use head = "random"')
    device = next(model.buffers()).device
    if isinstance(data, Embeddings):
        views = data.views
    else:
        model.eval()
        model.drop(False)
        weights = mean_weights(guide)
        masked = partial(SpecAugment(), generator=torch.Generator().manual_seed(seed))
        augmentations = [None] + [masked] * (_VIEWS if spec_augment else 0)
        batches = torch.arange(len(data)).split(_BATCH)
        with one_pass(data, batches, device, workers=workers) as read:
            views = torch.cat(
                [
                    torch.stack([embeddings_under(model, weights, clips, each) for each in augmentations], dim=1)
                    for clips, _ in read
                ]
            )
    target = as_observed(data.target).to(views.device)
    return logistic_regression(views, target, labels, model.likelihood, bias_prior_scale=_BIAS_PRIOR_SCALE)
