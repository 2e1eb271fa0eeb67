import re
import shutil

import numpy as np
import pytest
import soundfile

from bayes_panns.clips import (
    CATALOGS,
    Store,
    Task,
    audioset,
    dcase2013,
    esc50,
    folder,
    pack,
    read_labels,
    urbansound8k,
)
from bayes_panns.core.errors import StoreError

ESC_HEAD = "filename,fold,target,category,esc10,src_file,take"
US_HEAD = "slice_file_name,fsID,start,end,salience,fold,classID,class"


def sound(path, seconds=0.1):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.ones(int(8000 * seconds)), 8000)


def table(path, *lines, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


@pytest.fixture
def esc(tmp_path):
    table(
        tmp_path / "meta" / "esc50.csv",
        ESC_HEAD,
        "1-7-A-41.wav,1,41,crying_baby,True,7,A",
        "2-8-A-0.wav,2,0,dog,True,8,A",
        "2-8-B-0.wav,2,0,dog,True,8,B",
    )
    sound(tmp_path / "audio" / "1-7-A-41.wav")
    sound(tmp_path / "audio" / "2-8-A-0.ogg")
    return tmp_path


def test_esc50(esc):
    catalog = esc50(esc)
    assert (catalog.labels, catalog.task, catalog.seconds) == (("dog", "crying_baby"), Task.ONE_OF_K, 5.0)
    first, second, third = catalog.clips
    assert (first.labels, first.fold, first.source) == ((1,), 1, "7")
    assert second.path.name == "2-8-A-0.ogg", "a re-encoded file stands in for the one that is listed"
    assert second.name == "2-8-A-0.wav"
    assert not third.path.exists(), "a missing file is for `pack` to skip and count"


def test_esc10_is_the_part_of_esc50_that_its_csv_marks(esc):
    text = (esc / "meta" / "esc50.csv").read_text()
    (esc / "meta" / "esc50.csv").write_text(text + "3-9-A-7.wav,3,7,rooster,False,9,A\n")
    assert esc50(esc).labels == ("dog", "rooster", "crying_baby")
    part = esc50(esc, esc10=True)
    assert (part.labels, len(part.clips), part.options) == (("dog", "crying_baby"), 3, {"esc10": True})
    (esc / "meta" / "esc50.csv").write_text(text.replace("True", "False"))
    with pytest.raises(StoreError, match="marks no clip as part of ESC-10"):
        esc50(esc, esc10=True)


def test_urbansound8k(tmp_path):
    table(
        tmp_path / "metadata" / "UrbanSound8K.csv",
        US_HEAD,
        "9-3-0-0.wav,9,0,1,1,5,3,dog_bark",
        "8-1-0-0.wav,8,0,1,1,10,1,car_horn",
    )
    sound(tmp_path / "audio" / "fold5" / "9-3-0-0.wav")
    sound(tmp_path / "audio" / "fold10" / "8-1-0-0.wav")
    catalog = urbansound8k(tmp_path)
    assert (catalog.labels, catalog.seconds) == (("car_horn", "dog_bark"), 4.0)
    assert [(clip.labels, clip.fold, clip.source) for clip in catalog.clips] == [((1,), 5, "9"), ((0,), 10, "8")]
    assert all(clip.path.is_file() for clip in catalog.clips)


SEGMENTS = (
    "# Segments csv created Sun Mar  5 10:54:25 2017",
    "# num_ytids=2, num_segs=2, num_unique_labels=3, num_positive_labels=4",
    "# YTID, start_seconds, end_seconds, positive_labels",
)


def segments(path, *rows):
    return table(path, *SEGMENTS, *(f'{name}, {start:.3f}, {start + 10:.3f}, "{mids}"' for name, start, mids in rows))


@pytest.fixture
def audio_set(tmp_path):
    """AudioSet as PANNs' scripts leave it, with the ids that give parsers trouble."""
    table(
        tmp_path / "metadata" / "class_labels_indices.csv",
        "index,mid,display_name",
        '0,/m/09x0r,"Speech"',
        '1,/m/05zppz,"Male speech, man speaking"',
        '2,/t/dd00003,"Bark"',
    )
    segments(
        tmp_path / "metadata" / "balanced_train_segments.csv",
        ("--PJHxphWEs", 30, "/m/09x0r,/t/dd00003"),
        ("Y0_b-d_fg_3", 0, "/m/05zppz"),
    )
    segments(tmp_path / "metadata" / "eval_segments.csv", ("-0RWZT-miFs", 420, "/t/dd00003"))
    sound(tmp_path / "audios" / "balanced_train_segments" / "Y--PJHxphWEs.wav")
    sound(tmp_path / "audios" / "eval_segments" / "Y-0RWZT-miFs.wav")
    return tmp_path


class TestAudioSet:
    def test_all_splits(self, audio_set):
        catalog = audioset(audio_set)
        assert catalog.labels == ("Speech", "Male speech, man speaking", "Bark")
        assert (catalog.task, catalog.seconds, catalog.options) == (Task.MULTI_LABEL, 10.0, {})
        assert [(clip.name, clip.labels, clip.fold, clip.source) for clip in catalog.clips] == [
            ("Y--PJHxphWEs.wav", (0, 2), 1, "--PJHxphWEs"),
            ("YY0_b-d_fg_3.wav", (1,), 1, "Y0_b-d_fg_3"),
            ("Y-0RWZT-miFs.wav", (2,), 3, "-0RWZT-miFs"),
        ]
        assert [clip.path.is_file() for clip in catalog.clips] == [True, False, True]

    def test_one_split(self, audio_set):
        catalog = audioset(audio_set, split="eval")
        assert ([clip.fold for clip in catalog.clips], catalog.options) == ([3], {"split": "eval"})
        with pytest.raises(StoreError, match=r"lacks unbalanced_train_segments\.csv"):
            audioset(audio_set, split="unbalanced")
        with pytest.raises(StoreError, match="no split 'test'; choose one of balanced, unbalanced, eval"):
            audioset(audio_set, split="test")

    @pytest.mark.parametrize(
        "name",
        [
            "YY0_b-d_fg_3.wav",  # PANNs' download script
            "Y0_b-d_fg_3.flac",
            "Y0_b-d_fg_3_30000_40000.flac",  # audiosetdl
            "Bark/Y0_b-d_fg_3_30.0-40.0.ogg",  # audioset-download
            "YY0_b-d_fg_3_30.000_40.000.wav",  # DCASE's own
            "Y0_b-d_fg_3_30.mp3",
        ],
    )
    def test_downloaders_names(self, tmp_path, name):
        table(tmp_path / "class_labels_indices.csv", "index,mid,display_name", "0,/m/09x0r,Speech")
        segments(tmp_path / "balanced_train_segments.csv", ("Y0_b-d_fg_3", 30, "/m/09x0r"))
        path = tmp_path / "sound" / name
        path.parent.mkdir(parents=True)
        path.touch()
        assert [clip.path for clip in audioset(tmp_path).clips] == [path]

    @pytest.mark.parametrize("name", ["Y0_b-d_fg_3_40000_50000.wav", "Y0_b-d_fg_3x.wav", "XY0_b-d_fg_3.wav"])
    def test_another_segments_recording_is_not_taken(self, tmp_path, name):
        table(tmp_path / "class_labels_indices.csv", "index,mid,display_name", "0,/m/09x0r,Speech")
        segments(tmp_path / "balanced_train_segments.csv", ("Y0_b-d_fg_3", 30, "/m/09x0r"))
        (tmp_path / name).touch()
        with pytest.raises(StoreError, match=r"none of its files exists: 1 file \(YY0_b-d_fg_3\.wav\)"):
            audioset(tmp_path)

    def test_missing_clips_are_counted_when_packed(self, audio_set):
        report = pack(audioset(audio_set), audio_set / "s.h5", sample_rate=8000, seconds=0.1)
        assert (report.packed, report.skipped) == (2, (("YY0_b-d_fg_3.wav", "no such file"),))
        store = Store(audio_set / "s.h5")
        assert store.labels[1] == "Male speech, man speaking"
        assert store.target().tolist() == [[True, False, True], [False, False, True]]
        assert store.folds.tolist() == [1, 3]

    @pytest.mark.parametrize(
        ("row", "match"),
        [
            ('abcdefghijk, 0.000, 10.000, "/m/none"', "line 4 has the label '/m/none', which .* does not list"),
            ('abcdefghijk, x, 10.000, "/m/09x0r"', "line 4 starts at 'x', not a number of seconds"),
            ("abcdefghijk, 0.000, 10.000, /m/09x0r,/t/dd00003", "line 4 has 5 fields, not 4"),
            ('abcdefghijk, 0.000, 10.000, "/m/09x0r', "cannot be read as CSV"),
            (
                'abcdefghijk, 0, 10, "/m/09x0r"\nabcdefghijk, 30, 40, "/m/09x0r"',
                "line 5 lists 'abcdefghijk' again, after line 4",
            ),
            ("", "lists no segments"),
        ],
    )
    def test_damaged_csv(self, audio_set, row, match):
        table(audio_set / "metadata" / "balanced_train_segments.csv", *SEGMENTS, row)
        with pytest.raises(StoreError, match=match):
            audioset(audio_set)

    def test_missing_parts(self, tmp_path, audio_set):
        (audio_set / "metadata" / "balanced_train_segments.csv").unlink()
        (audio_set / "metadata" / "eval_segments.csv").unlink()
        with pytest.raises(StoreError, match=r"lacks any of balanced_train_segments\.csv, "):
            audioset(audio_set)

    def test_label_names(self, audio_set):
        path = audio_set / "metadata" / "class_labels_indices.csv"
        assert read_labels(path) == ("Speech", "Male speech, man speaking", "Bark")
        with pytest.raises(StoreError, match="no such file; name AudioSet's"):
            read_labels(audio_set / "none.csv")
        table(path, "index,display_name", "0,a", "2,b")
        with pytest.raises(StoreError, match="line 3 has index 2; number 2 labels from 0"):
            read_labels(path)
        table(path, "index,display_name", "0,a", "0,a")
        with pytest.raises(StoreError, match="two labels have the same index"):
            read_labels(path)


SCENE_NAMES = ("bus", "busystreet", "office", "openairmarket", "park", "quietstreet", "restaurant")
SCENE_NAMES += ("supermarket", "tube", "tubestation")


class TestDcase2013:
    @pytest.mark.parametrize("nested", ["", "scenes_stereo/"])
    def test_development_and_test(self, tmp_path, nested):
        for scene in SCENE_NAMES:
            for number in (1, 3, 4, 6, 8, 9, 12, 13, 17, 20):
                (tmp_path / "scenes_stereo" / nested).mkdir(parents=True, exist_ok=True)
                (tmp_path / "scenes_stereo" / nested / f"{scene}{number:02}.wav").touch()
            (tmp_path / "scenes_stereo_testset").mkdir(exist_ok=True)
            (tmp_path / "scenes_stereo_testset" / f"{scene}01.wav").touch()
        (tmp_path / "scenes_stereo" / "README.txt").touch()
        catalog = dcase2013(tmp_path)
        assert (catalog.labels, catalog.task, catalog.seconds) == (SCENE_NAMES, Task.ONE_OF_K, 30.0)
        assert len(catalog.clips) == len({clip.name for clip in catalog.clips}) == 110
        for label, scene in enumerate(SCENE_NAMES):
            clips = [clip for clip in catalog.clips if clip.labels == (label,)]
            assert [clip.fold for clip in clips] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6]
            assert [clip.name for clip in clips][-2:] == [
                f"scenes_stereo/{nested}{scene}20.wav",
                f"scenes_stereo_testset/{scene}01.wav",
            ]

    def test_one_of_them_alone(self, tmp_path):
        (tmp_path / "scenes_stereo_testset").mkdir()
        (tmp_path / "scenes_stereo_testset" / "tube07.wav").touch()
        (only,) = dcase2013(tmp_path).clips
        assert (only.labels, only.fold) == ((8,), 6)

    def test_what_is_not_there_or_not_a_scene(self, tmp_path):
        with pytest.raises(StoreError, match="no such folder"):
            dcase2013(tmp_path / "none")
        with pytest.raises(StoreError, match="holds neither scenes_stereo/ nor"):
            dcase2013(tmp_path)
        (tmp_path / "scenes_stereo").mkdir()
        with pytest.raises(StoreError, match="holds no sound file"):
            dcase2013(tmp_path)
        for name in ("beach01.wav", "bus.wav", "test_bus01.wav"):
            (tmp_path / "scenes_stereo" / name).touch()
            with pytest.raises(StoreError, match=rf"{name}: is not named after a scene and a number"):
                dcase2013(tmp_path)
            (tmp_path / "scenes_stereo" / name).unlink()


