"""A short run of the harness, and what it must notice. ``make fuzz`` has the long one."""

import itertools
import os
import re
import shutil
import subprocess
import sys

import h5py
import pytest

from tests.fuzz.hostile import HOSTILE, SECRET
from tests.fuzz.inputs import BYTES_RESIDENT, SECONDS, Input, faults_of, shares
from tests.fuzz.kinds import KINDS
from tests.harness.fork_server import ROOT, Result

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """The folder of the short run, and what it printed."""
    work = tmp_path_factory.mktemp("fuzz")
    command = (sys.executable, "-m", "tests.fuzz", "--quick", "--work", work)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200)
    return work, ended


@pytest.fixture(scope="module")
def home(short):
    return short[0] / "material"


def test_damaged_files_are_read_or_refused_in_a_line_and_good_ones_are_read(short):
    work, ended = short
    assert ended.returncode == 0, (work / "last").read_text() + ended.stdout + ended.stderr
    inputs, ok, refused, failures = re.search(r"^all +(\d+) +(\d+) +(\d+) +(\d+)", ended.stdout, re.M).groups()
    assert int(inputs) >= 150
    assert int(failures) == 0
    # Neither all refused nor all untouched.
    assert int(ok) > int(inputs) / 8
    assert int(refused) > int(inputs) / 4


def test_an_input_is_its_kind_and_its_seed(home, tmp_path):
    def content(folder):
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    for kind, seed in itertools.product(("wav", "npz", "label-csv", "safetensors", "resume-json"), range(3)):
        twice = [tmp_path / f"{kind}-{seed}-{number}" for number in range(2)]
        one, other = (Input(KINDS[kind], seed).write(home, folder) for folder in twice)
        assert one[1:] == other[1:]
        assert content(twice[0]) == content(twice[1])


@pytest.mark.parametrize("name", KINDS)
def test_mutations_change_the_file_and_never_fail(home, tmp_path, name):
    kind = KINDS[name]
    if not (home / kind.trees).is_dir():
        pytest.skip("the program or package that makes such files is not installed")
    changed = 0
    for seed in range(6):
        file = Input(kind, seed).write(home, tmp_path / str(seed))[0]
        good = Input(kind, seed, ()).write(home, tmp_path / f"{seed}-good")[0]
        changed += file.read_bytes() != good.read_bytes()
        shutil.rmtree(tmp_path / str(seed))
        shutil.rmtree(tmp_path / f"{seed}-good")
    assert changed >= 4


GOOD = {"returncode": 0, "stdout": "", "stderr": "", "seconds": 1.0, "peak_bytes": 1 << 29}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, None),
        ({"returncode": 1, "stderr": "warning: x\nbayes-panns: a.wav: is damaged\n"}, None),
        ({"returncode": 3, "stderr": "skipped a.wav: is damaged\n"}, None),
        ({"returncode": 2, "stderr": "Usage: x\n\nError: no such option\n"}, None),
        ({"returncode": 2, "stderr": ""}, "no word"),
        (
            {"returncode": 1, "stderr": "Traceback (most recent call last):\n  x\nKeyError: 1\n"},
            "traceback: KeyError: 1",
        ),
        ({"returncode": 1, "stderr": ""}, "no error of one line"),
        ({"returncode": 1, "stderr": "bayes-panns: a\nb\n"}, "no error of one line"),
        ({"returncode": -11}, "ended with -11"),
        ({"timed_out": True}, f"took more than {SECONDS} s"),
        ({"peak_bytes": BYTES_RESIDENT + 1}, "MB resident"),
        ({"returncode": 1, "stderr": "bayes-panns: out of memory (x); y\n"}, "asked for too much memory"),
        ({"stderr": "/x/y.py:3: RuntimeWarning: overflow\n"}, "a library speaks"),
        ({"stdout": "\x1b[2J"}, "control character"),
        ({"stderr": "skipped " + "x" * 5000}, "a message of"),
        ({"stdout": '{"a": NaN}'}, "no strict JSON"),
    ],
)
def test_the_harness_knows_what_is_wrong(change, fault):
    command = ("predict", "--format", "json") if "stdout" in change else ("inspect",)
    found = faults_of(command, Result(**{**GOOD, **change}), ())
    assert (fault is None and not found) or any(fault in each for each in found), found


def test_what_is_left_behind_is_noticed():
    assert faults_of(("pack",), Result(**GOOD), ("out.h5",)) == ["leaves out.h5"]


def test_shares_sum_up_and_may_be_chosen(home):
    assert sum(shares(2400, home).values()) == 2400
    assert len(shares(2400, home)) >= 15
    assert min(shares(150, home, quick=True).values()) >= 2
    assert shares(7, home, kinds=["wav"]) == {"wav": 7}


def test_the_hostile_store_does_reach_another_file(home, tmp_path):
    (tmp_path / "secret.txt").write_text(SECRET * 20)
    HOSTILE["names_in_another_file"][0](home, tmp_path)
    with h5py.File(tmp_path / "clips.h5") as file:
        ((name, _, _),) = [file["audio_name"].id.get_create_plist().get_external(0)]
    assert name == b"secret.txt"
