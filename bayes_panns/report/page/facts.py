"""The facts at the top of a page: what a source is, how it was fitted, and on what it was scored."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bayes_panns.core.choices import Precision
from bayes_panns.report.formatting import count_of, exact
from bayes_panns.report.sources import Source

_FIT = {"epochs", "clips", "data", "tempered", "complete", "kl_weight"}
"""What the provenance of a fit says, but for those of the oldest versions."""


def facts_of(source: Source) -> list[tuple[str, str]]:
    """The facts about a source, as pairs of a term and a text."""
    part = source.parts[0]
    runs = len(source.parts)
    facts = [("Kind", source.kind if runs == 1 else f"{source.kind} of {count_of(runs, 'run')}")]
    if part.recipe is not None and part.recipe.description:
        facts.append(("Recipe", part.recipe.description))
    if part.header:
        facts += posterior_facts(part.header, single=runs == 1)
    facts += _scores(source)
    provenance = part.header.get("provenance", {})
    if "versions" in provenance:
        versions = ", ".join(f"{package} {version}" for package, version in provenance["versions"].items())
        facts.append(("Versions", versions))
    return facts


def posterior_facts(header: Mapping[str, Any], *, single: bool = True) -> Iterator[tuple[str, str]]:
    """The facts about a posterior, as pairs of a term and a text.

    Args:
        header: What :func:`~bayes_panns.posterior.read_header` gives.
        single: Whether it is the only one, or one of several that were fitted to other clips.
    """
    provenance = header.get("provenance", {})
    if header["sample_rate"]:
        length = exact(header["clip_seconds"])
        yield "Network", f"{header['net']}, {header['sample_rate']} Hz, clips of {length} s"
    else:
        yield (
            "Network",
            f"{header['net']}, a last layer on embeddings of {header.get('embeddings_of', 'another model')}",
        )
    yield "Guide", header.get("guide_function") or header["strategy"].get("description") or "from a recipe"
    yield "Labels", f"{len(header['labels'])}, {header['task']}"
    if "checkpoint" in provenance:
        yield "Imported from", provenance["checkpoint"]
    # An imported checkpoint was fitted elsewhere and has no epochs.
    if provenance.keys() >= _FIT:
        if single:
            folds = _folds(provenance.get("folds", "all"))
            clips = count_of(provenance["clips"], "clip")
            yield "Fitted to", f"{clips} of {', '.join(provenance['data'])}{folds}"
        tempered = ", a tempered posterior" if provenance["tempered"] else ""
        stopped = "" if provenance["complete"] else ", interrupted"
        weight = exact(provenance["kl_weight"])
        yield "Fit", f"{exact(provenance['epochs'])} epochs, KL weight {weight}{tempered}{stopped}"
    if "upstream" in provenance:
        upstream = provenance["upstream"]
        data = ", ".join(upstream["data"]) if "data" in upstream else upstream.get("checkpoint", "")
        yield "Started from", f"{upstream['folder']} ({data})" if data else upstream["folder"]


def _scores(source: Source) -> Iterator[tuple[str, str]]:
    evaluation = source.evaluation
    if evaluation is None:
        return
    provenance, uncertainty = evaluation.provenance, evaluation.uncertainty
    folds = ", each by the run of its fold" if len(source.scored) > 1 else _folds(provenance.get("folds", "all"))
    if len(source.scored) == 1 and provenance.get("pooled", 1) > 1:
        folds = f", each by one of {provenance['pooled']} fits that have not heard its fold"
    stores = _stores(provenance.get("stores", []))
    yield "Scored on", f"{count_of(len(evaluation.names), 'clip')}{stores}{folds}"
    if evaluation.ood is not None:
        stores = _stores(provenance.get("ood", []))
        yield "Out of distribution", f"{count_of(len(evaluation.ood_names), 'clip')}{stores}"
    if uncertainty.mean is not None:
        power = provenance.get("power", [])
        value = f" {power[0]:.3g}" if len(power) == 1 else ""
        yield (
            "Probabilities",
            f"the mean of the draws at the power{value} that calibrates it; entropies are of the draws",
        )
    draws = evaluation.metrics["draws"]
    yield "Draws", "none, a single pass at the posterior mean" if draws == 0 else str(draws)
    precision = provenance.get("precision", Precision.FLOAT32)
    if precision != Precision.FLOAT32:
        yield "Precision", str(precision)


def _stores(stores: Sequence[str]) -> str:
    return f" of {', '.join(Path(store).name for store in stores)}" if stores else ""


def _folds(folds: str | Sequence[int]) -> str:
    if folds == "all":
        return ""
    return f", fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}"