class TestFolder:
    def test_a_sub_folder_a_class(self, tmp_path):
        for name in ("rain/b.wav", "dog/a.wav", "dog/deep/c.flac"):
            sound(tmp_path / name)
        (tmp_path / "notes").mkdir()
        catalog = folder(tmp_path)
        assert (catalog.labels, catalog.task, catalog.seconds) == (("dog", "rain"), Task.ONE_OF_K, 10.0)
        assert {clip.name: clip.labels for clip in catalog.clips} == {
            "dog/a.wav": (0,),
            "dog/deep/c.flac": (0,),
            "rain/b.wav": (1,),
        }

    @pytest.mark.parametrize("prefix", ["", "recordings/"])
    def test_a_folder_without_classes(self, tmp_path, prefix):
        for name in "ba":
            sound(tmp_path / f"{prefix}{name}.wav")
        catalog = folder(tmp_path)
        assert (catalog.labels, catalog.task) == ((), Task.UNLABELLED)
        assert [clip.name for clip in catalog.clips] == [f"{prefix}a.wav", f"{prefix}b.wav"]

    def test_sound_beside_class_folders(self, tmp_path):
        for name in ("rain/b.wav", "dog/a.wav", "loose.wav"):
            sound(tmp_path / name)
        with pytest.raises(StoreError, match=r"1 file \(loose\.wav\) beside the class folders"):
            folder(tmp_path)

    def test_nothing_there(self, tmp_path):
        with pytest.raises(StoreError, match="holds no sound file"):
            folder(tmp_path)
        with pytest.raises(StoreError, match="no such folder or CSV"):
            folder(tmp_path / "none")

    @pytest.mark.parametrize("place", ["list.csv", "meta/list.csv", "meta/more/list.csv"])
    def test_csv_and_where_its_files_may_lie(self, tmp_path, place):
        sound(tmp_path / "audio" / "a.wav")
        path = table(
            tmp_path / place,
            "file,labels,fold,source",
            'audio/a.wav,"Jingle, tinkle; Bark",3,rec1',
            "audio/b.wav,,4,",
            encoding="utf-8-sig",
        )
        catalog = folder(path)
        assert (catalog.labels, catalog.task) == (("Bark", "Jingle, tinkle"), Task.MULTI_LABEL)
        assert [(clip.labels, clip.fold, clip.source) for clip in catalog.clips] == [((0, 1), 3, "rec1"), ((), 4, None)]
        assert catalog.clips[0].path.resolve() == (tmp_path / "audio" / "a.wav").resolve()

    def test_csv_with_one_label_each_is_one_of_k(self, tmp_path):
        sound(tmp_path / "a.wav")
        catalog = folder(table(tmp_path / "l.csv", "file,labels", "a.wav,dog", "b.wav,cat"))
        assert (catalog.labels, catalog.task) == (("cat", "dog"), Task.ONE_OF_K)
        assert catalog.clips[0].fold is None

    def test_csv_without_any_label_is_unlabelled(self, tmp_path):
        sound(tmp_path / "a.wav")
        assert folder(table(tmp_path / "l.csv", "file,labels", "a.wav,")).task == Task.UNLABELLED

    def test_a_csv_with_columns_that_are_not_understood(self, tmp_path):
        sound(tmp_path / "a.wav")
        path = table(tmp_path / "l.csv", "file,labels,begin,stop", "a.wav,dog,10,12")
        message = (
            f"{path}: has columns that are not understood: 'begin', 'stop'; known are file, labels, fold, source, "
            "start, end, exhaustive; rename or remove the others"
        )
        with pytest.raises(StoreError, match=re.escape(message)):
            folder(path)
        for header, match in (
            ("file,labels,labels", "has the column 'labels' more than once"),
            ("file,label", "lacks the column labels; it has file, label"),
            ("file,labels,", "not understood: ''"),
        ):
            with pytest.raises(StoreError, match=match):
                folder(table(tmp_path / "l.csv", header, "a.wav,dog,3"))

    @pytest.mark.parametrize(
        ("fold", "match"),
        [("", "has fold '', which is not a whole number"), ("-1", "should be greater than or equal to 0")],
    )
    def test_a_fold_that_is_none(self, tmp_path, fold, match):
        sound(tmp_path / "a.wav")
        with pytest.raises(StoreError, match=f"line 3 has fold .*{match}" if "should" in match else f"line 3 {match}"):
            folder(table(tmp_path / "l.csv", "file,labels,fold", "b.wav,dog,1", f"a.wav,dog,{fold}"))

    def test_the_highest_fold_and_the_shortest_name(self, tmp_path):
        sound(tmp_path / "a.wav")
        (tmp_path / "a.wav").rename(tmp_path / "a")
        (clip,) = folder(table(tmp_path / "l.csv", "file,labels,fold", f"a,dog,{2**31 - 1}")).clips
        assert (clip.name, clip.fold) == ("a", 2**31 - 1)
        with pytest.raises(StoreError, match=f"fold '{2**31}', which should be less than {2**31}"):
            folder(table(tmp_path / "l.csv", "file,labels,fold", f"a,dog,{2**31}"))

    def test_a_file_that_is_no_csv(self, tmp_path):
        path = table(tmp_path / "tags.txt", "file,labels")
        with pytest.raises(StoreError, match=r"tags\.txt: is not a CSV file"):
            folder(path)

    def test_min_count(self, tmp_path):
        sound(tmp_path / "a.wav")
        lines = ["file,labels", "a.wav,dog;rain", "b.wav,dog", "c.wav,hail"]
        catalog = folder(table(tmp_path / "l.csv", *lines), min_count=2)
        assert catalog.labels == ("dog",)
        assert [clip.labels for clip in catalog.clips] == [(0,), (0,), ()]
        assert catalog.options == {"csv": "l.csv", "min_count": 2}
        one = table(tmp_path / "one.csv", "file,labels", "a.wav,dog", "b.wav,dog", "c.wav,hail")
        assert [clip.name for clip in folder(one, min_count=2).clips] == ["a.wav", "b.wav"]
        with pytest.raises(StoreError, match="no label has 9 clips"):
            folder(one, min_count=9)


