"""The foundation study: last layers on the embeddings of a published network, beside logistic regression.

One command embeds the clips once, fits, scores and compares every row, share of the labels and fold. Fits are kept, so
that a study that was stopped continues where it was.
"""

from benchmarks.foundation_study.command import main
from benchmarks.foundation_study.compare import compare
from benchmarks.foundation_study.design import ROWS, Row, Stage, Study, stages
from benchmarks.foundation_study.embedded import backbone_of, embedded
from benchmarks.foundation_study.fits import fit_and_score
from benchmarks.foundation_study.logistic import Chosen, choose
from benchmarks.foundation_study.tables import tables

__all__ = [
    "ROWS",
    "Chosen",
    "Row",
    "Stage",
    "Study",
    "backbone_of",
    "choose",
    "compare",
    "embedded",
    "fit_and_score",
    "main",
    "stages",
    "tables",
]
