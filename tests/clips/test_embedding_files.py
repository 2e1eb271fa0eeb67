"""Embeddings of other programs: every kind of file, and every way in which it can be wrong."""

import json
import random
import sqlite3
import struct
import zipfile

import numpy as np
import pytest

from bayes_panns.clips import Store, Task, embeddings, pack_embeddings
from bayes_panns.core.errors import StoreError

VECTORS = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
LABELS = ["wren", "lark;wren", "", "owl"]


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path


def labels_of(table):
    return [[table.catalog.labels[index] for index in clip.labels] for clip in table.catalog.clips]


class TestNpz:
    @pytest.mark.parametrize("name", ["embedding", "embeddings", "X"])
    def test_the_vectors_may_have_any_of_three_names(self, tmp_path, name):
        table = embeddings(npz(tmp_path / "a.npz", **{name: VECTORS.astype(np.float64)}))
        assert table.embedding.dtype == np.float32
        np.testing.assert_array_equal(table.embedding, VECTORS)
        assert [clip.name for clip in table.catalog.clips] == ["clip 0", "clip 1", "clip 2", "clip 3"]
        assert (table.model, table.catalog.task) == ("", Task.UNLABELLED)

    def test_texts_are_labels_by_the_rules_of_a_folders_table(self, tmp_path):
        table = embeddings(npz(tmp_path / "a.npz", X=VECTORS, labels=LABELS))
        assert table.catalog.labels == ("lark", "owl", "wren")
        assert table.catalog.task is Task.MULTI_LABEL
        assert labels_of(table) == [["wren"], ["lark", "wren"], [], ["owl"]]
        assert embeddings(npz(tmp_path / "b.npz", X=VECTORS, label=list("abab"))).catalog.task is Task.ONE_OF_K
        assert embeddings(npz(tmp_path / "c.npz", X=VECTORS, label=[b"a", b"b", b"a", b"b"])).catalog.labels == (
            "a",
            "b",
        )

    def test_numbers_are_labels_by_their_names(self, tmp_path):
        table = embeddings(npz(tmp_path / "a.npz", X=VECTORS, labels=[2, 0, 1, 2], label_names=["c", "b", "a"]))
        assert table.catalog.labels == ("c", "b", "a")
        assert labels_of(table) == [["a"], ["c"], ["b"], ["a"]]
        table = embeddings(npz(tmp_path / "b.npz", X=VECTORS, labels=[2, 0, 10, 2]))
        assert labels_of(table) == [["2"], ["0"], ["10"], ["2"]]

    @pytest.mark.parametrize("kind", [bool, np.int64, np.float32])
    def test_a_matrix_of_labels_keeps_the_order_of_its_columns(self, tmp_path, kind):
        target = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1]], dtype=kind)
        table = embeddings(npz(tmp_path / "a.npz", X=VECTORS, labels=target, label_names=["z", "y", "x"]))
        assert labels_of(table) == [["z"], ["z", "y"], [], ["x"]]
        assert table.catalog.task is Task.MULTI_LABEL
        one = np.eye(3, dtype=kind)[[0, 1, 2, 0]]
        arrays = {"X": VECTORS, "labels": one, "label_names": ["z", "y", "x"]}
        assert embeddings(npz(tmp_path / "b.npz", **arrays)).catalog.task is Task.ONE_OF_K
        assert embeddings(npz(tmp_path / "c.npz", **arrays, task="multi-label")).catalog.task is Task.MULTI_LABEL

    def test_names_folds_recordings_and_the_model_come_along(self, tmp_path):
        more = {"names": list("abcd"), "folds": [1, 2, 1, 2], "sources": ["r", "r", "", "s"], "model": "CLAP"}
        pack_embeddings(embeddings(npz(tmp_path / "a.npz", X=VECTORS, **more)), tmp_path / "a.h5")
        store = Store(tmp_path / "a.h5")
        assert store.names == list("abcd")
        assert store.folds.tolist() == [1, 2, 1, 2]
        assert store.sources.tolist() == ["r", "r", "", "s"]
        assert (store.model, store.width, store.sample_rate, store.samples) == ("CLAP", 6, 0, 0)
        assert store.provenance["source"] == "a.npz"

    def test_a_window_is_called_after_its_file_and_seconds_and_is_of_its_file(self, tmp_path):
        more = {
            "files": ["x.wav", "x.wav", "x.wav", "y.wav"],
            "start": [0, 2.5, 1e6 + 0.5, 0],
            "end": [5, 7.5, 1e6 + 5, 5],
        }
        clips = embeddings(npz(tmp_path / "a.npz", X=VECTORS, **more)).catalog.clips
        assert [clip.name for clip in clips] == ["x.wav 0-5", "x.wav 2.5-7.5", "x.wav 1000000.5-1000005", "y.wav 0-5"]
        assert [clip.source for clip in clips] == ["x.wav", "x.wav", "x.wav", "y.wav"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "lacks the array 'embeddings'; it holds nothing"),
        ({"vectors": VECTORS}, "lacks the array 'embeddings'; it holds vectors"),
        ({"X": VECTORS, "embedding": VECTORS}, "has both 'embedding' and 'X'"),
        ({"X": VECTORS[0]}, r"float32 of shape \(6,\), not numbers"),
        ({"X": VECTORS.astype(str)}, "not numbers"),
        ({"X": VECTORS[:0]}, "holds no embeddings"),
        ({"X": VECTORS[:, :0]}, "embeddings of 0 numbers"),
        (
            {"X": np.where(np.arange(4)[:, None] == 2, np.nan, VECTORS)},
            "row 2, counted from 0, holds numbers that are not",
        ),
        ({"X": VECTORS.astype(np.float64) * 1e300}, "row 0, .*not finite in float32"),
        ({"X": VECTORS, "labels": ["a", "b"]}, "4 embeddings, but 2 rows of 'label'"),
        ({"X": VECTORS, "folds": [1]}, "4 embeddings, but 1 rows of 'fold'"),
        ({"X": VECTORS, "folds": [1, 2, -1, 1]}, "a fold that is not a whole number from 0 up"),
        ({"X": VECTORS, "folds": [1, 2, 0.5, 1]}, "a fold that is not a whole number from 0 up"),
        ({"X": VECTORS, "names": list("abca")}, "has the name 'a' more than once"),
        ({"X": VECTORS, "names": ["a", "b", "", "c"]}, "a clip without a name"),
        ({"X": VECTORS, "names": [list("abcd")]}, "'names' has 2 dimensions"),
        ({"X": VECTORS, "labels": np.eye(4)}, "labels have 4 columns, label_names none"),
        ({"X": VECTORS, "labels": np.eye(4), "label_names": ["a"]}, "labels have 4 columns, label_names 1"),
        ({"X": VECTORS, "labels": np.eye(4) / 2, "label_names": list("abcd")}, "are 0 or 1, and one here is neither"),
        ({"X": VECTORS, "labels": np.eye(4), "label_names": list("abca")}, "the label 'a' is there more than once"),
        ({"X": VECTORS, "labels": [0, 1, 2, 5], "label_names": ["a", "b", "c"]}, "no index of the 3 label_names"),
        ({"X": VECTORS, "labels": [0.5, 1, 2, 5]}, "labels are float64 of shape"),
        ({"X": VECTORS, "label_names": ["a"]}, "has label_names, but no labels"),
        ({"X": VECTORS, "labels": np.eye(4), "label_names": list("abcd"), "task": "any"}, "unknown task 'any'"),
        ({"X": VECTORS, "files": list("abcd"), "start": list("abcd"), "end": [1, 2, 3, 4]}, "not a number of seconds"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(tmp_path, arrays, message):
    path = npz(tmp_path / "a.npz", **arrays)
    with pytest.raises(StoreError, match=message) as error:
        pack_embeddings(embeddings(path), tmp_path / "a.h5")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "a.h5").exists()


