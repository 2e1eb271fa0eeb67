"""The transfer study: posteriors of ESC-10 that start from an upstream posterior, beside others from scratch.

One command fits, scores and compares every strategy, fold, seed and share of the labels. docs/transfer-study.md says
how to get the data. Fits are kept, so that a study that was stopped continues where it was.
"""

from benchmarks.transfer_study.command import main
from benchmarks.transfer_study.compare import compare
from benchmarks.transfer_study.design import ROWS, Row, Stage, Study, stages
from benchmarks.transfer_study.fits import fit_and_score, fitted, leave_dropout_on
from benchmarks.transfer_study.measures import METRIC_NAMES, difference, measure
from benchmarks.transfer_study.out_of_distribution import OutOfDistribution
from benchmarks.transfer_study.results import Result, results, tempered
from benchmarks.transfer_study.tables import tables

__all__ = [
    "METRIC_NAMES",
    "ROWS",
    "OutOfDistribution",
    "Result",
    "Row",
    "Stage",
    "Study",
    "compare",
    "difference",
    "fit_and_score",
    "fitted",
    "leave_dropout_on",
    "main",
    "measure",
    "results",
    "stages",
    "tables",
    "tempered",
]
