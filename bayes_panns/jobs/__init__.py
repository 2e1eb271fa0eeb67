"""Whole jobs: from a recipe and stores to a posterior on disk, and from a posterior to what it is worth."""

from bayes_panns.jobs.crossval import CrossValidation, Spread, crossval, run_folder, write_results
from bayes_panns.jobs.workflow import (
    RUN_TOML,
    Fitted,
    calibrate,
    choose_device,
    divide,
    evaluate_clips,
    evaluate_posterior,
    fit,
    held_out,
)

__all__ = [
    "RUN_TOML",
    "CrossValidation",
    "Fitted",
    "Spread",
    "calibrate",
    "choose_device",
    "crossval",
    "divide",
    "evaluate_clips",
    "evaluate_posterior",
    "fit",
    "held_out",
    "run_folder",
    "write_results",
]
