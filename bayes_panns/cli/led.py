"""Commands whose work several processes share, where a launcher such as ``torchrun`` has started them."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from bayes_panns.core.launch import launch


def led(command: Callable[..., None]) -> Callable[..., None]:
    """Let the first process run a command, and the others help it: it alone looks at files, writes and prints."""

    @wraps(command)
    def run(**given: Any) -> None:
        if launch().world == 1:
            command(**given)
            return
        from bayes_panns.ranks import led as together

        together(lambda: command(**given))

    return run
