"""The command score: events beside annotations of every kind."""

import csv
import json

import pytest
from click.testing import CliRunner

from bayes_panns.cli import main
from bayes_panns.jobs import score
from bayes_panns.jobs.results import Entry, ResultsFolder

COLUMNS = ["file", "onset", "offset", "label", "probability", "low", "high", "start_time", "end_time"]
FOUND = [
    ("day/a.wav", 1.0, 3.0, "dog", 0.9),
    ("day/a.wav", 10.0, 12.0, "dog", 0.4),
    ("day/b.wav", 4.0, 6.0, "cat", 0.8),
]


@pytest.fixture
def results(tmp_path):
    """A results folder with three recordings and three events."""
    folder = ResultsFolder(tmp_path / "results")
    with folder.claimed():
        folder.begin({"labels": ["cat", "dog"], "task": "multi-label"})
        for name in ("day/a.wav", "day/b.wav", "day/c.wav"):
            folder.append(Entry(name, f"records/{name}.h5", seconds=20.0, windows=20))
        folder.append(Entry("day/d.wav", skipped="day/d.wav: is empty"))
    write_events(folder.path / "events.csv", FOUND)
    return folder.path


def write_events(path, events):
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([name, a, b, label, p, p, p, "", ""] for name, a, b, label, p in events)


