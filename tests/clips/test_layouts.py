"""FSD50K, and ESC-50 and UrbanSound8K as Kaggle lays them out; tables of strangers name no file elsewhere."""

import numpy as np
import pytest
import soundfile

from bayes_panns.clips import Task, audioset, esc50, folder, fsd50k, urbansound8k
from bayes_panns.core.errors import StoreError

ESC_HEAD = "filename,fold,target,category,esc10,src_file,take"
US_HEAD = "slice_file_name,fsID,start,end,salience,fold,classID,class"


def sound(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.ones(800), 8000)
    return path


def table(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("csv", ["meta/esc50.csv", "esc50.csv"])
@pytest.mark.parametrize("place", ["audio", "audio/audio", ".", "audio/audio/16000"])
def test_esc50s_layouts(tmp_path, csv, place):
    table(tmp_path / csv, ESC_HEAD, "gone.wav,1,0,dog,True,7,A", "1-7-A-41.wav,1,41,crying_baby,True,7,A")
    path = sound(tmp_path / place / "1-7-A-41.wav")
    assert esc50(tmp_path).clips[1].path == path


def test_esc50_takes_the_original_rather_than_the_copy_at_16_khz(tmp_path):
    table(tmp_path / "esc50.csv", ESC_HEAD, "1-7-A-41.wav,1,41,crying_baby,True,7,A")
    sound(tmp_path / "audio/audio/16000/1-7-A-41.wav")
    path = sound(tmp_path / "audio/audio/1-7-A-41.wav")
    assert [clip.path for clip in esc50(tmp_path).clips] == [path]


@pytest.mark.parametrize("csv", ["metadata/UrbanSound8K.csv", "UrbanSound8K.csv"])
@pytest.mark.parametrize("place", ["audio", "."])
def test_urbansound8ks_layouts(tmp_path, csv, place):
    table(tmp_path / csv, US_HEAD, "9-3-0-0.wav,9,0,1,1,5,3,dog_bark", "8-1-0-0.wav,8,0,1,1,10,1,car_horn")
    paths = [sound(tmp_path / place / "fold5" / "9-3-0-0.wav"), sound(tmp_path / place / "fold10" / "8-1-0-0.wav")]
    assert [clip.path for clip in urbansound8k(tmp_path).clips] == paths


class TestFsd50k:
    @pytest.fixture
    def home(self, tmp_path):
        truth = tmp_path / "FSD50K.ground_truth"
        table(truth / "dev.csv", "fname,labels,mids,split", '1,"Guitar,Music","/m/1,/m/2",train', "2,Music,/m/2,val")
        table(truth / "eval.csv", "fname,labels,mids", "3,Bark,/m/3")
        table(truth / "vocabulary.csv", "0,Music,/m/2", "1,Bark,/m/3", "2,Guitar,/m/1")
        for name in ("dev_audio/1", "dev_audio/2", "eval_audio/3"):
            sound(tmp_path / f"FSD50K.{name}.wav")
        return tmp_path

    def test_all_of_it(self, home):
        catalog = fsd50k(home)
        assert (catalog.labels, catalog.task) == (("Music", "Bark", "Guitar"), Task.MULTI_LABEL)
        assert [(clip.name, clip.labels, clip.fold) for clip in catalog.clips] == [
            ("1.wav", (0, 2), 1),
            ("2.wav", (0,), 2),
            ("3.wav", (1,), 3),
        ]
        assert all(clip.path.is_file() for clip in catalog.clips)

    def test_a_part_of_it(self, home):
        truth = home / "FSD50K.ground_truth"
        (truth / "vocabulary.csv").unlink()
        (truth / "eval.csv").unlink()
        assert fsd50k(home).labels == ("Guitar", "Music")
        with pytest.raises(StoreError, match="is a table of FSD50K; pack it as fsd50k"):
            folder(truth / "dev.csv")
        (truth / "dev.csv").unlink()
        with pytest.raises(StoreError, match=r"dev\.csv: no such file"):
            fsd50k(home)

    def test_damaged_tables(self, home):
        truth = home / "FSD50K.ground_truth"
        table(truth / "vocabulary.csv", "0,Music,/m/2", "x,Bark,/m/3")
        with pytest.raises(StoreError, match="line 2 has the index 'x'"):
            fsd50k(home)
        table(truth / "vocabulary.csv", "0,Music,/m/2", "1,Bark,/m/3")
        with pytest.raises(StoreError, match="lacks the label 'Guitar'"):
            fsd50k(home)
        table(truth / "dev.csv", "fname,labels,mids,split", "1,Music,/m/2,other")
        with pytest.raises(StoreError, match="line 2 has split 'other'"):
            fsd50k(home)


@pytest.mark.parametrize("name", ["../x.wav", "/etc/x.wav", "a/x.wav", "..\\x.wav", "..", "x\0.wav"])
def test_published_tables_name_files_in_their_folder_alone(tmp_path, name):
    sound(tmp_path / "audio" / "good.wav")
    row = f"{name},1,0,dog,True,7,A"
    table(tmp_path / "meta" / "esc50.csv", ESC_HEAD, "good.wav,1,0,dog,True,7,A", row)
    with pytest.raises(StoreError, match=r"line 3 has filename|cannot be read as CSV"):
        esc50(tmp_path)
    table(tmp_path / "metadata" / "UrbanSound8K.csv", US_HEAD, f"{name},9,0,1,1,5,3,dog_bark")
    with pytest.raises(StoreError, match=r"line 2 has slice_file_name|cannot be read as CSV"):
        urbansound8k(tmp_path)
    table(tmp_path / "FSD50K.ground_truth" / "dev.csv", "fname,labels,mids,split", f"{name},Music,/m/2,val")
    with pytest.raises(StoreError, match=r"line 2 has fname|cannot be read as CSV"):
        fsd50k(tmp_path)


def test_audiosets_ids_are_ids(tmp_path):
    table(tmp_path / "class_labels_indices.csv", "index,mid,display_name", "0,/m/1,Dog")
    table(tmp_path / "eval_segments.csv", '../../../x1, 0.000, 10.000, "/m/1"')
    sound(tmp_path / "a.wav")
    with pytest.raises(StoreError, match=r"line 1 has the id '\.\./\.\./\.\./x1', which is no id of YouTube's"):
        audioset(tmp_path)


ROWS = "file,labels,start,end\na.wav,dog,0,0.05\nb.wav,cat,0.05,0.1\n"


@pytest.mark.parametrize(
    "content",
    [
        ROWS.encode("utf-16"),
        ROWS.replace("file,labels,start", "File , Labels,START").encode("utf-8-sig"),
        ROWS.replace(",", ";").replace("0.", "0,").encode(),
        ROWS.replace(",", "\t").replace("0.", "0,").encode(),
        ROWS.replace("\n", "\r\n").encode() + b",,,\r\n\r\n",
    ],
)
def test_tables_as_spreadsheets_write_them(tmp_path, content):
    for name in ("a.wav", "b.wav"):
        sound(tmp_path / name)
    (tmp_path / "t.csv").write_bytes(content)
    catalog = folder(tmp_path / "t.csv", seconds=0.05)
    assert catalog.labels == ("cat", "dog")
    assert [(clip.name, clip.labels) for clip in catalog.clips] == [("a.wav 0-0.05", (1,)), ("b.wav 0.05-0.1", (0,))]


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ("a.wav,dog\n./a.wav,cat\n", "line 3 lists './a.wav', the same file as 'a.wav' of line 2"),
        ("a.wav,dog\nA.WAV,cat\n", "line 3 lists 'A.WAV', the same file as 'a.wav' of line 2"),
        ("a.wav,dog\0\n", "line 2 holds a zero byte"),
    ],
)
def test_rows_that_would_change_a_label_without_a_word(tmp_path, rows, match):
    sound(tmp_path / "a.wav")
    (tmp_path / "t.csv").write_text("file,labels\n" + rows)
    with pytest.raises(StoreError, match=match):
        folder(tmp_path / "t.csv")


def test_a_comma_between_quotes_is_no_decimal_sign_where_commas_stand_between_fields(tmp_path):
    sound(tmp_path / "a.wav")
    (tmp_path / "t.csv").write_text('file,labels,start,end\na.wav,dog,"0,01",1\n')
    with pytest.raises(StoreError, match="line 2 has start '0,01', which is not a number"):
        folder(tmp_path / "t.csv")