def test_nothing_is_unpickled_and_damaged_files_are_told(tmp_path):
    objects = np.array(["a", None, 1, ()], dtype=object)
    with pytest.raises(StoreError, match="Python objects; save texts with dtype=str"):
        embeddings(npz(tmp_path / "a.npz", X=VECTORS, labels=objects))
    whole = npz(tmp_path / "b.npz", X=VECTORS).read_bytes()
    for damage in (b"", b"PK", whole[:100], whole[:-30]):
        (tmp_path / "b.npz").write_bytes(damage)
        with pytest.raises(StoreError, match=r"cannot be read as \.npz"):
            embeddings(tmp_path / "b.npz")
    with pytest.raises(StoreError, match="no such file"):
        embeddings(tmp_path / "c.npz")
    with pytest.raises(StoreError, match=r"holds no hoplite\.sqlite"):
        embeddings(tmp_path)
    (tmp_path / "d.pkl").write_bytes(b"")
    with pytest.raises(StoreError, match="none of the files that are read"):
        embeddings(tmp_path / "d.pkl")


class TestParquet:
    @pytest.fixture
    def written(self, tmp_path):
        arrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")

        def write(**columns):
            parquet.write_table(arrow.table(columns), tmp_path / "a.parquet")
            return embeddings(tmp_path / "a.parquet")

        return write

    def test_lists_of_fixed_and_of_varying_length(self, written):
        arrow = pytest.importorskip("pyarrow")
        for vectors in (
            arrow.array(list(VECTORS)),
            arrow.array(VECTORS.astype(np.float64).tolist(), arrow.large_list(arrow.float64())),
            arrow.FixedSizeListArray.from_arrays(arrow.array(VECTORS.ravel()), 6),
        ):
            table = written(embedding=vectors, label=LABELS, fold=[1, 2, 1, 2], recording=list("rrss"), model=["M"] * 4)
            np.testing.assert_array_equal(table.embedding, VECTORS)
            assert labels_of(table) == [["wren"], ["lark", "wren"], [], ["owl"]]
            assert [(clip.fold, clip.source) for clip in table.catalog.clips] == [
                (1, "r"),
                (2, "r"),
                (1, "s"),
                (2, "s"),
            ]
            assert table.model == "M"

    def test_numbered_columns_are_taken_in_the_order_of_their_numbers(self, written):
        order = [4, 0, 5, 2, 1, 3]
        for first in (0, 1):
            columns = {f"feat_{index + first}": VECTORS[:, index] for index in order}
            table = written(**columns, file=list("abcd"), channel1=["x"] * 4)
            np.testing.assert_array_equal(table.embedding, VECTORS)

    def test_labels_may_be_lists_or_numbers(self, written):
        table = written(embedding=list(VECTORS), label=[["wren"], ["lark; day", "wren"], [], None])
        assert labels_of(table) == [["wren"], ["lark; day", "wren"], [], []]
        assert labels_of(written(embedding=list(VECTORS), label=[3, 1, 1, 3])) == [["3"], ["1"], ["1"], ["3"]]

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ({"x": [1.0]}, "lacks the embeddings"),
            ({"e0": [1.0], "e2": [1.0]}, "lacks the column e1"),
            ({"e2": [1.0], "e3": [1.0]}, "lacks the column e0"),
            ({"e0": [1.0], "e1": [1.0], "f0": [1.0], "f1": [1.0]}, r"several kinds of numbered columns \(e, f\)"),
            ({"embedding": [[1.0, 2.0], [1.0]]}, "embeddings of 1 and of 2 numbers"),
            ({"embedding": [[1.0, 2.0], None]}, "1 of its embeddings are missing"),
            ({"embedding": [[1.0, 2.0], [None, 1.0]]}, "lacks 1 of its numbers"),
            ({"embedding": [1.0, 2.0]}, "are double, not lists of numbers"),
            ({"embedding": [["a"], ["b"]]}, "not numbers"),
            ({"embedding": [[1.0], [2.0]], "model": ["A", "B"]}, r"several models \(A, B\)"),
            ({"embedding": [[1.0], [2.0]], "fold": [1, None]}, "a fold that is not a whole number"),
        ],
    )
    def test_what_does_not_fit_is_told_in_one_line(self, written, columns, message):
        with pytest.raises(StoreError, match=message) as error:
            written(**columns)
        assert "\n" not in str(error.value)

    def test_damaged_and_empty_files_are_told(self, written, tmp_path):
        arrow = pytest.importorskip("pyarrow")
        (tmp_path / "b.parquet").write_bytes(b"PAR1 no more")
        with pytest.raises(StoreError, match="cannot be read as Parquet"):
            embeddings(tmp_path / "b.parquet")
        with pytest.raises(StoreError, match="holds no embeddings"):
            written(embedding=arrow.array([], arrow.list_(arrow.float32())))

    def test_what_to_install_is_said(self, tmp_path, monkeypatch):
        import sys

        monkeypatch.setitem(sys.modules, "pyarrow", None)
        (tmp_path / "a.parquet").write_bytes(b"")
        with pytest.raises(StoreError, match=r"pip install 'bayes-panns\[parquet\]'"):
            embeddings(tmp_path / "a.parquet")


