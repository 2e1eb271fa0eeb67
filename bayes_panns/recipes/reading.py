"""Reading recipes: find the file, merge the values that the caller gives, and validate the result once."""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from bayes_panns.bayes.strategy import Strategy
from bayes_panns.core import toml
from bayes_panns.core.digests import DIGEST
from bayes_panns.core.errors import RecipeError, SettingError
from bayes_panns.core.recipe_files import Kind, folder, names
from bayes_panns.recipes.run import Run

_Recipe = TypeVar("_Recipe", bound=BaseModel)


def read_run(
    recipe: str | Path,
    changes: Sequence[str] = (),
    *,
    stores: Sequence[str | Path] = (),
    labels: str | Path | None = None,
    guide: str | None = None,
    upstream: str | Path | None = None,
    seed: int | None = None,
) -> Run:
    """Read a run recipe, and replace some of its values.

    Args:
        recipe: A file, or the name of a recipe in ``runs/``.
        changes: ``key=value`` settings that replace the recipe's, with dots into tables: ``fit.epochs=3``. Values are
            written as in TOML; what is not valid TOML is taken as a string.
        stores: Replace ``data.stores``.
        labels: Replaces ``data.labels``.
        guide: Replaces ``guide``.
        upstream: Replaces ``upstream``.
        seed: Replaces ``fit.seed``.

    Raises:
        RecipeError: The file is missing or is not TOML, or one of its values is unknown or invalid.
        SettingError: A value given in the call is unknown or invalid.

    Example:
        >>> run = read_run("scratch", ["fit.epochs=3", "data.folds=[1, 2]"], seed=7)
        >>> run.fit.epochs, run.data.folds, run.fit.seed
        (3, [1, 2], 7)
    """
    options = {
        "--data": (("data", "stores"), [str(store) for store in stores] or None),
        "--labels": (("data", "labels"), None if labels is None else str(labels)),
        "--guide": (("guide",), guide),
        "--from": (("upstream",), None if upstream is None else str(upstream)),
        f"--seed {seed}": (("fit", "seed"), seed),
    }
    given = [_Override.parsed(change) for change in changes]
    given += [_Override(option, key, value) for option, (key, value) in options.items() if value is not None]
    path = _find(recipe, "runs")
    table = _load(path)
    # That of a run's own recipe, which whoever takes it for another run may change.
    table.pop(DIGEST, None)
    for override in given:
        override.put(table)
    return _validate(Run, table, str(path), given)


def replaced(recipe: Run, changes: Mapping[str, Any]) -> Run:
    """A run recipe with other values, all of them validated: pydantic's own ``model_copy`` validates nothing.

    Args:
        recipe: The recipe.
        changes: New values by key, with dots into tables.

    Raises:
        SettingError: A new value is unknown or invalid.

    Example:
        >>> replaced(Run(), {"guide": "det", "fit.seed": 3}).fit.seed
        3
    """
    table = recipe.model_dump(warnings=False)
    given = [_Override(key, tuple(key.split(".")), value) for key, value in changes.items()]
    for override in given:
        override.put(table)
    return _validate(Run, table, "the recipe", given)


def read_strategy(recipe: str | Path) -> Strategy:
    """Read a guide recipe: a file, or the name of one in ``guides/``.

    Raises:
        RecipeError: The file is missing or is not TOML, or one of its values is unknown or invalid.
    """
    path = _find(recipe, "guides")
    return _validate(Strategy, _load(path), str(path))


def is_function(guide: str) -> bool:
    """Whether a guide is a Python function, ``module:function``, and not a recipe.

    Example:
        >>> is_function("own_guide:low_rank_head"), is_function("flip")
        (True, False)
    """
    return ":" in guide and not Path(guide).is_file()


@dataclass(frozen=True)
class _Override:
    """A value given by the caller of :func:`read_run`, which replaces the recipe's.

    Attributes:
        option: How the caller gave it, for error messages.
        key: Where it belongs: the names of the tables and of the value.
        value: The value.
    """

    option: str
    key: tuple[str, ...]
    value: Any

    @classmethod
    def parsed(cls, change: str) -> "_Override":
        """From ``key=value``."""
        option = f"--set {change}"
        key, equals, text = change.partition("=")
        parts = tuple(key.strip().split("."))
        if not equals or not all(parts):
            raise SettingError(f"{option}: write it as key=value, such as fit.epochs=3")
        try:
            value = toml.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        if parts == ("guide",) and isinstance(value, str) and is_function(value):
            raise SettingError(f"{option}: a guide in Python is code; name it with --guide {value}")
        return cls(option, parts, value)

    def put(self, table: dict[str, Any]) -> None:
        """Replace the value in ``table``."""
        *tables, last = self.key
        for name in tables:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise SettingError(f"{self.option}: {name} is a value, not a table")
        table[last] = self.value

    def gave(self, place: tuple[int | str, ...]) -> bool:
        """Whether the value at ``place`` is this one, one inside it, or the table that it is in."""
        return place[: len(self.key)] == self.key[: len(place)]


def _find(recipe: str | Path, kind: Kind) -> Path:
    given = Path(recipe)
    if given.is_file():
        return given
    known = folder(kind) / f"{recipe}.toml"
    if known.is_file():
        return known
    raise RecipeError(f"{recipe}: no such file, and no recipe of that name in {kind}/ ({', '.join(names(kind))})")


def _load(path: Path) -> dict[str, Any]:
    try:
        return toml.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: is not valid TOML: {error}") from error


def _validate(kind: type[_Recipe], table: dict[str, Any], source: str, given: Sequence[_Override] = ()) -> _Recipe:
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        errors = error.errors()
        # The last of several that gave a value is the one in force.
        culprits = [next((each for each in reversed(given) if each.gave(one["loc"])), None) for one in errors]
        # The caller's own mistakes come first: they are on the screen.
        chosen = next((index for index, culprit in enumerate(culprits) if culprit is not None), 0)
        first, culprit = errors[chosen], culprits[chosen]
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = _keys(kind, first["loc"][:-1])
            close = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
            problem = f"unknown key {place}" + (
                f"; did you mean {close[0]}?" if close else f"; known keys: {', '.join(known)}"
            )
        else:
            # A rule over several values of a table is about none of them in particular.
            value = "" if isinstance(first["input"], dict | BaseModel) else f" = {first['input']!r}"
            problem = f"{place}{value}: {first['msg'][0].lower()}{first['msg'][1:]}"
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        if culprit is not None:
            raise SettingError(f"{culprit.option}: {problem}{more}") from error
        raise RecipeError(f"{source}: {problem}{more}") from error


def _keys(kind: type[BaseModel], tables: tuple[int | str, ...]) -> list[str]:
    """The keys that the table at ``tables`` in a recipe of ``kind`` may have."""
    for name in tables:
        if isinstance(name, int):
            continue
        annotation = kind.model_fields[name].annotation
        inner = [annotation, *getattr(annotation, "__args__", ())]
        kind = next(item for item in inner if isinstance(item, type) and issubclass(item, BaseModel))
    return list(kind.model_fields)
