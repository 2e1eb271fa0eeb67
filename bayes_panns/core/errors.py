"""The errors a user can cause. Each carries one line: what is wrong, where, and what to do about it."""


class BayesPannsError(Exception):
    """Base of all errors that the user can fix; the commands print them without a traceback."""


class AudioError(BayesPannsError):
    """A sound file that cannot be used; the message names the file."""


class StoreError(BayesPannsError):
    """A clip store, or the source it is packed from, that is missing, damaged or does not fit."""


class RecipeError(BayesPannsError):
    """A guide or run recipe with an unknown key, a wrong type, or rules that do not fit the net."""


class PosteriorError(BayesPannsError):
    """A posterior folder that is missing, damaged, of a newer format, or does not fit the task."""


class CheckpointError(BayesPannsError):
    """A published checkpoint that cannot be had, is damaged, or is of another network."""


class PredictionError(BayesPannsError):
    """A setting that a prediction cannot be made with, such as windows of no length."""


class EvaluationError(BayesPannsError):
    """An evaluation that is missing, damaged, of a newer format, or does not fit another one."""


class OutputError(BayesPannsError):
    """A place for results that cannot be written, or that holds something else."""


class FitError(BayesPannsError):
    """A fit that cannot go on: a non-finite loss, nothing to train, or nothing to resume from."""
