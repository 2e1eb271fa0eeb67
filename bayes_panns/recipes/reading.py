"""Recipes: TOML files that say what to fit and how. Data, never code.

A guide recipe (``guides/*.toml``) is a :class:`~bayes_panns.bayes.strategy.Strategy`, a run recipe (``runs/*.toml``)
a :class:`Run`. Wherever a recipe is wanted, a file or the name of one that comes along will do.
"""

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bayes_panns.bayes.strategy import Strategy
from bayes_panns.core.errors import RecipeError
from bayes_panns.svi import FitSettings


class Data(BaseModel):
    """Which clips a run takes: the table ``[data]``.

    Attributes:
        stores: Files of clips; the option ``--data`` takes their place.
        folds: The folds to fit on; by default all.
        validation: The share of clips held out to be scored after each epoch, never two cuts of one recording on both
            sides where recordings are known.
        share: The share of the clips to fit on, to see what fewer labels cost: see
            :meth:`~bayes_panns.clips.ClipSet.sample`. Validation clips are taken from it.
        task: ``one-of-k`` or ``multi-label``; by default what the store says.
        labels: A CSV file with the label names of stores that hold none, as
            :func:`~bayes_panns.clips.read_labels` reads it; the option ``--labels`` takes its place.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    stores: list[str] = []
    folds: list[int] | None = None
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.1
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    task: Literal["one-of-k", "multi-label"] | None = None
    labels: str | None = None


class Run(BaseModel):
    """A run recipe.

    Attributes:
        description: What it is, in a sentence.
        net: The network: ``resnet22``, ``resnet38``, ``resnet54``, ``resnet14-narrow`` or ``resnet14-coarse``.
        guide: The guide recipe: a name, a file, or ``module:function`` for one of your own in Python, called with the
            model; the option ``--guide`` takes its place.
        upstream: The folder of the posterior to start from; the option ``--from`` takes its place.
        freeze: Modules of the network that are not trained, such as ``resnet``; ``backbone`` is all but the last layer,
            ``locs`` every mean and point weight, so that only the posterior's widths are.
        head: Where a last layer for new labels starts: ``random``; or ``probe``, the most probable one on the upstream
            backbone's embeddings, so that its first steps do not spoil what the backbone knows (Kumar et al., 2022,
            arXiv:2202.10054).
        data: Which clips.
        fit: How to fit.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    description: str = ""
    net: str = "resnet14-narrow"
    guide: str = "flip"
    upstream: str | None = None
    freeze: list[str] = []
    head: Literal["random", "probe"] = "random"
    data: Data = Data()
    fit: FitSettings = FitSettings()


_Recipe = TypeVar("_Recipe", bound=BaseModel)


def read_run(recipe: str | Path, changes: Sequence[str] = ()) -> Run:
    """Read a run recipe.

    Args:
        recipe: A file, or the name of a recipe in ``runs/``.
        changes: ``key=value`` settings that replace the recipe's, with dots into tables: ``fit.epochs=3``. Values are
            written as in TOML; what is not valid TOML is taken as a string.

    Raises:
        RecipeError: The file is missing or not TOML, or a key is unknown or of a wrong type.
    """
    path = _find(recipe, "runs")
    table = _load(path)
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or not key:
            raise RecipeError(f"--set {change}: write it as key=value, such as fit.epochs=3")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        *tables, last = key.strip().split(".")
        inner = table
        for name in tables:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                raise RecipeError(f"--set {change}: {name} is a value, not a table")
        inner[last] = value
    return _validate(Run, table, str(path))


def read_strategy(recipe: str | Path) -> Strategy:
    """Read a guide recipe: a file, or the name of one in ``guides/``.

    Raises:
        RecipeError: The file is missing or not TOML, or a key is unknown or of a wrong type.
    """
    path = _find(recipe, "guides")
    return _validate(Strategy, _load(path), str(path))


def parse_strategy(table: dict[str, Any], source: str) -> Strategy:
    """Check a strategy that stands inside another file, named ``source`` in errors.

    Raises:
        RecipeError: A key is unknown or of a wrong type.
    """
    return _validate(Strategy, table, source)


def names(kind: Literal["guides", "runs"]) -> list[str]:
    """The recipes of a kind that come with the package."""
    return sorted(path.stem for path in _folder(kind).glob("*.toml"))


def _folder(kind: str) -> Path:
    """In a wheel the recipes lie inside the package; in a checkout, at its top."""
    package = Path(__file__).parent.parent
    return package / kind if (package / kind).is_dir() else package.parent / kind


def _find(recipe: str | Path, kind: Literal["guides", "runs"]) -> Path:
    given = Path(recipe)
    if given.is_file():
        return given
    known = _folder(kind) / f"{recipe}.toml"
    if known.is_file():
        return known
    raise RecipeError(f"{recipe}: no such file, and no recipe of that name in {kind}/ ({', '.join(names(kind))})")


def _load(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not valid TOML: {error}") from error


def _validate(kind: type[_Recipe], table: dict[str, Any], source: str) -> _Recipe:
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        first, *others = error.errors()
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = _keys(kind, first["loc"][:-1])
            close = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
            problem = f"unknown key {place}" + (
                f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"
            )
        else:
            problem = f"{place} = {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}"
        more = f" (and {len(others)} more)" if others else ""
        raise RecipeError(f"{source}: {problem}{more}") from error


def _keys(kind: type[BaseModel], tables: tuple[int | str, ...]) -> list[str]:
    """The keys that the table at ``tables`` inside a recipe of ``kind`` may have."""
    for name in tables:
        if isinstance(name, int):
            continue
        annotation = kind.model_fields[name].annotation
        inner = [annotation, *getattr(annotation, "__args__", ())]
        kind = next(item for item in inner if isinstance(item, type) and issubclass(item, BaseModel))
    return list(kind.model_fields)
