"""Labels that say when something is heard."""

import re

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bayes_panns.clips import Store, Task, folder, pack, timed
from bayes_panns.clips.catalogs.timed import Cutting, Stretch, cut
from bayes_panns.core.errors import StoreError

RATE = 8000
RAVEN = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)"


def sound(path, seconds=20.0, beep=()):
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = np.zeros(int(RATE * seconds))
    for start, end in beep:
        wave[int(start * RATE) : int(end * RATE)] = 0.5
    soundfile.write(path, wave, RATE)
    return path


def text(path, *lines, end="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(line + end for line in lines).encode())
    return path


def spans(catalog):
    """Recording, start, end and labels of each clip."""
    return [
        (clip.source, clip.start, clip.start + clip.seconds, [catalog.labels[index] for index in clip.labels])
        for clip in catalog.clips
    ]


class TestTable:
    def test_the_stretch_is_what_is_packed(self, tmp_path):
        sound(tmp_path / "rec.wav", beep=[(10, 12)])
        sound(tmp_path / "rec2.wav")
        table = text(tmp_path / "t.csv", "file,labels,start,end", "rec.wav,beep,10,12", "rec2.wav,none,0,2")
        catalog = folder(table, seconds=2)
        assert (catalog.task, catalog.labels) == (Task.ONE_OF_K, ("beep", "none"))
        assert pack(catalog, tmp_path / "s.h5", sample_rate=RATE).packed == 2
        store = Store(tmp_path / "s.h5")
        assert store.names == ["rec.wav 10-12", "rec2.wav 0-2"]
        assert np.abs(store.waveform([0, 1])).min(axis=1) == pytest.approx([0.5, 0], abs=1e-3)
        assert list(store.sources) == ["rec.wav", "rec2.wav"]

    @pytest.mark.parametrize(
        ("start", "end", "expected"),
        [
            (5, 15, [(5, 7), (7, 9), (9, 11), (11, 13), (13, 15)]),
            (5, 8, [(5, 7), (6, 8)]),
            (5, 9.1, [(5, 7), (7.1, 9.1)]),
            (5, 7, [(5, 7)]),
            (5, 7.2, [(5.1, 7.1)]),
            (6, 6.5, [(5.25, 7.25)]),
            (0, 0.5, [(0, 2)]),
            (19.8, 20, [(18, 20)]),
            (19.8, 20.05, [(18, 20)]),
            (6, 6, [(5, 7)]),
        ],
    )
    def test_where_clips_are(self, tmp_path, start, end, expected):
        sound(tmp_path / "r.wav")
        table = text(tmp_path / "t.csv", "file,labels,start,end", f"r.wav,dog,{start},{end}")
        assert [(a, b) for _, a, b, _ in spans(timed(table, seconds=2))] == [pytest.approx(each) for each in expected]

    def test_without_context(self, tmp_path):
        sound(tmp_path / "r.wav", beep=[(6, 6.5)])
        table = text(tmp_path / "t.csv", "file,labels,start,end", "r.wav,dog,6,6.5", "r.wav,cat,6.5,7")
        assert [labels for *_, labels in spans(timed(table, seconds=2))] == [["cat", "dog"]]
        catalog = timed(table, seconds=2, context=False)
        assert spans(catalog) == [("r.wav", 6, 6.5, ["dog"]), ("r.wav", 6.5, 7, ["cat"])]
        assert catalog.task is Task.ONE_OF_K
        pack(catalog, tmp_path / "s.h5", sample_rate=RATE)
        store = Store(tmp_path / "s.h5")
        assert (store.samples, list(store.seconds)) == (2 * RATE, [0.5, 0.5])
        text(table, "file,labels,start,end", "r.wav,dog,6,6")
        with pytest.raises(StoreError, match="line 2 is a point in time"):
            timed(table, context=False)

    def test_what_overlaps_makes_several_labels(self, tmp_path):
        sound(tmp_path / "r.wav")
        rows = ["r.wav,dog,5,7", "r.wav,cat,6.5,8.5", "r.wav,cow,6.95,9", "r.wav,hen,14,14.4;"]
        table = text(tmp_path / "t.csv", "file,labels,start,end", *(row.rstrip(";") for row in rows))
        catalog = timed(table, seconds=2)
        assert catalog.task is Task.MULTI_LABEL
        found = {(round(a, 6), round(b, 6)): labels for _, a, b, labels in spans(catalog)}
        assert found[5, 7] == ["cat", "dog"], "of cow it holds 0.05 s, less than a tenth of either"
        assert found[6.5, 8.5] == ["cat", "cow", "dog"]
        assert found[13.2, 15.2] == ["hen"]

    def test_exhaustive_labels_give_clips_without_a_label(self, tmp_path):
        sound(tmp_path / "r.wav")
        lines = ["file,labels,start,end", "r.wav,dog,5,7", "r.wav,cat,12,12.5"]
        table = text(tmp_path / "t.csv", *lines)
        assert len(timed(table, seconds=2).clips) == 2
        catalog = timed(table, seconds=2, exhaustive=True)
        empty = [(a, b) for _, a, b, labels in spans(catalog) if not labels]
        assert empty == [(0, 2), (2, 4), (7, 9), (9, 11), (12.5, 14.5), (14.5, 16.5), (16.5, 18.5)]
        assert (catalog.task, len(catalog.clips)) == (Task.MULTI_LABEL, 9)
        by_column = text(tmp_path / "e.csv", lines[0] + ",exhaustive", *(line + ",true" for line in lines[1:]))
        assert spans(timed(by_column, seconds=2)) == spans(catalog)

    def test_whole_recordings_and_stretches_without_a_label(self, tmp_path):
        sound(tmp_path / "a.wav", 5)
        sound(tmp_path / "b.wav", 5)
        table = text(tmp_path / "t.csv", "file,labels,start,end,fold,source", "a.wav,rain,,,1,x", "b.wav,,1,2,2,y")
        catalog = timed(table, seconds=2)
        assert spans(catalog) == [
            ("x", 0, 2, ["rain"]),
            ("x", 1.5, 3.5, ["rain"]),
            ("x", 3, 5, ["rain"]),
            ("y", 1, 2, []),
        ], "the sound around a stretch without a label may hold anything"
        assert [clip.fold for clip in catalog.clips] == [1, 1, 1, 2]

    @pytest.mark.parametrize(
        ("row", "match"),
        [
            ("r.wav,dog,-1,2", "line 2 has start '-1', which should be greater than or equal to 0"),
            ("r.wav,dog,nan,2", "line 2 has start 'nan', which is not a finite number"),
            ("r.wav,dog,1,inf", "line 2 has end 'inf', which is not a finite number"),
            ("r.wav,dog,1,x", "line 2 has end 'x', which is not a number"),
            ("r.wav,dog,1,", "line 2 has a start or an end, but not both"),
            ("r.wav,dog,3,2", "line 2 ends at 2 s, before it starts at 3 s"),
            ("r.wav,dog,3,25", "line 2 is about 3 to 25 s, but .*r.wav is 20.00 s long"),
            ("r.wav,dog,30,31", "line 2 is about 30 to 31 s, but .*r.wav is 20.00 s long"),
            ("../r.wav,dog,1,2", "line 2 names '../r.wav', which is not below the folder"),
        ],
    )
    def test_rows_that_are_wrong(self, tmp_path, row, match):
        sound(tmp_path / "r.wav")
        with pytest.raises(StoreError, match=match):
            folder(text(tmp_path / "t.csv", "file,labels,start,end", row))

    def test_columns_that_are_wrong(self, tmp_path):
        sound(tmp_path / "r.wav")
        with pytest.raises(StoreError, match="lacks the column end"):
            folder(text(tmp_path / "t.csv", "file,labels,start", "r.wav,dog,1"))
        with pytest.raises(StoreError, match="not understood: 'species'; known are file, labels, start, end, fold, "):
            folder(text(tmp_path / "t.csv", "file,labels,start,end,species", "r.wav,dog,1,2,x"))
        text(tmp_path / "t.csv", "file,labels,start,end,fold", "r.wav,dog,1,2,1", "r.wav,dog,5,6,2")
        with pytest.raises(
            StoreError, match=r"line 3 gives r.wav the fold 2, and .*line 2 1; give a recording one fold"
        ):
            folder(tmp_path / "t.csv")

    def test_a_missing_recording_is_for_pack_to_skip(self, tmp_path):
        sound(tmp_path / "r.wav")
        table = text(tmp_path / "t.csv", "file,labels,start,end", "r.wav,dog,1,2", "gone.wav,cat,1,2")
        report = pack(folder(table, seconds=1), tmp_path / "s.h5", sample_rate=RATE)
        assert (report.packed, report.skipped) == (1, (("gone.wav 1-2", "no such file"),))
        text(table, "file,labels,start,end", "r.wav,dog,1,2", f"{'x' * 300}.wav,cat,1,2")
        assert len(pack(folder(table, seconds=1), tmp_path / "s.h5", sample_rate=RATE).skipped) == 1

    def test_a_length_other_than_the_one_it_was_cut_for_is_refused(self, tmp_path):
        sound(tmp_path / "r.wav")
        table = text(tmp_path / "t.csv", "file,labels,start,end", "r.wav,dog,1,9")
        with pytest.raises(StoreError, match="is cut into clips of 10 s, and clips of 2 s would lose"):
            pack(folder(table), tmp_path / "s.h5", seconds=2)

    def test_options_for_times_are_refused_without_them(self, tmp_path):
        sound(tmp_path / "r.wav")
        for name, value in (("exhaustive", True), ("context", False), ("label_column", "x")):
            with pytest.raises(StoreError, match=f"has no labels with times, which {name} is for"):
                folder(tmp_path, **{name: value})
        with pytest.raises(StoreError, match="holds no labels with times; name a file"):
            timed(tmp_path)

    def test_a_length_that_is_none(self, tmp_path):
        sound(tmp_path / "r.wav")
        table = text(tmp_path / "t.csv", "file,labels,start,end", "r.wav,dog,1,2")
        for seconds in (0, -1, 1e-9, float("nan")):
            with pytest.raises(StoreError, match=r"cannot be cut; ask for 0\.01 s or more"):
                folder(table, seconds=seconds)


class TestRaven:
    def test_a_table_beside_its_recording(self, tmp_path):
        sound(tmp_path / "Rec_1.wav")
        rows = ["1\tWaveform 1\t1\t2.0\t3.0\t100\t900\tEATO\t", "1\tSpectrogram 1\t1\t2.0\t3.0\t100\t900\tEATO\t"]
        path = tmp_path / "Rec_1.Table.1.selections.txt"
        text(path, RAVEN + "\tSpecies\t", *rows, "2\tSpectrogram 1\t1\t8\t9\t1\t2\tWOTH\t", end="\r\n")
        for source in (path, tmp_path):
            catalog = folder(source, seconds=1)
            assert spans(catalog) == [("Rec_1.wav", 2, 3, ["EATO"]), ("Rec_1.wav", 8, 9, ["WOTH"])]
        assert catalog.options["labels"] == ["Raven selection table"]

    def test_offsets_and_paths_of_another_computer(self, tmp_path):
        sound(tmp_path / "audio" / "a.wav")
        sound(tmp_path / "audio" / "b.wav")
        head = RAVEN + "\tBegin Path\tFile Offset (s)\tAnnotation"
        path = text(
            tmp_path / "audio" / "all.selections.txt",
            head,
            "1\tS\t1\t2\t3\t1\t2\tD:\\birds\\a.wav\t2\tEATO",
            "2\tS\t1\t24.5\t25.5\t1\t2\tD:\\birds\\b.wav\t4.5\tWOTH",
        )
        assert [span[:3] for span in spans(folder(path, seconds=1))] == [("a.wav", 2, 3), ("b.wav", 4.5, 5.5)]
        path = path.rename(tmp_path / "all.selections.txt")
        catalog = folder(tmp_path, seconds=1)
        assert [span[:3] for span in spans(catalog)] == [("audio/a.wav", 2, 3), ("audio/b.wav", 4.5, 5.5)]

    @pytest.mark.parametrize(
        ("columns", "cells", "asked", "match"),
        [
            ("\tCall", "\tx", None, r"no column of labels that is known; name one of .*Call with --label-column"),
            ("\tSpecies\tAnnotation", "\tx\ty", None, r"more than one column of labels \(Species, Annotation\)"),
            ("\tSpecies", "\tx", "Call", "has no column 'Call'; name one of Selection, View"),
            ("\tSpecies", "\t", None, "line 2 has no 'Species'"),
            ("\tSpecies", "\tx\ty", None, "line 2 has more fields than the first line"),
        ],
    )
    def test_columns_that_are_not_clear(self, tmp_path, columns, cells, asked, match):
        sound(tmp_path / "a.wav")
        path = text(tmp_path / "a.selections.txt", RAVEN + columns, "1\tS\t1\t2\t3\t1\t2" + cells)
        with pytest.raises(StoreError, match=match):
            folder(path, label_column=asked)

    def test_the_column_that_is_named(self, tmp_path):
        sound(tmp_path / "a.wav")
        path = text(tmp_path / "a.selections.txt", RAVEN + "\tSpecies\tCall", "1\tS\t1\t2\t3\t1\t2\tEATO\tsong")
        assert folder(path, label_column="call").labels == ("song",)


class TestAudacity:
    def test_a_folder_of_tracks(self, tmp_path, caplog):
        sound(tmp_path / "a.wav")
        sound(tmp_path / "day" / "b.wav")
        sound(tmp_path / "c.wav")
        text(tmp_path / "a.txt", "1.0\t2.0\tdog", "\\\t200.0\t900.0", "5\t6\tcat; dog")
        text(tmp_path / "day" / "b.txt", "3.500000\t3.500000\tdog")
        text(tmp_path / "readme.txt", "Recorded in May.")
        catalog = folder(tmp_path, seconds=1)
        assert spans(catalog) == [
            ("a.wav", 1, 2, ["dog"]),
            ("a.wav", 5, 6, ["cat", "dog"]),
            ("day/b.wav", 3, 4, ["dog"]),
        ]
        assert "1 file (c.wav) have no labels beside them and are left out" in caplog.text

    def test_a_track_without_labels_is_a_recording_without_sounds(self, tmp_path):
        sound(tmp_path / "a.wav", 4)
        sound(tmp_path / "b.wav", 4)
        text(tmp_path / "a.txt", "1\t2\tdog")
        text(tmp_path / "b.txt")
        assert len(folder(tmp_path, seconds=2).clips) == 1
        assert spans(folder(tmp_path, seconds=2, exhaustive=True))[1:] == [
            ("a.wav", 2, 4, []),
            ("b.wav", 0, 2, []),
            ("b.wav", 2, 4, []),
        ]

    @pytest.mark.parametrize(
        ("lines", "match"),
        [
            (["1\t2\tdog", "x"], "line 2 is not a start, an end and a label"),
            (["1\t2"], "line 1 has no label"),
            (["1\t2\tdog", "\\\t1\t2", "\\\t1\t2"], "line 3 has frequencies, but follows no label"),
            (["-1\t2\tdog"], "line 1 has the time '-1'"),
        ],
    )
    def test_damaged_tracks(self, tmp_path, lines, match):
        sound(tmp_path / "a.wav")
        with pytest.raises(StoreError, match=match):
            folder(text(tmp_path / "a.txt", *lines))

    def test_no_recording_or_one_of_two(self, tmp_path):
        path = text(tmp_path / "a.txt", "1\t2\tdog")
        sound(tmp_path / "b.wav")
        with pytest.raises(StoreError, match="no recording beside this Audacity label track"):
            folder(path)
        sound(tmp_path / "a.wav")
        sound(tmp_path / "a.flac")
        with pytest.raises(StoreError, match=r"may be of .*a.flac or of .*a.wav"):
            folder(path)
        path.rename(tmp_path / "a.wav.txt")
        assert spans(folder(tmp_path / "a.wav.txt", seconds=1)) == [("a.wav", 1, 2, ["dog"])]

    def test_class_folders_with_tracks_are_not_clear(self, tmp_path):
        for name in ("dog/a.wav", "cat/b.wav"):
            sound(tmp_path / name)
        text(tmp_path / "dog" / "a.txt", "1\t2\tbark")
        with pytest.raises(StoreError, match=r"sub-folders of sound \(cat, dog\).*name the catalog timed"):
            folder(tmp_path)
        assert timed(tmp_path).labels == ("bark",)

    def test_two_kinds_of_labels_on_one_recording_are_refused(self, tmp_path):
        sound(tmp_path / "a.wav")
        text(tmp_path / "a.txt", "1\t2\tdog")
        text(tmp_path / "a.selections.txt", RAVEN + "\tSpecies", "1\tS\t1\t2\t3\t1\t2\tdog")
        with pytest.raises(StoreError, match=r"a.wav: has labels in .*a.selections.txt and in .*a.txt; remove one"):
            folder(tmp_path)

    def test_tables_in_linked_folders_and_names_of_other_systems(self, tmp_path):
        sound(tmp_path / "disk" / "cafe\u0301.WAV")
        text(tmp_path / "disk" / "caf\u00e9.txt", "1\t2\tdog")
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "linked").symlink_to(tmp_path / "disk")
        assert spans(folder(tmp_path / "in", seconds=1)) == [("linked/cafe\u0301.WAV", 1, 2, ["dog"])]


