"""Whole jobs: fit, set widths, evaluate, calibrate, cross-validate, embed and choose what to label."""

from bayes_panns.jobs.acquire import DEFAULT_STRATEGY, Acquired, Pick, acquire, read_pick
from bayes_panns.jobs.calibrate import calibrate
from bayes_panns.jobs.crossval import CrossValidation, Spread, crossval, run_folder, write_results
from bayes_panns.jobs.doctor import examine_machine
from bayes_panns.jobs.embed import embed
from bayes_panns.jobs.evaluate import evaluate_clips, evaluate_posterior
from bayes_panns.jobs.fit import Fitted, fit
from bayes_panns.jobs.health import calibrations, examine_posterior
from bayes_panns.jobs.labels import label_set
from bayes_panns.jobs.memory import StartMemory, WidthMemory, check_start, read_start_memory
from bayes_panns.jobs.predict import predict_to
from bayes_panns.jobs.provenance import determined
from bayes_panns.jobs.results import Entry, ResultsFolder
from bayes_panns.jobs.run_folder import RUN_TOML, RunFolder, unless_fitting
from bayes_panns.jobs.score import score
from bayes_panns.jobs.splits import divide, held_out
from bayes_panns.jobs.verify import Verification, verify
from bayes_panns.jobs.widths import with_fisher_widths
from bayes_panns.posterior import choose_device

__all__ = [
    "DEFAULT_STRATEGY",
    "RUN_TOML",
    "Acquired",
    "CrossValidation",
    "Entry",
    "Fitted",
    "Pick",
    "ResultsFolder",
    "RunFolder",
    "Spread",
    "StartMemory",
    "Verification",
    "WidthMemory",
    "acquire",
    "calibrate",
    "calibrations",
    "check_start",
    "choose_device",
    "crossval",
    "determined",
    "divide",
    "embed",
    "evaluate_clips",
    "evaluate_posterior",
    "examine_machine",
    "examine_posterior",
    "fit",
    "held_out",
    "label_set",
    "predict_to",
    "read_pick",
    "read_start_memory",
    "run_folder",
    "score",
    "unless_fitting",
    "verify",
    "with_fisher_widths",
    "write_results",
]
