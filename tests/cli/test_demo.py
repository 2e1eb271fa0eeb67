import json

import pytest

from bayes_panns.cli.demo_story import SHOWN, Sizes, run, table
from bayes_panns.report.page import intervals


@pytest.mark.slow
@pytest.mark.parametrize("runs", [1, pytest.param(2, marks=pytest.mark.long)], ids=["once", "again"])
def test_the_demo_tells_the_whole_story_and_may_run_again(runs, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(intervals, "RESAMPLES", 25)
    sizes = Sizes(upstream=40, downstream=16, held_out=16, novel=10)
    for _ in range(runs):
        caplog.clear()
        results = run(tmp_path / "demo", sizes=sizes, changes=["fit.epochs=1"])
    assert set(results) == {"transferred", "from scratch"}
    assert all(set(SHOWN) <= set(metrics) for metrics in results.values())
    text = "\n".join(caplog.messages)
    assert table(results) in text
    assert "new: fc_audioset.weight" in text
    folder = tmp_path / "demo"
    assert json.loads((folder / "results.json").read_text()) == results
    html = (folder / "report.html").read_text()
    assert "Comparison" in html
    assert "<audio" in html
    names = {path.stem for path in (folder / "figures").glob("*.png")}
    assert {"comparison", "reliability", "uncertainty", "risk-coverage", "training-upstream"} <= names
    assert all(path.stat().st_size > 10_000 for path in (folder / "figures").glob("*.png"))
    assert len(list((folder / "sounds").glob("*.wav"))) == 6


def test_the_table_stars_the_better_one():
    results = {
        name: dict.fromkeys(SHOWN, value) | {"cls/accuracy": 1 - value} for name, value in (("a", 0.2), ("b", 0.4))
    }
    rows = table(results).splitlines()
    assert rows[1].split()[-2:] == ["0.800*", "0.600"]
    assert rows[2].split()[-2:] == ["0.200*", "0.400"]
