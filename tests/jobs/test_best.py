"""The posterior of the best epoch."""

import os
import signal
import tomllib

from bayes_panns.jobs import RunFolder, fit, verify
from bayes_panns.posterior import load
from bayes_panns.recipes import replaced
from bayes_panns.svi import Fit, Stop


def scored(monkeypatch, *scores):
    """Let the epochs of the next fit have these NLLs of the validation clips."""
    left = iter(scores)
    monkeypatch.setattr(Fit, "validate", lambda self, stopped: {"val/nll": next(left)})


def test_the_posterior_of_the_best_epoch_is_kept_beside_the_last(stores, tmp_path, recipe, monkeypatch, caplog):
    quick, run = recipe(stores["upstream"], validation=0.3, schedule="constant", epochs=1), RunFolder(tmp_path / "run")
    scored(monkeypatch, 1.0)
    first = fit(quick, run.path)
    assert not run.best.exists()
    after_one = {name: loc.clone() for name, (loc, _) in first.posterior.gaussians().items()}
    scored(monkeypatch, 1.5, 2.0)
    last = fit(replaced(quick, {"fit.epochs": 3}), run.path, resume=True)
    assert "the best epoch is 1 of 3 (val/nll 1.0000): saved in" in caplog.text
    best = load(run.best)
    assert all((loc == after_one[name]).all() for name, (loc, _) in best.gaussians().items())
    assert best.provenance["best"] == {"epoch": 1, "of": 3, "val/nll": 1.0}
    assert (best.provenance["epochs"], best.provenance["complete"]) == (1, True)
    assert best.metrics["val/nll"] == 1.0
    kept = load(run.path)
    assert (kept.provenance["epochs"], kept.metrics["val/nll"]) == (3, 2.0)
    assert "best" not in kept.provenance
    for name, (loc, _) in last.posterior.gaussians().items():
        assert (loc == kept.gaussians()[name][0]).all()
    assert run.complete
    found = verify(run.path)
    assert found.whole
    names = {line.partition(":")[0] for line in found.lines}
    assert names >= {"checkpoint.pt", "checkpoint.previous.pt", "checkpoint.best.pt", "posterior", "best"}
    (run.path / "checkpoint.best.pt").write_bytes(b"PK")
    assert not verify(run.path).whole
    # A later epoch that is better leaves nothing of it.
    scored(monkeypatch, 0.5)
    fit(replaced(quick, {"fit.epochs": 4}), run.path, resume=True)
    assert not run.best.exists()
    assert tomllib.loads((run.posterior / "posterior.toml").read_text())["metrics"]["val/nll"] == 0.5


def test_a_run_that_is_stopped_in_its_last_validation_is_complete_once_that_is_made(
    stores, tmp_path, recipe, monkeypatch
):
    quick, run, validate = recipe(stores["downstream"], validation=0.3, epochs=1), RunFolder(tmp_path), Fit.validate

    def stops(self, stopped):
        os.kill(os.getpid(), signal.SIGTERM)
        return validate(self, stopped)

    monkeypatch.setattr(Fit, "validate", stops)
    fitted = fit(quick, run.path)
    assert (fitted.complete, fitted.stopped, run.complete) == (False, Stop.TERMINATED, False)
    assert verify(run.path).whole
    monkeypatch.setattr(Fit, "validate", validate)
    assert fit(quick, run.path, resume=True).complete
    assert run.complete
    assert "val/nll" in load(run.path).metrics
