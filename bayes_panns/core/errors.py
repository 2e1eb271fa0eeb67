"""The errors a user can cause. Each carries one line: what is wrong, where, and what to do about it."""

import os

from bayes_panns.core.text import printable


class BayesPannsError(Exception):
    """Base of all errors that the user can fix; the commands print them without a traceback."""


class AudioError(BayesPannsError):
    """A sound file that cannot be used; the message names the file."""


class StoreError(BayesPannsError):
    """A clip store, or the source it is packed from, that is missing, damaged or does not fit."""


class RecipeError(BayesPannsError):
    """A guide or run recipe with an unknown key, a wrong type, or rules that do not fit the net."""


class SettingError(BayesPannsError):
    """A value that the caller gave, on the command line or in a call, and that is unknown or invalid."""


class PosteriorError(BayesPannsError):
    """A posterior folder that is missing, damaged, of a newer format, or does not fit the task."""


class CheckpointError(BayesPannsError):
    """A published checkpoint that cannot be had, is damaged, or is of another network."""


class PredictionError(BayesPannsError):
    """A setting that a prediction cannot be made with, such as windows of no length."""


class EvaluationError(BayesPannsError):
    """An evaluation that is missing, damaged, of a newer format, or does not fit another one."""


class ResultsError(BayesPannsError):
    """Results of predictions that are missing, damaged, of a newer format, or of another prediction."""


class OutputError(BayesPannsError):
    """A place for results that cannot be written, or that holds something else."""


class ProcessError(BayesPannsError):
    """A process of a job that cannot reach the others, or that ends because another one has failed or was killed."""


class LostProcessError(ProcessError):
    """A process that ends because it cannot go on without another one, which has ended."""


class FitError(BayesPannsError):
    """A fit that cannot go on: a non-finite loss, nothing to train, or nothing to resume from."""


OF_ONE_FILE = (AudioError, OSError, UnicodeError, MemoryError, RuntimeError)
"""What costs one file of many, and no more, if it happens while that file is read; a decoder raises RuntimeErrors."""


def reason(error: BaseException) -> str:
    r"""What an error says, on one line that is safe to show.

    Example:
        >>> reason(FileNotFoundError(2, "No such file or directory", "a\nb.wav"))
        'a\\nb.wav: no such file or directory'
    """
    if isinstance(error, OSError) and error.strerror:
        what = error.strerror[0].lower() + error.strerror[1:]
        return printable(what if error.filename is None else f"{_name(error.filename)}: {what}")
    return printable(" ".join(str(error).split())) or type(error).__name__


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory has run out; torch has one of its own for GPUs, and none for the CPU."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and ("not enough memory" in str(error) or "allocate memory" in str(error)))
    )


def _name(filename: str | bytes | int) -> str:
    return os.fsdecode(filename) if isinstance(filename, bytes) else str(filename)