class TestCsv:
    def test_numbered_columns_and_lists_in_a_text(self, tmp_path):
        lines = ["file,start,end,label," + ",".join(f"e{index}" for index in range(6))]
        lines += [f"x.wav,{5 * i},{5 * i + 5},a;b,{','.join(map(str, row))}" for i, row in enumerate(VECTORS)]
        (tmp_path / "a.csv").write_text("\n".join(lines))
        table = embeddings(tmp_path / "a.csv")
        np.testing.assert_array_equal(table.embedding, VECTORS)
        assert table.catalog.clips[3].name == "x.wav 15-20"
        assert table.catalog.task is Task.MULTI_LABEL
        # As BirdNET-Analyzer writes it.
        lines = ["file_path,start,end,embedding"]
        lines += [f'x.wav,{3.0 * i},{3.0 * i + 3},"{",".join(map(str, row))}"' for i, row in enumerate(VECTORS)]
        (tmp_path / "b.csv").write_text("\n".join(lines))
        table = embeddings(tmp_path / "b.csv")
        np.testing.assert_array_equal(table.embedding, VECTORS)
        assert table.catalog.clips[1].name == "x.wav 3-6"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "lacks the embeddings"),
            ("file,embedding\n", "holds no embeddings"),
            ("file,e0,e1\na,1,2\nb,1\n", "line 3 has 2 fields, not 3"),
            ("file,e0,e1\na,1,x\n", "cannot be read as CSV"),
            ('file,embedding\na,"1,2"\nb,"1"\n', "embeddings of 1 and of 2 numbers"),
            ("file,e0,e1,fold\na,1,2,\n", "a fold that is not a whole number"),
            ("file,e0,e1\na,1,nan\n", "not finite"),
        ],
    )
    def test_what_does_not_fit_is_told_in_one_line(self, tmp_path, text, message):
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(StoreError, match=message):
            embeddings(tmp_path / "a.csv")