def run(*arguments, code=0):
    result = CliRunner().invoke(main, ["score", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def numbers(*arguments):
    return json.loads(run(*arguments, "--no-intervals", "--json", "-").stdout)


TABLE = "file,start,end,labels\na.wav,1.1,3.1,dog\nday/b.wav,4,6,cat\nday/b.wav,10,11,dog;cat\n"


def test_a_csv_of_annotations(results, tmp_path):
    (tmp_path / "truth.csv").write_text(TABLE)
    found = numbers(results, tmp_path / "truth.csv")
    assert (found["annotated"], found["found"], found["hours"]) == (4, 3, pytest.approx(40 / 3600))
    assert found["event_f1"] == pytest.approx(4 / 7)
    assert (found["dog/event_precision"], found["dog/event_recall"]) == (0.5, 0.5)
    assert found["cat/intersection_f1"] == pytest.approx(2 / 3)
    assert found["share_there"] == pytest.approx(2 / 3)
    assert found["brier"] == pytest.approx((0.1**2 + 0.4**2 + 0.2**2) / 3)
    # The same from Python, and where all of the results are annotated.
    again = score(results, tmp_path / "truth.csv", exhaustive=True, resamples=0).metrics()
    assert (again["hours"], again["event_f1"]) == (pytest.approx(60 / 3600), found["event_f1"])
    # With a collar of nothing only exact onsets fit.
    assert numbers(results, tmp_path / "truth.csv", "--collar", "0", "--no-offset")["dog/event_recall"] == 0


def test_the_table_has_intervals(results, tmp_path):
    (tmp_path / "truth.csv").write_text(TABLE)
    lines = run(results, tmp_path / "truth.csv", "--part", "10").stdout.splitlines()
    assert lines[0].split()[:3] == ["label", "annotated", "found"]
    assert [line.split()[0] for line in lines[1:4]] == ["cat", "dog", "all"]
    assert "0.571 (" in lines[3]
    assert "PSDS" in lines[5]
    assert "said to be there with probability 0.700 on average; 0.667 are" in lines[6]


@pytest.mark.parametrize("folder", [False, True])
def test_tables_of_raven_and_audacity(results, tmp_path, folder):
    marked = tmp_path / "marked"
    marked.mkdir()
    row = "Waveform 1\t1.1\t3.1\tdog"
    raven = f"Selection\tView\tBegin Time (s)\tEnd Time (s)\tSpecies\n1\t{row}\n1\t{row.replace('Wave', 'Spectro')}\n"
    (marked / "a.Table.1.selections.txt").write_text(raven)
    (marked / "b.txt").write_text("4.0\t6.0\tcat\n10\t11\tdog\n10\t11\tcat\n")
    (marked / "c.txt").write_text("")
    (marked / "notes.txt").write_text("windy")
    if folder:
        found = numbers(results, marked)
        assert (found["annotated"], found["hours"]) == (4, pytest.approx(60 / 3600))
        assert found["event_f1"] == pytest.approx(4 / 7)
    else:
        assert numbers(results, marked / "a.Table.1.selections.txt")["dog/event_f1"] == pytest.approx(2 / 3)


def test_events_alone(results, tmp_path):
    (tmp_path / "truth.csv").write_text("file,onset,offset,label\nday/a.wav,1,3,dog\nday/b.wav,4,9,cat\n")
    result = run(results / "events.csv", tmp_path / "truth.csv", "--no-intervals", "--json", tmp_path / "scores.json")
    assert "its length is taken to be 12 s" in result.stderr
    assert json.loads((tmp_path / "scores.json").read_text())["hours"] == pytest.approx(21 / 3600)


def test_a_folder_without_events(results, tmp_path):
    (tmp_path / "truth.csv").write_text(TABLE)
    write_events(results / "events.csv", [])
    found = numbers(results, tmp_path / "truth.csv")
    assert (found["found"], found["event_f1"], found["psds"]) == (0, 0, 0)


def test_mistakes_are_told_in_one_line(results, tmp_path):
    def said(*arguments):
        return run(*arguments, code=1).stderr.strip().splitlines()[-1]

    truth = tmp_path / "truth.csv"
    assert "no such file or folder" in said(results, truth)
    truth.write_text("file,start,end,labels\nz.wav,1,2,dog\n")
    assert "is of none of the 3 recordings" in said(results, truth)
    truth.write_text("file,begin,end,labels\na.wav,1,2,dog\n")
    assert "lacks the column start" in said(results, truth)
    truth.write_text("name,when\na.wav,1\n")
    assert "write a CSV with the columns file, start, end and labels" in said(results, truth)
    truth.write_text("file,start,end,labels\na.wav,5,2,dog\n")
    assert "line 2 ends at 2 s, before it starts" in said(results, truth)
    assert "no such file" in said(tmp_path / "nothing.csv", truth)
    assert "holds no results" in said(tmp_path, truth)


def test_what_is_left_out_is_told(results, tmp_path):
    (tmp_path / "truth.csv").write_text("file,start,end,labels\na.wav,1,2,dog\na.wav,3,4,wolf\nz.wav,1,2,dog\n")
    told = run(results, tmp_path / "truth.csv", "--no-intervals").stderr
    assert "1 annotated recordings are not among the results, such as z.wav" in told
    assert "does not mention 2 of 3 recordings" in told
    assert "does not know wolf" in told


def test_the_events_of_other_recordings_can_be_counted(results, tmp_path):
    (tmp_path / "truth.csv").write_text(TABLE)
    finding = score(results, tmp_path / "truth.csv", resamples=0).finding()
    counts, together = finding.count([0, 4], hours=40 / 3600)
    assert counts.called.tolist() == [0, 4]
    assert counts.low[1] <= 4 <= counts.high[1]
    assert together.low[0] <= together.value[0] <= together.high[0]


def test_recordings_of_one_name_in_different_folders_are_apart(results, tmp_path):
    (tmp_path / "truth.csv").write_text(TABLE + "/disk/night/b.wav,5,6,cat\n")
    result = run(results, tmp_path / "truth.csv", "--no-intervals")
    assert "1 annotated recordings are not among the results, such as /disk/night/b.wav" in result.stderr
    assert numbers(results, tmp_path / "truth.csv")["annotated"] == 4


def test_results_that_are_not_there_are_said_in_words_of_results(tmp_path):
    (tmp_path / "truth.csv").write_text(TABLE)
    result = run(tmp_path / "none", tmp_path / "truth.csv", code=1)
    assert "name a results folder of predict, or its events.csv" in result.stderr


def test_an_annotation_behind_the_end_of_its_recording_is_told_of_and_not_scored(results, tmp_path):
    (tmp_path / "truth.csv").write_text("file,start,end,labels\na.wav,1,3,dog\na.wav,25,30,dog\n")
    found = run(results, tmp_path / "truth.csv", "--no-intervals", "--json", "-")
    assert "1 annotated events start behind the end of their recording, such as in day/a.wav at 25 s" in found.stderr
    assert json.loads(found.stdout)["annotated"] == 1


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([], "lists no event, so no recording is known; name the results folder"),
        ([("a.wav", 1.0, 3.0, "dog", float("nan"))], "line 2 has probability 'nan'"),
        ([("a.wav", 1.0, 3.0, "dog", 1.5)], "line 2 has probability '1.5'"),
        ([("a.wav", 3.0, 1.0, "dog", 0.5)], "line 2 ends at 1 s, before it starts at 3 s"),
    ],
)
def test_a_table_of_events_that_makes_no_sense_is_one_line(tmp_path, events, message):
    write_events(tmp_path / "events.csv", events)
    (tmp_path / "truth.csv").write_text(TABLE)
    error = run(tmp_path / "events.csv", tmp_path / "truth.csv", code=1).stderr
    assert message in error
    assert len(error.splitlines()) == 1
