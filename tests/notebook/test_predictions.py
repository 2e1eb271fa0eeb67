"""What ``load(...).predict`` gives: the numbers of ``tag``, as text, tables, arrays, files and plots."""

import re
import sys
import warnings

import matplotlib
import numpy as np
import pytest
import soundfile
import torch

import bayes_panns
from bayes_panns.bayes import Settings, Strategy
from bayes_panns.clips import Task, write
from bayes_panns.core.errors import AudioError, BayesPannsError, OutputError, PredictionError, SettingError
from bayes_panns.jobs import evaluate_posterior
from bayes_panns.notebook import EnsembleTagger, PosteriorTagger, Predictions, tagging
from bayes_panns.posterior import Calibration, Ensemble, Posterior, save
from bayes_panns.posterior import load as load_posterior
from bayes_panns.predictions import EventRules, Tags, find_events, tag, tag_each
from bayes_panns.predictions.deciding import decide
from bayes_panns.recipes import read_strategy
from bayes_panns.report import render_tags

RATE, LABELS = 8000, ("cat", "dog", "start")


def build(strategy="det-flip", **options):
    strategy = read_strategy(strategy) if isinstance(strategy, str) else strategy
    settings = {"net": "resnet14-coarse", "labels": LABELS, "task": Task.ONE_OF_K, "sample_rate": RATE}
    return Posterior.build(**{**settings, "clip_seconds": 0.5, "strategy": strategy, **options})


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Two sounds in a folder, and two posteriors."""
    folder = tmp_path_factory.mktemp("home")
    torch.manual_seed(0)
    for name in ("a", "b"):
        made = build()
        made.calibration = Calibration(
            temperature=1.5, threshold=0.2, coverage=0.9, draws=6, clips=(2, 2), data=("s.h5",)
        )
        save(made, folder / name / "posterior")
    (folder / "sounds").mkdir()
    generator = np.random.default_rng(0)
    for name, seconds in (("long", 2.2), ("short", 0.4)):
        sound = np.clip(0.2 * generator.normal(size=round(seconds * RATE)), -1, 1)
        soundfile.write(folder / "sounds" / f"{name}.wav", sound, RATE, subtype="FLOAT")
    return folder


@pytest.fixture(scope="module")
def tagger(home):
    return bayes_panns.load(home / "a")


@pytest.fixture(scope="module")
def tags(home, tagger):
    return tagger.predict(home / "sounds", draws=6)


def same(one, other):
    for name in ("probability", "aleatoric", "epistemic", "entropy", "mutual_information"):
        np.testing.assert_allclose(getattr(one.uncertainty, name), getattr(other.uncertainty, name), atol=1e-12)


def test_load_gives_the_posterior_itself(home, tagger):
    assert isinstance(tagger, Posterior)
    assert isinstance(tagger, PosteriorTagger)
    before = load_posterior(home / "a")
    files = [home / "sounds" / "long.wav", home / "sounds" / "short.wav"]
    mine, old = tag(tagger, files, draws=6), tag(before, files, draws=6)
    same(mine, old)
    assert tagger.folder == before.folder
    assert tagger.calibration == before.calibration
    write(home / "test.h5", np.zeros((2, 4000)), np.eye(3, dtype=bool)[:2], LABELS, Task.ONE_OF_K, RATE)
    assert evaluate_posterior(tagger, [home / "test.h5"], draws=2).metrics["clips"] == 2


def test_the_numbers_are_those_of_tag(home, tagger, tags):
    old = tag(tagger, [home / "sounds" / "long.wav", home / "sounds" / "short.wav"], draws=6, samples=True)
    assert isinstance(tags, Tags)
    same(tags, old)
    assert tags.windows == old.windows
    np.testing.assert_array_equal(tags.uncertainty.samples, old.uncertainty.samples)
    np.testing.assert_array_equal(tags.sets, old.sets)
    low, high = np.quantile(old.uncertainty.samples, [0.05, 0.95], axis=1)
    np.testing.assert_allclose(tags.low, low, atol=1e-6)
    np.testing.assert_allclose(tags.high, high, atol=1e-6)
    same(bayes_panns.predict(tagger, home / "sounds", 6), tags)


@pytest.mark.parametrize("kind", ["float32", "float64", "int16", "int32", "uint8", "tensor"])
def test_a_sound_in_memory_is_tagged_as_its_file(home, tagger, kind):
    samples, _ = soundfile.read(home / "sounds" / "long.wav", dtype="float32")
    given = {
        "float32": samples,
        "float64": samples.astype(float),
        "int16": np.round(samples * 32767).astype(np.int16),
        "int32": np.round(samples.astype(float) * 2147483647).astype(np.int32),
        "uint8": np.round(samples * 127 + 128).astype(np.uint8),
        "tensor": torch.from_numpy(samples),
    }[kind]
    found = tagger.predict(given, RATE, draws=6)
    expected = tagger.predict(home / "sounds" / "long.wav", draws=6)
    assert found.files == ("sound",)
    loose = {"uint8": 0.05, "int16": 1e-3}.get(kind, 1e-6)
    np.testing.assert_allclose(found.probability, expected.probability, atol=loose)
    assert [(each.start, each.end) for each in found.windows] == [(each.start, each.end) for each in expected.windows]


def test_several_sounds_in_memory_have_names(tagger):
    sound = np.zeros(4000, np.float32)
    assert tagger.predict([sound, sound], rate=RATE, draws=2).files == ("sound 1", "sound 2")
    found = tagger.predict({"x": sound, "y": np.full(4000, np.nan)}, rate=RATE, draws=2)
    assert found.files == ("x",)
    assert [each.file for each in found.skipped] == ["y"]
    assert found.skipped[0].reason.startswith("y: ")
    assert "/tmp" not in repr(found)


@pytest.mark.parametrize(
    ("sounds", "rate", "error", "message"),
    [
        (np.zeros(4000), None, SettingError, "needs its sample rate"),
        (np.zeros((2, 4000)), RATE, SettingError, r"has shape \(2, 4000\)"),
        (np.zeros(4000, complex), RATE, SettingError, "holds complex128"),
        (np.zeros(0), RATE, AudioError, "holds no samples"),
        (np.zeros(4000, int), RATE, SettingError, "holds int64, whose full scale is unknown"),
        (np.zeros(4000), 0, SettingError, "rate 0: expected a whole number of Hz"),
        (np.zeros(4000), "8000", SettingError, "rate '8000': expected"),
        (np.zeros(4000), float("nan"), SettingError, "rate nan: expected"),
        (np.zeros(4000), 2**31, SettingError, "rate 2147483648: expected"),
        (5, None, SettingError, "int: is no sound"),
        ([], None, SettingError, "nothing to tag"),
        ([1, 2], None, SettingError, "int: is no sound"),
        ("a.wav", RATE, SettingError, "rate is for sounds in memory"),
        ("nowhere.wav", None, AudioError, "^nowhere.wav: "),
    ],
)
def test_what_is_no_sound_is_one_line(tagger, sounds, rate, error, message):
    with pytest.raises(error, match=message) as caught:
        tagger.predict(sounds, rate)
    assert "\n" not in str(caught.value)


def test_windows_and_sounds_are_taken_out(home, tags):
    long, short = (str(home / "sounds" / f"{name}.wav") for name in ("long", "short"))
    assert tags.files == (long, short)
    assert len(tags) == 6
    assert len(tags["long.wav"]) == 5
    assert tags[long].windows == tags.windows[:5]
    assert tags[-1].files == (short,)
    assert tags[1:3].windows == tags.windows[1:3]
    np.testing.assert_array_equal(tags[1:3].uncertainty.samples, tags.uncertainty.samples[1:3])
    np.testing.assert_array_equal([each.probability[0] for each in tags], tags.probability)
    assert all(isinstance(each, Predictions) for each in tags)
    with pytest.raises(IndexError):
        tags[6]
    with pytest.raises(KeyError, match="is no sound that was tagged"):
        tags["other.wav"]


def test_the_most_probable_labels_are_each_from_their_best_window(tags):
    top = tags.top(2)
    best = tags.probability.max(axis=0)
    assert [each.probability for each in top] == sorted(best, reverse=True)[:2]
    for each in top:
        k, place = LABELS.index(each.label), [(w.file, w.start) for w in tags.windows].index((each.file, each.start))
        assert (each.low, each.high) == (tags.low[place, k], tags.high[place, k])
    assert repr(top[0]).startswith(f"{top[0].label} {top[0].probability:.2f} (")


def test_events_are_those_of_the_finder(home, tagger):
    path = home / "sounds" / "long.wav"
    rules = EventRules(threshold=0.3, gap=0.1)
    found = tagger.predict(path, draws=6, hop=0.25, events=rules)
    parts = list(tag_each(tagger, [path], 6, hop=0.25, samples=True))
    assert found.events() == find_events(LABELS, parts, rules)
    assert found.events()
    other = EventRules(threshold=0.4)
    assert found.events(other) == find_events(LABELS, parts, other)


def test_a_window_has_the_events_that_touch_it(home, tagger):
    path = home / "sounds" / "long.wav"
    middle = float(np.median(tagger.predict(path, draws=6, hop=0.25).probability[:, 0]))
    found = tagger.predict(path, draws=6, hop=0.25, events=EventRules(threshold=(middle, 1.0, 1.0)))
    held = [[e for e in found.events() if e.onset < w.end and e.offset > w.start] for w in found.windows]
    assert [each.events() for each in found] == held
    assert any(len(each) < len(found.events()) for each in held)
    assert any(held)


def test_draws_are_kept_as_long_as_they_are_small(home, tagger, monkeypatch, caplog):
    monkeypatch.setattr(tagging, "KEPT", 300)
    monkeypatch.setattr("bayes_panns.predictions.recordings.MOST", 1)
    found = tagger.predict(home / "sounds", draws=6)
    assert found.uncertainty.samples is None
    assert "predict with samples=True to keep them" in caplog.text
    low, _ = found.low, found.to_pandas()
    np.testing.assert_array_equal(found.to_pandas()["low"].to_numpy().reshape(low.shape), low)
    with pytest.raises(PredictionError, match="samples=True"):
        found.to_arviz()
    with pytest.raises(PredictionError, match="samples=True"):
        found.events(EventRules())
    assert isinstance(found.events(), list)
    short = home / "sounds" / "short.wav"
    assert tagger.predict(short, draws=6, samples=True).uncertainty.samples is not None
    assert tagger.predict(short, draws=2, samples=False).uncertainty.samples is None


def test_moments_have_a_band_and_no_draws(home, tagger):
    found = tagger.predict(home / "sounds", draws="moments")
    assert (found.low <= found.probability).all()
    assert (found.high >= found.probability).all()
    with pytest.raises(PredictionError, match="events need draws"):
        found.events()
    with pytest.raises(SettingError, match="moments have no samples"):
        tagger.predict(home / "sounds", draws="moments", samples=True)
    assert "<svg" in found._repr_html_()


def test_it_prints_as_the_table_of_the_command(home, tagger, tags):
    assert repr(tags) == render_tags(tags, "table").rstrip("\n")
    many = tagger.predict({f"{number}": np.zeros(4000) for number in range(45)}, rate=RATE, draws=2)
    lines = repr(many).splitlines()
    assert len(lines) == 22
    assert lines[-1] == "... 25 more windows; print(tags.table()) shows all"
    assert len(many.table().splitlines()) == 46


def test_tables_of_pandas_and_polars(tags):
    pandas, polars = tags.to_pandas(), tags.to_polars()
    assert list(pandas.columns) == polars.columns
    assert len(pandas) == len(polars) == 18
    by = pandas.pivot(index=["file", "start"], columns="label", values="probability")[list(LABELS)]
    np.testing.assert_array_equal(by.to_numpy(), tags.probability)
    np.testing.assert_array_equal(polars["in_set"].to_numpy().reshape(6, 3), tags.sets)
    wide = tags.to_pandas(wide=True)
    np.testing.assert_array_equal(wide[["cat", "dog", "start (label)"]].to_numpy(), tags.probability)
    assert list(wide["start"]) == [window.start for window in tags.windows]
    assert tags.to_polars(wide=True).columns == list(wide.columns)


def test_arrays_of_xarray(tags, tmp_path):
    data = tags.to_xarray()
    assert dict(data.sizes) == {"window": 6, "label": 3, "draw": 6}
    np.testing.assert_allclose(data["samples"].mean("draw"), data["probability"], atol=1e-6)
    assert list(data["label"].values) == list(LABELS)
    assert data["start"].attrs["units"] == "s"
    assert float(data["probability"].sel(label="dog")[2]) == tags.probability[2, 1]
    data.to_netcdf(tmp_path / "x.nc", engine="h5netcdf")


def test_arviz_has_the_draws(tags, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        arviz = pytest.importorskip("arviz")
    data = tags.to_arviz()
    found = data.posterior_predictive["probability"]
    assert found.dims == ("chain", "draw", "window", "label")
    np.testing.assert_array_equal(found.values[0], tags.uncertainty.samples.transpose(1, 0, 2))
    assert list(data.constant_data["end"].values) == [window.end for window in tags.windows]
    data.to_netcdf(str(tmp_path / "x.nc"), engine="h5netcdf")
    assert arviz.from_netcdf(str(tmp_path / "x.nc")).posterior_predictive["probability"].shape == (1, 6, 6, 3)


@pytest.mark.parametrize("package", ["pandas", "polars", "xarray", "arviz"])
def test_a_missing_package_is_one_line_with_what_to_install(tags, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BayesPannsError, match=rf"to_{package} needs \w+: pip install 'bayes-panns\[\w+\]'"):
        getattr(tags, f"to_{package}")()


def test_it_is_saved_by_the_ending(tags, tmp_path):
    for form in ("csv", "json"):
        assert tags.save(tmp_path / f"x.{form}").read_text() == render_tags(tags, form)
    parquet = pytest.importorskip("pyarrow.parquet").read_table(tags.save(str(tmp_path / "x.parquet")))
    np.testing.assert_allclose(parquet["probability"].to_numpy().reshape(6, 3), tags.probability, atol=1e-6)
    with pytest.raises(SettingError, match="is of one sound; save one, such as"):
        tags.save(tmp_path / "y.txt")
    with pytest.raises(SettingError, match=r"ends in \.csv"):
        tags.save(tmp_path / "x.xlsx")
    with pytest.raises(OutputError, match="does not exist"):
        tags.save(tmp_path / "nowhere" / "x.csv")


def test_events_and_the_timeline_of_one_sound_are_saved(home, tagger, tmp_path):
    samples, _ = soundfile.read(home / "sounds" / "long.wav", dtype="float32")
    found = tagger.predict({"night": samples}, rate=RATE, draws=6, hop=0.25, events=EventRules(threshold=0.35))
    track = found.save(tmp_path / "x.txt").read_text().splitlines()
    assert len(track) == len(found.events()) > 0
    first = found.events()[0]
    assert track[0].startswith(f"{first.onset:.6f}\t{first.offset:.6f}\t{first.label} {first.probability:.2f}")
    raven = found.save(tmp_path / "x.raven.txt").read_text().splitlines()
    assert [line.split("\t")[7] for line in raven[1:]] == [event.label for event in found.events()]
    assert found.save(tmp_path / "x.PNG").read_bytes().startswith(b"\x89PNG")


def test_decisions_are_those_of_the_posterior(tagger, tags):
    expected = decide(tagger, tags.uncertainty, abstain_above=1.0)
    found = tags.decide(abstain_above=1.0)
    np.testing.assert_array_equal(found.called, expected.called)
    np.testing.assert_array_equal(found.left, expected.left)
    with pytest.raises(PredictionError):
        tags.decide()


def test_a_plot_fits_what_there_is(tags):
    matplotlib.use("agg")
    from matplotlib import pyplot
    from matplotlib.figure import Figure

    ax = Figure(layout="constrained").add_subplot()
    assert tags["long.wav"].plot(ax, top=2) is ax
    assert [line.get_label() for line in ax.lines] == [each.label for each in tags["long.wav"].top(2)]
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [0.25, 0.75, 1.25, 1.75, 1.95])
    single = tags[0].plot()
    assert single.get_xlim()[0] == 0
    assert len(single.patches) == 3
    assert len(tags.plot().images) == 1
    pyplot.close("all")


def test_several_posteriors_are_an_ensemble(home):
    both = bayes_panns.load(home / "a", home / "b")
    assert isinstance(both, EnsembleTagger)
    old = Ensemble([load_posterior(home / "a"), load_posterior(home / "b")])
    same(both.predict(home / "sounds", draws=4), tag(old, [*sorted((home / "sounds").iterdir())], draws=4))
    assert repr(both).startswith("ensemble of 2 posteriors\n")
    assert "Members" in both._repr_html_()


def test_the_card_says_what_it_is(home, tagger):
    text = repr(tagger)
    assert text.startswith(f"posterior in {(home / 'a' / 'posterior').resolve()}\n")
    for line in (
        r"Network +resnet14-coarse, 8000 Hz, clips of 0\.5 s",
        r"Labels +3, one-of-k: cat, dog, start",
        r"Calibrated +temperature 1\.5 and label sets of 90%, for 6 draws",
        r"Draws +200 where no number is given",
    ):
        assert re.search(rf"^  {line}$", text, re.MULTILINE), text
    points = PosteriorTagger.of(build(Strategy(default=Settings(posterior="point")), labels=("<i>x</i>", "y\n")))
    assert re.search(r"^  Calibrated +no: ", repr(points), re.MULTILINE)
    assert "no epistemic uncertainty" in repr(points)
    assert "<i>" not in points._repr_html_()
    assert "y\\n" in points._repr_html_()


def test_rates_and_numbers_of_other_packages_are_taken(tagger):
    values = torch.from_numpy(np.random.default_rng(0).normal(size=4000)).bfloat16()
    one = tagger.predict(values, float(RATE), draws=2)
    other = tagger.predict(values.float().numpy(), np.int64(RATE), draws=2)
    np.testing.assert_array_equal(one.probability, other.probability)


def test_no_windows_have_no_labels(tags):
    none = tags[len(tags) :]
    assert (len(none), none.top(), none.events(), len(none.to_pandas())) == (0, [], [], 0)