def span(start, end):
    return np.array([start, end], dtype="<f8").tobytes()


class TestArchivesOfStrangers:
    """No more is asked of memory than the file is worth."""

    def forged(self, path, shape, kind="<f4"):
        text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("X.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(400))
        return path

    @pytest.mark.parametrize("shape", [(10**9, 1024), (101, 1), (-4, -25)])
    def test_arrays_are_as_large_as_they_say(self, tmp_path, shape):
        with pytest.raises(StoreError, match=r"cannot be read as .npz: X.npy says that it has \d+ bytes, and is not"):
            embeddings(self.forged(tmp_path / "a.npz", shape))

    def test_an_array_of_objects_is_not_unpickled(self, tmp_path):
        with pytest.raises(StoreError, match="an array of Python objects; save texts with dtype=str"):
            embeddings(npz(tmp_path / "a.npz", X=VECTORS, labels=np.array([{}, 1, 2, 3], dtype=object)))
        arrays = {"X": VECTORS, "mine": np.array([{}], dtype=object)}
        assert len(embeddings(npz(tmp_path / "b.npz", **arrays)).embedding) == 4, "it is not read"

    def test_an_archive_of_zeros_that_is_far_larger_than_its_file(self, tmp_path):
        with (
            zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
            archive.open("X.npy", "w") as part,
        ):
            text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (70000, 1024), }\n"
            part.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)
            for _ in range(70):
                part.write(bytes(4 * 1024 * 1000))
        assert (tmp_path / "a.npz").stat().st_size < 2_000_000
        with pytest.raises(StoreError, match=r"it unpacks from \d+ to 286720\d+ bytes"):
            embeddings(tmp_path / "a.npz")

    def test_a_flipped_bit_is_refused_or_changes_nothing(self, tmp_path):
        path = npz(tmp_path / "a.npz", X=VECTORS, labels=LABELS, model="BirdNET")
        whole, chosen, before = path.read_bytes(), random.Random(0), embeddings(path)
        for _ in range(50):
            changed = bytearray(whole)
            changed[chosen.randrange(len(whole))] ^= 1 << chosen.randrange(8)
            path.write_bytes(changed)
            try:
                found = embeddings(path)
            except StoreError:
                continue
            assert (found.embedding == before.embedding).all()
            assert (found.catalog, found.model) == (before.catalog, before.model)


