"""Records of recordings: what is written is read back, in any parts."""

import json
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from bayes_panns.core.errors import ResultsError
from bayes_panns.predictions import FileTags, Window, decompose
from bayes_panns.predictions.events import Event
from bayes_panns.predictions.record_windows import central_band, windows_of
from bayes_panns.predictions.records import Record, RecordWriter

LABELS = ("dog", "rain \udcff")


def tags(count, *, draws=40, samples=True, start=0):
    generator = torch.Generator().manual_seed(start)
    p = torch.rand(draws, count, 2, generator=generator)
    found = decompose(p, "multi-label")
    if samples:
        found.__dict__["samples"] = p.permute(1, 0, 2).numpy()
    windows = tuple(Window("a", float(start + n), start + n + 1.5) for n in range(count))
    return FileTags("a", windows, found)


def write(path, parts, *, events=(), **options):
    options = {"labels": LABELS, "file": "nights/\udcfe.wav", "source": Path("nights/\udcfe.wav"), **options}
    with RecordWriter(path, **options) as record:
        for number, part in enumerate(parts):
            record.add(part, events if number == 0 else ())


def test_what_is_written_is_read_back(tmp_path):
    first, second = tags(3), tags(2, start=3)
    left, called = np.array([True, False]), np.array([[True, False], [False, False]])
    parts = [windows_of(first), windows_of(second, left=left)]
    events = [Event("x", LABELS[1], 2.0, 3.5, 0.75, 0.5, 1.0), Event("x", "dog", 0.0, 1.5, 0.5, 0.25, 0.75)]
    write(tmp_path / "a.h5", parts, events=events, recorded_at=datetime(2023, 4, 12, 5, 30, tzinfo=UTC))
    with Record.open(tmp_path / "a.h5") as record:
        assert (record.labels, record.file, len(record), record.seconds) == (LABELS, "nights/\udcfe.wav", 5, 5.5)
        assert record.path == Path("nights/\udcfe.wav").absolute()
        assert record.recorded_at == datetime(2023, 4, 12, 5, 30, tzinfo=UTC)
        found = record.windows(1, 4)
        assert found.start.tolist() == [1, 2, 3]
        expected = np.concatenate([first.uncertainty.probability, second.uncertainty.probability])
        np.testing.assert_array_equal(found.probability, expected[1:4].astype(np.float32))
        assert record.windows().left.tolist() == [False, False, False, True, False]
        assert found.called is None
        assert found.in_set is None
        assert [event.label for event in record.events()] == ["dog", LABELS[1]]
        assert record.events()[0] == Event("nights/\udcfe.wav", "dog", 0.0, 1.5, 0.5, 0.25, 0.75)
    write(tmp_path / "b.h5", [windows_of(second, called=called)])
    with Record.open(tmp_path / "b.h5") as record:
        np.testing.assert_array_equal(record.windows().called, called)
        assert record.recorded_at is None


def test_the_same_parts_make_the_same_bytes(tmp_path):
    for name in ("a.h5", "b.h5"):
        write(tmp_path / name, [windows_of(tags(300, start=n * 300)) for n in range(5)])
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_an_error_leaves_what_was_there(tmp_path):
    write(tmp_path / "a.h5", [windows_of(tags(2))])
    before = (tmp_path / "a.h5").read_bytes()
    with pytest.raises(KeyError, match="cow"):
        write(tmp_path / "a.h5", [windows_of(tags(1))], events=[Event("a", "cow", 0.0, 1.0, 0.5, 0.5, 0.5)])
    assert (tmp_path / "a.h5").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_the_band_holds_nine_tenths_of_the_draws():
    found = tags(4, draws=1001).uncertainty
    low, high = central_band(found)
    inside = (found.samples >= low[:, None]) & (found.samples <= high[:, None])
    assert inside.mean(axis=1) == pytest.approx(0.9, abs=0.002)
    np.testing.assert_allclose(low, np.quantile(found.samples, 0.05, axis=1), atol=1e-6)
    single = tags(4, draws=1, samples=False).uncertainty
    np.testing.assert_allclose(central_band(single)[0], single.probability, atol=1e-6)


def test_what_is_no_record(tmp_path):
    with pytest.raises(ResultsError, match="is missing"), Record.open(tmp_path / "a.h5"):
        pass
    (tmp_path / "a.h5").write_bytes(b"no")
    with pytest.raises(ResultsError, match="is no record"), Record.open(tmp_path / "a.h5"):
        pass
    write(tmp_path / "b.h5", [windows_of(tags(1))])
    with h5py.File(tmp_path / "b.h5", "r+") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(ResultsError, match="newer"), Record.open(tmp_path / "b.h5"):
        pass


def _elsewhere(file, folder):
    with h5py.File(folder / "secret.h5", "w") as other:
        other["start"] = np.zeros(2)
    del file["start"]
    file["start"] = h5py.ExternalLink(str(folder / "secret.h5"), "start")


def _external(file, folder):
    (folder / "secret").write_bytes(b"secret text 1234")
    del file["start"]
    file.create_dataset("start", (2,), "f8", external=[(str(folder / "secret"), 0, 16)])


def _virtual(file, folder):
    layout = h5py.VirtualLayout((2,), "f8")
    layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), "start", (2,))
    del file["start"]
    file.create_virtual_dataset("start", layout)


def _events_elsewhere(file, folder):
    del file["events"]
    file["events"] = h5py.ExternalLink(str(folder / "secret.h5"), "events")


def _endless(file, folder):
    for name in list(file["events"]):
        file["events"][name].resize(1 << 40, axis=0)


def _label_beyond(file, folder):
    file["events/label"][0] = -1


def _varying(file, folder):
    file.attrs["file"] = json.dumps("a")


def _of_another_kind(file, folder):
    del file["start"]
    file["start"] = np.array([b"a", b"b"])


def _narrow(file, folder):
    del file["low"]
    file["low"] = np.zeros((2, 1), np.float32)


@pytest.mark.parametrize(
    "harm",
    [_elsewhere, _external, _virtual, _events_elsewhere, _endless, _label_beyond, _varying, _of_another_kind, _narrow],
)
def test_a_record_of_a_stranger_is_safe_to_read(tmp_path, harm):
    path = tmp_path / "a.h5"
    write(path, [windows_of(tags(2))], events=[Event("x", "dog", 0.0, 1.5, 0.5, 0.25, 0.75)])
    with h5py.File(path, "r+") as file:
        harm(file, tmp_path)
    with pytest.raises(ResultsError, match=r"a\.h5: is no record.*remove it"), Record.open(path) as record:
        assert (record.windows(), record.events()) == ()


def test_texts_are_of_fixed_width(tmp_path):
    # HDF5 may hang or end the process on damaged texts of varying length.
    many = tuple(f"a species with a long name {number}" for number in range(5000))
    with RecordWriter(tmp_path / "a.h5", labels=many, file="a", source=Path("a")):
        pass
    with h5py.File(tmp_path / "a.h5") as file:
        kinds = [h5py.check_string_dtype(file.attrs.get_id(name).dtype) for name in file.attrs]
        assert [kind.length for kind in kinds if kind is not None and kind.length is None] == []
        assert json.loads(file["labels"][()]) == list(many)


def test_numbers_that_cannot_be_unpacked_are_damage(tmp_path):
    path = tmp_path / "a.h5"
    write(path, [windows_of(tags(400))])
    with h5py.File(path) as file:
        place = file["probability"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[place.byte_offset + 20 : place.byte_offset + 60] = bytes(40)
    path.write_bytes(content)
    with Record.open(path) as record, pytest.raises(ResultsError, match="is damaged"):
        record.windows()