class TestCrowsetta:
    def test_generic_seq(self, tmp_path):
        sound(tmp_path / "bird.wav")
        path = text(
            tmp_path / "g.csv",
            "label,onset_s,offset_s,onset_sample,offset_sample,notated_path,annot_path,sequence,annotation",
            "a,0.5,1.5,4000,12000,bird.wav,x.mat,0,0",
            "b,3.0,4.0,24000,32000,/home/them/bird.wav,x.mat,0,0",
        )
        assert spans(folder(path, seconds=1)) == [
            ("bird.wav", 0.5, 1.5, ["a"]),
            ("bird.wav", 3, 4, ["b"]),
        ]
        text(path, "label,onset_sample,offset_sample,notated_path,annot_path,sequence,annotation", "a,1,2,b,c,0,0")
        with pytest.raises(StoreError, match="lacks the columns onset_s, offset_s"):
            folder(path)

    def test_simple_seq(self, tmp_path):
        sound(tmp_path / "bird.wav")
        text(tmp_path / "bird.csv", "onset_s,offset_s,label", "1,2,a", "2,3,b")
        for source in (tmp_path, tmp_path / "bird.csv"):
            assert spans(folder(source, seconds=1)) == [("bird.wav", 1, 2, ["a"]), ("bird.wav", 2, 3, ["b"])]


