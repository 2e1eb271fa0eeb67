"""A short run of the harness, and what it must notice. ``make fuzz`` has the long one."""

import itertools
import re
import shutil

import h5py
import numpy as np
import pytest

from tests.fuzz import material
from tests.fuzz.hostile import HOSTILE, run_hostile
from tests.fuzz.inputs import BYTES_RESIDENT, SECONDS, Input, attempt, execute, faults_of, shares
from tests.fuzz.kinds import KINDS
from tests.harness.fork_server import ForkServer, Result

INPUTS = 150
CHEAP = [
    *("names_in_another_file", "labels_by_an_external_link", "a_link_to_itself", "names_that_claim_gigabytes"),
    *("vectors_that_claim_gigabytes", "tensors_with_a_header_of_gigabytes", "a_header_nested_deeply"),
    *("a_wav_that_claims_two_gigabytes", "a_flac_that_claims_all_samples_there_are", "files_that_are_no_files"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz") / "material"
    material.make(folder)
    return folder


@pytest.fixture(scope="module")
def server():
    with ForkServer() as server:
        yield server


@pytest.mark.slow
def test_damaged_files_are_read_or_refused_in_a_line(home, server, tmp_path):
    counts = shares(INPUTS, quick=True)
    kinds = [KINDS[name] for name in counts if (home / KINDS[name].trees).is_dir()]
    inputs = [Input(kind, seed) for kind in kinds for seed in range(counts[kind.name])]
    outcomes = [attempt(each, server, home, tmp_path / "input") for each in inputs]
    failed = [f"{each.source.replay}\n  {'; '.join(each.faults)}" for each in outcomes if each.faults]
    assert not failed, "\n".join(failed)
    codes = [each.result.returncode for each in outcomes]
    # Neither all refused nor all untouched.
    assert codes.count(0) > len(codes) / 8
    assert codes.count(1) > len(codes) / 4


@pytest.mark.parametrize("name", CHEAP)
def test_files_made_to_harm_do_none(home, server, tmp_path, name):
    assert run_hostile(list(HOSTILE).index(name), server, home, tmp_path / "input")[2] == ""


def test_good_files_are_read_by_every_command(home, server, tmp_path):
    """Otherwise the damage would never be reached. Some of the quick kinds, without their mutations."""
    for kind in [kind for kind in KINDS.values() if kind.quick][::4]:
        _, command, names = Input(kind, 0, ()).write(home, tmp_path / kind.name)
        result, faults = execute(command, server, home, tmp_path / kind.name)
        assert (result.returncode, faults, names) == (0, (), ()), (kind.name, command, result.stderr)


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


def test_shares_sum_up_and_may_be_chosen():
    assert sum(shares(2400).values()) == 2400
    assert len(shares(2400)) >= 15
    assert min(shares(150, quick=True).values()) >= 2
    assert shares(7, kinds=["wav"]) == {"wav": 7}


def test_external_storage_shows_the_secret_where_nothing_forbids_it(home, tmp_path):
    """The hostile store does what it is said to do."""
    (tmp_path / "secret.txt").write_text("the secret words" * 20)
    HOSTILE["names_in_another_file"][0](home, tmp_path)
    with h5py.File(tmp_path / "clips.h5") as file:
        assert re.match(b"the secret words", np.asarray(file["audio_name"][0]).item())
