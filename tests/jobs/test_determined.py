"""How much of a posterior is the data's: what a fit logs, warns of and writes down."""

import json

import pytest
import torch

from bayes_panns.bayes import Effective, effective_parameters
from bayes_panns.core.digests import unsealed
from bayes_panns.jobs import determined, fit
from bayes_panns.posterior import load, save
from bayes_panns.recipes import replaced

PRIOR, START = "the posterior is all prior", "widths are those of the start"


def lines(folder):
    return [unsealed(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def warned(caplog, text):
    return [record for record in caplog.records if record.levelname == "WARNING" and text in record.getMessage()]


@pytest.fixture(scope="module")
def short(stores, tmp_path_factory, recipe):
    """A fit that is too short to move a width."""
    folder = tmp_path_factory.mktemp("runs") / "short"
    return fit(recipe(stores["upstream"]), folder)


def test_every_line_and_the_provenance_say_how_much_the_data_determine(short):
    found = effective_parameters(short.posterior.model, short.posterior.guide)
    assert found.total.weights > 1000
    for name, each in found.by_parameter.items():
        assert lines(short.folder)[-1][f"effective/{name}"] == pytest.approx(each.share)
        assert lines(short.folder)[-1][f"at_prior/{name}"] == each.at_prior_share
    assert len(found.by_parameter) == len([key for key in lines(short.folder)[0] if key.startswith("effective/")])
    assert not any(key.startswith(("effective/", "at_prior/")) for key in short.posterior.metrics)
    provenance = load(short.folder).provenance
    assert determined(provenance) == found.total
    assert provenance["weights"] == found.total.weights
    # The narrow start of the guide recipe, a tenth of the prior.
    assert found.total.share == pytest.approx(0.99, abs=0.002)


def test_widths_that_a_short_fit_leaves_at_the_start_are_warned_of_in_one_line(stores, tmp_path, recipe, caplog):
    caplog.clear()
    fitted = fit(recipe(stores["upstream"]), tmp_path / "run")
    total = effective_parameters(fitted.posterior.model, fitted.posterior.guide).total
    assert str(total) in caplog.messages
    (warning,) = warned(caplog, "")
    assert START in warning.getMessage()
    assert 'fit.optimizer = "natural-gradient" infers widths' in warning.getMessage()


@pytest.mark.parametrize(
    "settings",
    [{"start": "fisher"}, {"optimizer": "natural-gradient", "natural": {"memory": 0.0, "curvature": "gauss-newton"}}],
)
def test_inferred_widths_are_not_warned_of_as_the_start(stores, tmp_path, recipe, caplog, settings):
    caplog.clear()
    fit(recipe(stores["upstream"], guide="det-flip", **settings), tmp_path / "run")
    assert not warned(caplog, START)


@pytest.mark.parametrize("apart", [True, False])
def test_an_upstream_posteriors_widths_may_stay_if_they_tell_weights_apart(
    stores, upstream, tmp_path, recipe, caplog, apart
):
    start = load(upstream)
    if apart:
        spread = {
            site: (loc, scale * torch.randn_like(scale).exp()) for site, (loc, scale) in start.guide.gaussians().items()
        }
        start.guide.assign(spread)
    save(start, tmp_path / "start")
    caplog.clear()
    fit(recipe(stores["downstream"], upstream=str(tmp_path / "start"), epochs=1), tmp_path / "run")
    assert len(warned(caplog, START)) == (0 if apart else 1)


def test_a_posterior_that_is_all_prior_is_warned_of(stores, tmp_path, recipe, caplog):
    caplog.clear()
    natural = {
        "optimizer": "natural-gradient",
        "natural": {"memory": 0.0, "curvature": "gauss-newton"},
        "kl_weight": 1e6,
    }
    fitted = fit(recipe(stores["upstream"], guide="det-flip", **natural), tmp_path / "run")
    assert determined(fitted.posterior.provenance).share < 0.01
    (warning,) = warned(caplog, PRIOR)
    assert "lower fit.kl_weight" in warning.getMessage()


def test_an_upstream_prior_that_the_data_have_not_changed_determines_nothing(
    stores, upstream, tmp_path, recipe, caplog
):
    caplog.clear()
    quick = recipe(
        stores["upstream"], guide="flip-upstream-prior", upstream=str(upstream), epochs=1, learning_rate=1e-9
    )
    fitted = fit(quick, tmp_path / "run")
    assert determined(fitted.posterior.provenance).gamma == pytest.approx(0, abs=1)
    assert len(warned(caplog, PRIOR)) == 1


def test_a_resumed_fit_knows_where_its_widths_started(stores, tmp_path, recipe, interrupted, caplog):
    quick = recipe(stores["upstream"], guide="det-flip")
    fit(quick, tmp_path / "whole")
    with interrupted():
        fit(quick, tmp_path / "parts")
    assert determined(load(tmp_path / "parts").provenance) is not None
    caplog.clear()
    fit(quick, tmp_path / "parts", resume=True)
    assert len(warned(caplog, START)) == 1
    pairs = zip(lines(tmp_path / "whole"), lines(tmp_path / "parts"), strict=True)
    assert all({**one, "seconds": 0} == {**other, "seconds": 0} for one, other in pairs)


def test_the_checkpoint_of_an_older_version_goes_on_without_a_warning(stores, tmp_path, recipe, interrupted, caplog):
    quick = recipe(stores["upstream"], guide="det-flip")
    with interrupted():
        fit(quick, tmp_path / "run")
    checkpoint = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert checkpoint.pop("start")["fc_audioset.bias"][1] == 0
    torch.save(checkpoint, tmp_path / "run" / "checkpoint.pt")
    caplog.clear()
    assert fit(quick, tmp_path / "run", resume=True).complete
    assert not warned(caplog, "")


def test_points_have_nothing_to_say(stores, tmp_path, recipe, caplog):
    caplog.clear()
    fitted = fit(recipe(stores["upstream"], guide="det", epochs=1), tmp_path / "run")
    assert determined(fitted.posterior.provenance) is None
    assert not any(key.startswith("effective/") for key in lines(tmp_path / "run")[0])
    assert not any("determine" in message for message in caplog.messages)
    assert determined({"weights": 3, "effective_parameters": 1.5, "at_prior": 1}) == Effective(3, 1.5, 1)


def test_the_last_layer_of_all_clips_says_it_too(stores, upstream, tmp_path, recipe):
    run = recipe(stores["downstream"], upstream=str(upstream), guide="det", epochs=1)
    fit(run, tmp_path / "det")
    settings = {"epochs": 50, "features": "embeddings", "optimizer": "natural-gradient", "batch_size": 32}
    head = recipe(stores["downstream"], upstream=str(tmp_path / "det"), guide="rotated-head", freeze=["backbone"])
    fitted = fit(replaced(head, {f"fit.{key}": value for key, value in settings.items()}), tmp_path / "head")
    total = determined(fitted.posterior.provenance)
    assert 0 < total.gamma < total.weights
    assert lines(tmp_path / "head")[-1]["effective/fc_audioset.weight"] == pytest.approx(total.share)