class TestBadSources:
    @pytest.mark.parametrize("name", sorted(set(CATALOGS) - {"dcase2013", "folder", "timed"}))
    def test_missing_folder_and_csv(self, tmp_path, name):
        with pytest.raises(StoreError, match="no such folder"):
            CATALOGS[name](tmp_path / "none")
        with pytest.raises(StoreError, match=r"\.csv: no such file"):
            CATALOGS[name](tmp_path)

    @pytest.mark.parametrize(
        ("lines", "match"),
        [
            (["filename;fold"], "lacks the columns target, .* it has filename, fold"),
            ([ESC_HEAD], "lists no clips"),
            ([ESC_HEAD, "a.wav,1,50,dog,True,7,A"], "line 2 has target '50', which should be less than 50"),
            ([ESC_HEAD, "a.wav,1,x,dog,True,7,A"], "target 'x', which is not a whole number"),
            ([ESC_HEAD, "a.wav,1.5,0,dog,True,7,A"], "fold '1.5', which is not a whole number"),
            ([ESC_HEAD, "a.wav,1,0,dog"], "line 2 does not have 7 fields"),
            ([ESC_HEAD, "a.wav,1,0,dog,True,7,A,B"], "line 2 does not have 7 fields"),
            ([ESC_HEAD, ",1,0,dog,True,7,A"], "line 2 has filename '', which is empty"),
            (
                [ESC_HEAD, "a.wav,1,0,dog,True,7,A", "a.wav,1,0,dog,True,7,A"],
                "line 3 lists 'a.wav' again, after line 2",
            ),
            (
                [ESC_HEAD, "a.wav,1,0,dog,True,7,A", "b.wav,1,0,cat,True,7,A"],
                "line 3 calls label 0 'cat', an earlier line 'dog'",
            ),
            ([ESC_HEAD, *(f"{n}.wav,1,0,dog,True,7,A" for n in range(4))], r"4 files \(0.wav, 1.wav, 2.wav, \.\.\.\)"),
            ([ESC_HEAD, *(f"{n}.wav,1,0,dog,True,7,A" for n in range(3))], r"3 files \(0.wav, 1.wav, 2.wav\);"),
            ([ESC_HEAD, 'a.wav,1,0,"dog,True,7,A'], "cannot be read as CSV"),
        ],
    )
    def test_damaged_csv(self, tmp_path, lines, match):
        path = table(tmp_path / "meta" / "esc50.csv", *lines)
        with pytest.raises(StoreError, match=match) as caught:
            esc50(tmp_path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_csv_that_is_not_text(self, tmp_path):
        (tmp_path / "a.csv").write_bytes(b"file,labels\n\xff\xfe,dog\n")
        with pytest.raises(StoreError, match="UTF-8"):
            folder(tmp_path / "a.csv")


def test_published_tables_may_have_more_columns(esc, audio_set):
    path = esc / "meta" / "esc50.csv"
    header, *rows = path.read_text().splitlines()
    table(path, header + ",comment", *(row + ",nice" for row in rows))
    assert len(esc50(esc).clips) == 3
    path = audio_set / "metadata" / "class_labels_indices.csv"
    header, *rows = path.read_text().splitlines()
    table(path, header + ",comment", *(row + ",nice" for row in rows))
    assert audioset(audio_set).labels == ("Speech", "Male speech, man speaking", "Bark")


def test_real_catalogs(real_data):
    esc = esc50(real_data / "esc10")
    assert (len(esc.clips), len(esc.labels), esc.labels[0]) == (400, 10, "dog")
    assert {clip.fold for clip in esc.clips} == {1, 2, 3, 4, 5}
    urban = urbansound8k(real_data / "urbansound8k")
    assert (len(urban.clips), len(urban.labels), urban.labels[0]) == (2985, 10, "air_conditioner")
    tags = folder(real_data / "urbansound8k" / "metadata" / "audioset_tags.csv", min_count=20)
    assert (len(tags.clips), tags.task) == (2985, Task.MULTI_LABEL)
    assert {clip.path for clip in tags.clips} == {clip.path for clip in urban.clips}
    assert all(sum(index in clip.labels for clip in tags.clips) >= 20 for index in range(len(tags.labels)))
    assert folder(real_data / "fsdd").task == Task.UNLABELLED


def test_a_real_audioset_clip(real_data, tmp_path):
    (tmp_path / "audios").mkdir()
    labels = (real_data / "audioset" / "class_labels_indices.csv").read_text(encoding="utf-8")
    (tmp_path / "class_labels_indices.csv").write_text(labels, encoding="utf-8")
    shutil.copy(real_data / "audioset" / "R9_ZSCveAHg_7s.wav", tmp_path / "audios" / "YR9_ZSCveAHg.wav")
    segments(tmp_path / "eval_segments.csv", ("R9_ZSCveAHg", 30, "/m/07qw_06,/m/09x0r"))
    catalog = audioset(tmp_path, split="eval")
    assert (len(catalog.labels), catalog.labels[0], catalog.labels[-1]) == (527, "Speech", "Field recording")
    report = pack(catalog, tmp_path / "eval.h5")
    store = Store(tmp_path / "eval.h5")
    assert (report.packed, store.samples, store.seconds[0]) == (1, 320000, pytest.approx(7, abs=0.1))
    assert [catalog.labels[index] for index in np.flatnonzero(store.target()[0])] == ["Speech", "Wail, moan"]
