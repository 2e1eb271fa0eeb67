"""Where a run keeps its files."""

from dataclasses import dataclass
from pathlib import Path

from bayes_panns.jobs.workflow import RUN_TOML
from bayes_panns.recipes.reading import Run, read_run
from bayes_panns.svi import METRICS


@dataclass(frozen=True)
class RunFolder:
    """The paths in a run's folder.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def recipe(self) -> Path:
        """The recipe as it was run."""
        return self.path / RUN_TOML

    @property
    def metrics(self) -> Path:
        """What the fit logged."""
        return self.path / METRICS

    @property
    def posterior(self) -> Path:
        """The folder of the posterior."""
        return self.path / "posterior"

    @property
    def evaluation(self) -> Path:
        """The folder of the run's evaluation."""
        return self.path / "evaluation"

    @property
    def report(self) -> Path:
        """The page about the run."""
        return self.path / "report.html"

    @property
    def is_run(self) -> bool:
        """Whether the folder is that of a run."""
        return self.recipe.is_file()

    def read_recipe(self) -> Run:
        """The recipe as it was run.

        Raises:
            RecipeError: It is missing or damaged.
        """
        return read_run(self.recipe)
