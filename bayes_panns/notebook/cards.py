"""What a posterior is, on a card: as text, and for a notebook."""

from html import escape

from bayes_panns.core.text import printable
from bayes_panns.jobs import calibrations
from bayes_panns.posterior import Ensemble, Posterior
from bayes_panns.report.page.facts import posterior_facts
from bayes_panns.report.text.layout import columns

_LABELS = 12
"""The labels that are named."""


def card_text(posterior: Posterior | Ensemble) -> str:
    """Lines of a term and a text, under a title."""
    facts = columns([[f"  {term}", text] for term, text in _facts(posterior)])
    return f"{_title(posterior)}\n{facts}".rstrip("\n")


def card_html(posterior: Posterior | Ensemble) -> str:
    """The same as a table; all names are escaped."""
    rows = "".join(
        f'<tr><td style="text-align:left;opacity:.65">{escape(term)}</td>'
        f'<td style="text-align:left;white-space:normal">{escape(printable(text))}</td></tr>'
        for term, text in _facts(posterior)
    )
    return f'<div><b>{escape(_title(posterior))}</b><table style="margin:.3em 0">{rows}</table></div>'


def _title(posterior: Posterior | Ensemble) -> str:
    if isinstance(posterior, Ensemble):
        return f"ensemble of {len(posterior.members)} posteriors"
    return "posterior" if posterior.folder is None else f"posterior in {printable(str(posterior.folder))}"


def _facts(posterior: Posterior | Ensemble) -> list[tuple[str, str]]:
    first = posterior.members[0] if isinstance(posterior, Ensemble) else posterior
    header = {
        **{name: getattr(first, name) for name in ("net", "sample_rate", "clip_seconds", "labels", "guide_function")},
        "embeddings_of": first.embeddings_of or "another model",
        "task": first.task,
        "strategy": first.strategy.model_dump(),
        "provenance": first.provenance,
    }
    facts = dict(posterior_facts(header, single=first is posterior))
    names = [printable(label) for label in first.labels]
    more = f" and {len(names) - _LABELS} more" if len(names) > _LABELS else ""
    facts["Labels"] += f": {', '.join(names[:_LABELS])}{more}"
    if isinstance(posterior, Ensemble):
        facts["Members"] = ", ".join(str(each.folder or each.net) for each in posterior.members)
    else:
        have = calibrations(posterior)
        facts["Calibrated"] = (
            "; ".join(have) or "no: its probabilities are as the fit left them (bayes-panns calibrate)"
        )
    facts["Draws"] = _draws(posterior)
    return list(facts.items())


def _draws(posterior: Posterior | Ensemble) -> str:
    if not posterior.stochastic:
        differ = "its members differ" if isinstance(posterior, Ensemble) else "so there is no epistemic uncertainty"
        return f"one pass each: the weights are points; {differ}"
    return f"{posterior.draws_for(None)} where no number is given"
