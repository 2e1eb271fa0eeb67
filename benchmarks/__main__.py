"""The command ``python -m benchmarks``: each benchmark is imported when it is asked for."""

from collections.abc import Mapping
from importlib import import_module

import click

COMMANDS = {
    "train": "benchmarks.beside:train",
    "predict": "benchmarks.beside:predict",
    "gpu": "benchmarks.gpu:gpu",
    "loader": "benchmarks.loader.command:main",
    "hour": "benchmarks.hour:hour",
    "hours": "benchmarks.hours:main",
    "transfer-study": "benchmarks.transfer_study:main",
    "acquisition": "benchmarks.acquisition:main",
    "continuing": "benchmarks.acquisition:continuing",
    "decisions": "benchmarks.decisions:main",
    "foundation-study": "benchmarks.foundation_study:main",
}
"""Where each command is. What one needs, such as scikit-learn, the others do without."""


class _Commands(dict[str, click.Command]):
    """Commands that are imported when they are first looked up."""

    def __init__(self, places: Mapping[str, str]):
        super().__init__()
        self._places = places

    def __missing__(self, name: str) -> click.Command:
        module, _, attribute = self._places[name].partition(":")
        self[name] = command = getattr(import_module(module), attribute)
        return command


class _Group(click.Group):
    """A group of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self.commands[cmd_name] if cmd_name in COMMANDS else None


@click.group(
    cls=_Group,
    commands=_Commands(COMMANDS),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
def main() -> None:
    """Time and memory of this package beside named peers, as ratios to the deterministic network; and studies.

    \b
    Example:
      python -m benchmarks train -o benchmarks/results/train-cpu
      python -m benchmarks predict -o benchmarks/results/predict-cpu
      python -m benchmarks gpu
    """


if __name__ == "__main__":
    main()
