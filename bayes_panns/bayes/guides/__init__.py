"""Guides: the variational posteriors. A guide is made of parts, one posterior family a file.

| recipe | part | posterior |
|---|---|---|
| ``normal`` | :class:`MeanField` | an independent Normal for each weight |
| ``map`` | :class:`Point` | a point under its prior |
| ``rotated`` | :class:`RotatedHead` | the last layer, independent along the axes of its inputs and outputs |
| ``low-rank`` | :class:`LowRankHead` | the last layer, with a covariance of low rank |
| ``module:function`` | :class:`CustomGuide` | whatever your guide is |

A new family is a subclass of :class:`Part` in a file of its own, and a line in :data:`FAMILIES`.
"""

from bayes_panns.bayes.guides.composed import FAMILIES, ComposedGuide, guide_from_strategy
from bayes_panns.bayes.guides.custom import CustomGuide, UserGuide
from bayes_panns.bayes.guides.kronecker import KroneckerGaussian, kronecker_gaussian
from bayes_panns.bayes.guides.low_rank import LowRankHead
from bayes_panns.bayes.guides.mean_field import MeanField
from bayes_panns.bayes.guides.part import Part
from bayes_panns.bayes.guides.point import Point
from bayes_panns.bayes.guides.rotated import RotatedHead
from bayes_panns.bayes.guides.rotated_normal import RotatedNormal

__all__ = [
    "FAMILIES",
    "ComposedGuide",
    "CustomGuide",
    "KroneckerGaussian",
    "LowRankHead",
    "MeanField",
    "Part",
    "Point",
    "RotatedHead",
    "RotatedNormal",
    "UserGuide",
    "guide_from_strategy",
    "kronecker_gaussian",
]
