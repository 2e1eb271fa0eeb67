import struct
import zipfile

import numpy as np
import pytest

from bayes_panns.core.archives import check_npz, check_zip


def npz(path, **arrays):
    np.savez_compressed(path, **arrays)
    return path


def forged(path, header: str, body: bytes = b"", name="x.npy"):
    """An archive with one array whose header says anything."""
    text = header.encode() + b"\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body)
    return path


def described(shape, descr="'<f4'"):
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"


@pytest.mark.parametrize(
    "array",
    [
        np.ones((3, 4), np.float32),
        np.array(["ab", "c"]),
        np.array([b"abc"]),
        np.array(7),
        np.zeros((0, 5), bool),
        np.array(["2020-01-01"], dtype="datetime64[ns]"),
        np.asfortranarray(np.ones((3, 4), ">i8")),
        np.ones(3, complex),
    ],
)
def test_arrays_that_numpy_writes_pass(tmp_path, array):
    check_npz(npz(tmp_path / "a.npz", x=array))
    check_zip(tmp_path / "a.npz")


def test_an_array_of_zeros_may_be_far_larger_than_its_file(tmp_path):
    check_npz(npz(tmp_path / "a.npz", x=np.zeros((1000, 1000))))


@pytest.mark.parametrize(
    ("header", "match"),
    [
        (described((10**12,)), "4000000000000 bytes, and is not that long"),
        (described((-1,)), "is not that long"),
        (described((1,), "'|O'"), "Python objects"),
        (described((1,), "[('a', '<f4')]"), "Python objects"),
        ("{" * 5000, "."),
        ("__import__('os').abort()", "."),
        ("[]", "."),
    ],
)
def test_headers_that_lie_are_refused_before_anything_is_allocated(tmp_path, header, match):
    with pytest.raises(ValueError, match=match) as caught:
        check_npz(forged(tmp_path / "a.npz", header, b"\0" * 4))
    assert "\n" not in str(caught.value)


def test_only_the_named_arrays_are_checked(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.ones(3), mine=np.array([{}], dtype=object))
    check_npz(tmp_path / "a.npz", {"x"})
    with pytest.raises(ValueError, match=r"mine\.npy is an array of Python objects"):
        check_npz(tmp_path / "a.npz")


def bomb(path):
    """300 MB of zeros in an archive of 300 kB, without ever having them in memory at once."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as part:
        for _ in range(300):
            part.write(bytes(10**6))
    return path


@pytest.mark.parametrize("check", [check_zip, check_npz])
def test_an_archive_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path, check):
    with pytest.raises(ValueError, match=r"it unpacks from .* to 300000000 bytes"):
        check(bomb(tmp_path / "a.npz"))


@pytest.mark.parametrize("check", [check_zip, check_npz])
@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"no zip at all" * 9])
def test_what_is_no_archive_is_a_value_error(tmp_path, check, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"."):
        check(tmp_path / "a.npz")


def test_two_parts_of_one_name_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("x", b"2")
    with pytest.raises(ValueError, match="same name"):
        check_zip(tmp_path / "a.zip")


def test_any_damage_to_a_part_is_found(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(100.0))
    content = bytearray(path.read_bytes())
    content[content.find(b"NUMPY") + 200] ^= 4
    path.write_bytes(content)
    with pytest.raises(ValueError, match="CRC"):
        check_zip(path)
