"""Stores of strangers: nothing outside the file is read, and no more memory is asked for than the file is worth."""

import os
import resource
import zlib

import h5py
import numpy as np
import pytest

from bayes_panns.clips import ClipSet, Store, StoreWriter, Task, hdf5, repack, write, write_embeddings
from bayes_panns.core.errors import StoreError

CLIPS, SAMPLES = 6, 50
NAMES = np.array([f"clip {index}".encode() for index in range(CLIPS)])


def foreign(path, **replaced):
    """A store in PANNs' layout; what is replaced is not written."""
    sound = np.random.default_rng(0).integers(-9999, 9999, (CLIPS, SAMPLES)).astype(np.int16)
    columns = {"audio_name": NAMES, "waveform": sound, "target": np.eye(CLIPS, 3, dtype=bool)}
    with h5py.File(path, "w") as file:
        file.attrs["sample_rate"] = np.int32(100)
        for name, data in (columns | replaced).items():
            if callable(data):
                data(file, name)
            elif data is not None:
                file[name] = data
    return path


def refused(path, message):
    def read():
        with Store(path) as store:
            store.target()
            store.waveform(range(len(store)))

    with pytest.raises(StoreError, match=message) as caught:
        read()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def secret(tmp_path):
    """A file that is none of the store's, as text and as HDF5."""
    (tmp_path / "secret.txt").write_bytes(b"secret" * 100)
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = np.array([b"secret"] * CLIPS)
        file["sound"] = np.zeros((CLIPS, SAMPLES), np.int16)
    return tmp_path


def external(secret):
    def make(file, name):
        place = [(str(secret / "secret.txt"), 0, 6 * CLIPS)]
        file.create_dataset(name, shape=(CLIPS,), dtype="S6", external=place)

    return make


def virtual(secret, column, dtype, shape):
    def make(file, name):
        layout = h5py.VirtualLayout(shape=shape, dtype=dtype)
        layout[:] = h5py.VirtualSource(str(secret / "secret.h5"), column, shape=shape)
        file.create_virtual_dataset(name, layout)

    return make


class TestOtherFiles:
    @pytest.mark.parametrize("name", ["audio_name", "source", "label_names"])
    def test_external_storage(self, secret, name):
        """A store of 2 kB must not show a file of the system as the names of its clips."""
        path = foreign(secret / "a.h5", **{name: external(secret)})
        with h5py.File(path) as file:
            assert file[name][0] == b"secret", "this is what HDF5 would read"
        refused(path, f"'{name}' has its data in another file; copy the data itself into the store")

    def test_virtual_datasets(self, secret):
        for name, column, dtype, shape in (
            ("audio_name", "x", "S6", (CLIPS,)),
            ("waveform", "sound", np.int16, (CLIPS, SAMPLES)),
        ):
            path = foreign(secret / "a.h5", **{name: virtual(secret, column, dtype, shape)})
            refused(path, f"'{name}' has its data in another file")

    @pytest.mark.parametrize("name", ["audio_name", "waveform", "target", "fold", "digest"])
    @pytest.mark.parametrize("link", [h5py.ExternalLink("secret.h5", "/x"), h5py.SoftLink("/elsewhere")])
    def test_links(self, secret, name, link):
        refused(foreign(secret / "a.h5", **{name: link}), f"'{name}' is a link to another place")

    def test_an_external_link_is_not_even_opened(self, secret):
        """A pipe would never answer."""
        os.mkfifo(secret / "pipe.h5")
        refused(foreign(secret / "a.h5", audio_name=h5py.ExternalLink("pipe.h5", "/x")), "is a link")

    def test_what_is_not_read_may_be_anywhere(self, secret):
        path = foreign(secret / "a.h5", notes=h5py.ExternalLink("secret.h5", "/x"), more=external(secret))
        assert len(Store(path)) == CLIPS

    def test_a_group_is_no_dataset(self, tmp_path):
        refused(foreign(tmp_path / "a.h5", target=lambda file, name: file.create_group(name)), "'target' is a group")


def declared(shape, dtype, **options):
    return lambda file, name: file.create_dataset(name, shape=shape, dtype=dtype, **options)


ROWS = 10**12