@pytest.mark.parametrize("name", ["/etc/passwd", "../out.wav", "a/../../out.wav", "C:\\out.wav", "..\\out.wav"])
def test_files_outside_the_folder_are_refused(tmp_path, name):
    sound(tmp_path / "in" / "a.wav")
    sound(tmp_path / "out.wav")
    table = text(tmp_path / "in" / "t.csv", "file,labels", "a.wav,cat", f"{name},dog")
    with pytest.raises(StoreError, match=f"line 3 names {re.escape(repr(name))}, which is not below the folder"):
        folder(table)
    catalog = folder(table, allow_outside=True)
    assert catalog.clips[1].path.is_file() == (name not in {"C:\\out.wav", "a/../../out.wav"})


def test_links_out_of_the_folder_are_refused(tmp_path):
    sound(tmp_path / "else" / "where" / "out.wav")
    home = tmp_path / "x" / "y"
    sound(home / "a.wav")
    (home / "link.wav").symlink_to(tmp_path / "else" / "where" / "out.wav")
    (home / "days").symlink_to(tmp_path / "else" / "where")
    (home / "good.wav").symlink_to(home / "a.wav")
    for name in ("link.wav", "days/out.wav"):
        table = text(home / "t.csv", "file,labels", "a.wav,cat", f"{name},dog")
        with pytest.raises(StoreError, match=r"line 3 names .*, which is a link that leads out of"):
            folder(table)
        assert folder(table, allow_outside=True).clips[1].path.is_file()
    assert len(folder(text(home / "t.csv", "file,labels", "a.wav,cat", "good.wav,dog")).clips) == 2