class TestHoplite:
    """Databases as perch-hoplite 1.0 writes them."""

    @pytest.fixture
    def database(self, tmp_path):
        usearch = pytest.importorskip("usearch.index")
        folder = tmp_path / "db"
        folder.mkdir()
        with sqlite3.connect(folder / "hoplite.sqlite") as made:
            made.executescript(
                "CREATE TABLE hoplite_metadata (key TEXT PRIMARY KEY, value TEXT NOT NULL);"
                "CREATE TABLE deployments (id INTEGER PRIMARY KEY, name TEXT, project TEXT);"
                "CREATE TABLE recordings (id INTEGER PRIMARY KEY, filename TEXT, datetime TEXT, deployment_id INTEGER);"
                "CREATE TABLE windows (id INTEGER PRIMARY KEY, recording_id INTEGER, offsets FLOAT_LIST);"
                "CREATE TABLE annotations (id INTEGER PRIMARY KEY, recording_id INTEGER, offsets FLOAT_LIST, "
                "label TEXT, label_type INTEGER, provenance TEXT);"
            )
            made.execute(
                "INSERT INTO hoplite_metadata VALUES ('model_config', ?)", [json.dumps({"model_key": "perch_8"})]
            )
            made.execute("INSERT INTO deployments VALUES (1, 'north', 'p'), (2, 'south', 'p')")
            made.execute("INSERT INTO recordings VALUES (1, 'a.wav', NULL, 1), (2, 'b.wav', NULL, 1)")
            windows = [(7, 1, span(0, 5)), (3, 1, span(5, 10)), (4, 2, span(0, 5)), (9, 2, span(5, 10))]
            made.executemany("INSERT INTO windows VALUES (?, ?, ?)", windows)
        index = usearch.Index(ndim=6, metric="ip", dtype="f16")
        index.add(np.array([7, 3, 4, 9]), VECTORS.astype(np.float16))
        index.save(str(folder / "usearch.index"))
        return folder

    def annotate(self, folder, *rows):
        with sqlite3.connect(folder / "hoplite.sqlite") as made:
            for recording, start, end, label, kind in rows:
                made.execute(
                    "INSERT INTO annotations (recording_id, offsets, label, label_type, provenance) "
                    "VALUES (?, ?, ?, ?, 'me')",
                    (recording, span(start, end), label, kind),
                )

    def test_windows_without_annotations_are_unlabelled(self, database):
        table = embeddings(database)
        assert [clip.name for clip in table.catalog.clips] == ["a.wav 5-10", "b.wav 0-5", "a.wav 0-5", "b.wav 5-10"]
        np.testing.assert_array_equal(table.embedding, VECTORS[[1, 2, 0, 3]].astype(np.float16).astype(np.float32))
        assert (table.catalog.task, table.model) == (Task.UNLABELLED, "perch_8")

    def test_annotations_are_of_the_windows_that_they_overlap(self, database, caplog):
        self.annotate(database, (1, 4, 6, "wren", 1), (1, 0, 5, "lark", 1), (2, 5, 10, "wren", 0), (2, 1, 2, "owl", 2))
        table = embeddings(database / "hoplite.sqlite")
        assert [clip.name for clip in table.catalog.clips] == ["a.wav 5-10", "a.wav 0-5", "b.wav 5-10"]
        assert labels_of(table) == [["wren"], ["lark", "wren"], []]
        assert {clip.source for clip in table.catalog.clips} == {"a.wav", "b.wav"}
        assert "1 of 4 windows are left out: nobody annotated them" in caplog.text

    def test_files_of_one_name_are_told_apart_by_their_deployment(self, database):
        with sqlite3.connect(database / "hoplite.sqlite") as made:
            made.execute("UPDATE recordings SET filename = 'a.wav', deployment_id = 2 WHERE id = 2")
        assert {clip.source for clip in embeddings(database).catalog.clips} == {"p/north/a.wav", "p/south/a.wav"}

    def test_the_database_is_not_written_to(self, database):
        before = {path: path.read_bytes() for path in database.iterdir()}
        embeddings(database)
        assert {path: path.read_bytes() for path in database.iterdir()} == before

    def test_a_view_in_place_of_a_table_is_refused(self, database):
        """It may be computed, and have any number of rows."""
        with sqlite3.connect(database / "hoplite.sqlite") as made:
            made.executescript(
                "ALTER TABLE windows RENAME TO kept; CREATE VIEW windows AS WITH RECURSIVE n(i) AS "
                "(SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS id, 1 AS recording_id, x'00' AS offsets FROM n;"
            )
        with pytest.raises(StoreError, match="windows is a view, not a table"):
            embeddings(database)

    def test_recordings_that_are_there_twice_do_not_multiply_the_windows(self, database):
        with sqlite3.connect(database / "hoplite.sqlite") as made:
            made.executescript(
                "DROP TABLE recordings; CREATE TABLE recordings (id INTEGER, filename TEXT, deployment_id INTEGER);"
                "INSERT INTO recordings VALUES (1, 'a.wav', 1), (1, 'b.wav', 1), (2, 'c.wav', 1);"
            )
        with pytest.raises(StoreError, match="two recordings or deployments have the same id"):
            embeddings(database)

    def test_what_to_install_is_said(self, database, monkeypatch):
        import sys

        monkeypatch.setitem(sys.modules, "usearch.index", None)
        with pytest.raises(StoreError, match=r"pip install 'bayes-panns\[hoplite\]'"):
            embeddings(database)

    def test_what_does_not_fit_is_told_in_one_line(self, database):
        (database / "usearch.index").rename(database / "moved")
        with pytest.raises(StoreError, match=r"usearch\.index: is missing"):
            embeddings(database)
        (database / "usearch.index").write_bytes(b"no index at all")
        with pytest.raises(StoreError, match=r"usearch\.index: cannot be read") as error:
            embeddings(database)
        assert "\n" not in str(error.value)
        with sqlite3.connect(database / "hoplite.sqlite") as made:
            made.execute("ALTER TABLE windows DROP COLUMN offsets")
        with pytest.raises(StoreError, match=r"lacks windows\.offsets, so it is no database of perch-hoplite 1\.0"):
            embeddings(database)


def test_other_databases_are_refused(tmp_path):
    with sqlite3.connect(tmp_path / "hoplite.sqlite") as made:
        made.execute("CREATE TABLE hoplite_embeddings (id INTEGER)")
    with pytest.raises(StoreError, match=r"is of perch-hoplite 0\.1; convert it"):
        embeddings(tmp_path)
    (tmp_path / "hoplite.sqlite").write_bytes(b"no database, but long enough to be read as one" * 100)
    with pytest.raises(StoreError, match="is damaged, or no database"):
        embeddings(tmp_path)