class TestSizes:
    @pytest.mark.parametrize(
        "columns",
        [
            {
                "audio_name": declared((ROWS,), "S80", chunks=(1000,)),
                "waveform": declared((ROWS, 16000), np.int16, chunks=(1, 16000)),
                "target": declared((ROWS, 3), bool, chunks=(1000, 3)),
            },
            {"audio_name": declared((CLIPS,), f"S{2**30}", chunks=(1,))},
            {"waveform": declared((CLIPS, 2**28), np.int16, chunks=(1, 2**20))},
            {"target": declared((CLIPS, 10**9), bool, chunks=(1, 10**6))},
            {"label_names": declared((10**11,), "S8", chunks=(1000,))},
            {"digest": declared((ROWS, 32), np.uint8, chunks=(1000, 32))},
            {"fold": declared((ROWS,), np.int32, chunks=(1000,), compression="gzip")},
            {"source": declared((ROWS,), "S8", chunks=(1000,), compression="lzf")},
            {"seconds": declared((ROWS,), np.float32, chunks=(1000,))},
        ],
    )
    def test_sizes_that_the_file_cannot_have(self, tmp_path, columns):
        path = foreign(tmp_path / "a.h5", **columns)
        assert path.stat().st_size < 20_000
        refused(path, r"claims \d+ bytes in \d+ rows, and the file has \d+; it is damaged or incomplete")

    def test_chunks_that_are_unpacked_whole(self, tmp_path):
        for name, options in (
            ("audio_name", {"shape": (CLIPS,), "dtype": "S80", "chunks": (10**7,)}),
            ("waveform", {"shape": (CLIPS, SAMPLES), "dtype": np.int16, "chunks": (1, 10**8)}),
        ):
            path = foreign(tmp_path / "a.h5", **{name: declared(**options, maxshape=(None,) * len(options["shape"]))})
            refused(path, f"'{name}' has chunks of [28]00000000 bytes")

    def test_a_bomb_of_zeros(self, tmp_path):
        """Half a megabyte that unpacks to 500 MB."""

        def bomb(file, name):
            plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plan.set_chunk((1, 2**22))
            plan.set_deflate(9)
            space = h5py.h5s.create_simple((60, 2**22))
            made = h5py.h5d.create(file.id, name.encode(), h5py.h5t.NATIVE_INT16, space, plan)
            packed = zlib.compress(bytes(2**23), 9)
            for clip in range(60):
                made.write_direct_chunk((clip, 0), packed)

        names = np.array([b"x"] * 60)
        path = foreign(tmp_path / "a.h5", audio_name=names, target=np.zeros((60, 3), bool), waveform=bomb)
        assert path.stat().st_size < 600_000
        refused(path, "'waveform' claims 503316480 bytes in 60 rows")

    def test_a_header_of_zeros(self, tmp_path):
        width = 20_000_000
        path = foreign(tmp_path / "a.h5", target=declared((CLIPS, width), bool, chunks=(1, width), compression="gzip"))
        refused(path, f"'target' claims {CLIPS * width} bytes")

    @pytest.mark.parametrize("value", [np.zeros(1000), [1.0, 2.0], h5py.Empty("f4"), np.void(b"x" * 99)])
    @pytest.mark.parametrize("name", ["provenance", "task", "sample_rate", "format_version"])
    def test_attributes_of_another_kind(self, tmp_path, name, value):
        path = foreign(tmp_path / "a.h5")
        with h5py.File(path, "r+", libver="latest") as file:
            file.attrs[name] = value
        refused(path, "damaged|not text|is not one number")

    def test_nothing_of_it_takes_memory(self, tmp_path):
        """A process that may have little says so in one line."""
        columns = {
            "audio_name": declared((ROWS,), "S80", chunks=(1000,)),
            "waveform": declared((ROWS, 16000), np.int16, chunks=(1, 16000)),
            "target": declared((ROWS, 3), bool, chunks=(1000, 3)),
        }
        path = foreign(tmp_path / "a.h5", **columns)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        refused(path, "'audio_name' claims")
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