def test_a_table_of_windows_is_understood(tmp_path):
    sound(tmp_path / "day" / "a.wav")
    assert folder(text(tmp_path / "t.csv", "file,labels", "day\\a.wav,dog")).clips[0].path.is_file()


@pytest.fixture(scope="module")
def minute(tmp_path_factory):
    return sound(tmp_path_factory.mktemp("minute") / "r.wav", 60)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.floats(0, 59), st.floats(0, 20), st.sampled_from("abc")), min_size=1, max_size=12),
    st.sampled_from([0.5, 1.0, 3.0, 7.0]),
    st.booleans(),
)
def test_every_labelled_second_is_in_a_clip_with_its_label(minute, marks, seconds, exhaustive):
    stretches = [
        Stretch(minute, "r", (label,), start, min(start + length, 60.0), minute, line)
        for line, (start, length, label) in enumerate(marks)
    ]
    labels, _, clips = cut(stretches, Cutting(seconds, exhaustive=exhaustive))
    assert len({clip.name for clip in clips}) == len(clips)
    for clip in clips:
        assert clip.start >= 0
        assert clip.start + clip.seconds <= 60 + 1e-6
        assert clip.seconds == pytest.approx(seconds)
    for stretch in stretches:
        own = [clip for clip in clips if stretch.labels[0] in [labels[index] for index in clip.labels]]
        for second in np.linspace(stretch.start, stretch.end, 50):
            # Up to a tenth of a clip is a rest that is left out.
            assert any(
                clip.start - 0.1 * seconds <= second <= clip.start + clip.seconds + 0.1 * seconds for clip in own
            )
    if exhaustive:
        for clip in clips:
            if not clip.labels:
                assert all(
                    min(clip.start + clip.seconds, stretch.end) - max(clip.start, stretch.start) <= 1e-5
                    for stretch in stretches
                )
