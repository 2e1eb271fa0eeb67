import hashlib

import pytest

from bayes_panns.core.digests import sha256_of


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1])
def test_it_is_the_sha256_of_the_content(size, tmp_path):
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    (tmp_path / "a").write_bytes(content)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        sha256_of(tmp_path / "missing")