class TestFilters:
    @pytest.mark.parametrize(
        "options",
        [{"compression": "gzip"}, {"compression": "lzf"}, {"shuffle": True, "fletcher32": True, "compression": "gzip"}],
    )
    def test_usual_compression_is_read(self, tmp_path, options):
        plain = Store(foreign(tmp_path / "plain.h5"))

        def packed(data):
            return lambda file, name: file.create_dataset(name, data=data, **options)

        path = foreign(
            tmp_path / "a.h5",
            audio_name=packed(NAMES),
            waveform=packed((plain.waveform(range(CLIPS)) * 32767).round().astype(np.int16)),
            target=packed(plain.target()),
        )
        assert Store(path).names == plain.names
        assert (Store(path).waveform(range(CLIPS)) == plain.waveform(range(CLIPS))).all()
        assert (Store(path).target() == plain.target()).all()

    def test_silence_may_be_packed_to_almost_nothing(self, tmp_path):
        sound = np.zeros((100, 160_000), np.int16)
        path = foreign(
            tmp_path / "a.h5",
            audio_name=np.array([b"x"] * 100),
            target=np.zeros((100, 3), bool),
            waveform=lambda file, name: file.create_dataset(name, data=sound, chunks=(1, 160_000), compression="gzip"),
        )
        assert path.stat().st_size < 100_000
        assert not Store(path).waveform([0, 99]).any()

    def test_other_filters_are_named(self, tmp_path):
        def scaled(file, name):
            file.create_dataset(name, data=np.ones((CLIPS, SAMPLES), np.int16), scaleoffset=2)

        refused(
            foreign(tmp_path / "a.h5", waveform=scaled), "'waveform' is packed with the HDF5 filter 6, which is not"
        )

    def test_compressed_twice(self, tmp_path):
        def twice(file, name):
            plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plan.set_chunk((1, SAMPLES))
            plan.set_deflate(9)
            plan.set_deflate(9)
            space = h5py.h5s.create_simple((CLIPS, SAMPLES))
            h5py.h5d.create(file.id, name.encode(), h5py.h5t.NATIVE_INT16, space, plan)

        refused(foreign(tmp_path / "a.h5", waveform=twice), "'waveform' is compressed 2 times; compress it once")


class TestTexts:
    def varying(self, path, **attributes):
        names = np.array([f"clip {index} é" for index in range(CLIPS)], dtype=object)
        labels = np.array(["dog", "cat", "雨"], dtype=object)
        foreign(path, audio_name=names, label_names=labels, source=names)
        with h5py.File(path, "r+") as file:
            for name, value in attributes.items():
                file.attrs[name] = value
        return path

    def test_texts_of_varying_length_are_read(self, tmp_path):
        store = Store(self.varying(tmp_path / "a.h5", task="multi-label", provenance='{"by": "hand"}'))
        assert store.names[0] == "clip 0 é"
        assert store.labels == ("dog", "cat", "雨")
        assert (store.task, store.provenance) == (Task.MULTI_LABEL, {"by": "hand"})

    def test_a_damaged_heap_neither_hangs_nor_crashes(self, tmp_path, monkeypatch):
        """HDF5 2.0 itself never returns from this one."""
        path = self.varying(tmp_path / "a.h5", task="multi-label")
        content = bytearray(path.read_bytes())
        heap = content.find(b"GCOL")
        # The length of the first text, so that the heap's next entry is inside of a text.
        content[heap + 25] ^= 2
        path.write_bytes(content)
        monkeypatch.setattr(hdf5, "_SECONDS", 1)
        refused(path, "its texts of varying length are damaged")

    def test_a_busy_machine_is_no_damage(self, tmp_path, monkeypatch):
        monkeypatch.setattr(hdf5, "_SECONDS", 1)
        monkeypatch.setattr(hdf5, "_READ_TEXTS", f"import time; time.sleep(1.5)\n{hdf5._READ_TEXTS}")
        assert Store(self.varying(tmp_path / "a.h5")).names[0] == "clip 0 é"

    def test_names_that_are_not_utf8_are_shown(self, tmp_path):
        names = np.array([b"caf\xe9.wav"] + [b"x%d" % index for index in range(CLIPS - 1)])
        assert Store(foreign(tmp_path / "a.h5", audio_name=names)).names[0] == "caf\\xe9.wav"

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (["dog", " "], r"label 1, counted from 0, has no name \(' '\); give it one"),
            (["dog", ""], "label 1, counted from 0, has no name"),
            (["caf\u00e9", "cafe\u0301"], r"'caf\\xe9' and 'cafe\\u0301' look the same"),
            (["wood  pigeon", "wood pigeon "], "look the same; they differ only in spaces"),
        ],
    )
    def test_labels_that_cannot_be_told_apart_are_not_written(self, tmp_path, labels, message):
        with pytest.raises(StoreError, match=message):
            write(tmp_path / "a.h5", np.zeros((2, 50)), np.eye(2, dtype=bool), labels, "one-of-k", 100)


class TestGtzan:
    """The layout of panns_transfer_to_gtzan's ``utils/features.py``."""

    def gtzan(self, path, target=None, **columns):
        if target is None:
            target = np.eye(10, dtype=np.float32)[np.arange(20) % 10]
        with h5py.File(path, "w") as file:
            file["audio_name"] = np.array([f"blues.{index:05d}.wav".encode() for index in range(20)], dtype="S80")
            file["waveform"] = np.random.default_rng(0).integers(-9, 9, (20, 64)).astype(np.int16)
            file["target"] = target
            file["fold"] = np.arange(20, dtype=np.int32) % 10 + 1
        return path

    def test_it_is_shown_and_asked_for_its_rate(self, tmp_path):
        path = self.gtzan(tmp_path / "gtzan.h5")
        summary = Store(path).summary()
        assert (summary["clips"], len(summary["folds"]), summary["task"]) == (20, 10, "one-of-k")
        assert (summary["sample_rate"], summary["seconds_per_clip"], summary["total_seconds"]) == (None, None, None)
        for read in (lambda: ClipSet(path), lambda: Store(path).waveform([0])):
            with pytest.raises(
                StoreError, match=r"lacks the attribute 'sample_rate'.*bayes-panns repack .*--sample-rate"
            ):
                read()

    def test_targets_are_0_or_1(self, tmp_path):
        assert Store(self.gtzan(tmp_path / "a.h5")).target().dtype == bool
        for value in (0.5, np.nan, -1.0, np.inf):
            target = np.eye(10, dtype=np.float32)[np.arange(20) % 10]
            target[3, 2] = value
            with pytest.raises(StoreError, match=rf"'blues.00003.wav' has the target {value} for the label 'label 2'"):
                Store(self.gtzan(tmp_path / "a.h5", target)).target()

    def test_more_labels_than_one_are_multi_label(self, tmp_path):
        target = np.eye(10, dtype=np.float32)[np.arange(20) % 10]
        target[19, :2] = 1
        assert Store(self.gtzan(tmp_path / "a.h5", target)).task == Task.MULTI_LABEL

    def test_it_is_written_again_with_a_rate_and_label_names(self, tmp_path):
        path, labels = self.gtzan(tmp_path / "gtzan.h5"), [f"genre {index}" for index in range(10)]
        made = repack(path, tmp_path / "mine.h5", sample_rate=32000, labels=labels)
        before = Store(path)
        assert (made.labels, made.task, made.sample_rate) == (tuple(labels), "one-of-k", 32000)
        assert (made.names, made.folds.tolist()) == (before.names, before.folds.tolist())
        assert (made.target() == before.target()).all()
        assert made.digests(range(20)) == before.digests(range(20)), "the samples are the same"
        assert made.sealed
        assert not list(made.damaged())
        with pytest.raises(StoreError, match="its clips are of 32000 Hz, not 16000; leave the rate out"):
            repack(tmp_path / "mine.h5", tmp_path / "x.h5", sample_rate=16000)
        with pytest.raises(StoreError, match="lacks the attribute 'sample_rate'"):
            repack(path, tmp_path / "x.h5")

    def test_lengths_and_recordings_are_kept(self, tmp_path):
        with StoreWriter(tmp_path / "a.h5", labels=["a"], task="multi-label", sample_rate=100, samples=50) as writer:
            writer.add("short", np.full(20, 0.5), [0], source="r1")
            writer.add("long", np.full(80, -0.5), [], source="r2")
        again = repack(tmp_path / "a.h5", tmp_path / "b.h5")
        assert again.seconds == pytest.approx([0.2, 0.8])
        assert again.sources.tolist() == ["r1", "r2"]

    def test_embeddings_are_written_again(self, tmp_path):
        target = np.eye(2, dtype=bool)[[0, 1, 0]]
        write_embeddings(tmp_path / "a.h5", np.ones((3, 4)), target, ["a", "b"], "one-of-k", model="M", fold=[1, 2, 3])
        with h5py.File(tmp_path / "a.h5", "r+") as file:
            del file.attrs["sha256"], file["digest"]
        again = repack(tmp_path / "a.h5", tmp_path / "b.h5")
        assert (again.model, again.folds.tolist(), again.sealed) == ("M", [1, 2, 3], True)
