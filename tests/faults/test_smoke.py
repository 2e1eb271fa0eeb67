"""A few faults of each kind; ``make faults`` tries them all."""

import random
import signal
import sys

import pytest

from bayes_panns.core.files import whole_file
from tests.faults import cases, damage
from tests.faults.commands import Home, served
from tests.faults.content import content, leftovers
from tests.faults.damage import Artefact
from tests.harness.fork_server import ForkServer, _said

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")

TRIED = ("pack", "import")


@pytest.fixture(scope="module")
def server():
    with ForkServer() as running:
        yield running


@pytest.fixture(scope="module")
def bench(server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    (folder / "home").mkdir()
    with served() as port:
        home = Home(folder / "home", server, port)
        bench = cases.measured(server, home, folder, [cases.by_name(name) for name in TRIED])
        # The inputs have a run like it.
        for name in ("pretrain", "pretrain, often"):
            bench.wanted[name], bench.seconds[name] = content(home.folder / "run"), home.seconds
        yield bench


CASES = {
    "pretrain, killed": (cases.signalled(cases.by_name("pretrain"), signal.SIGKILL), {"recovered", "finished before"}),
    "pretrain, told to end by SIGUSR1": (
        cases.signalled(cases.by_name("pretrain, often"), signal.SIGUSR1),
        {"recovered", "finished before"},
    ),
    "pack, told to end": (cases.signalled(cases.by_name("pack"), signal.SIGTERM), {"recovered", "finished before"}),
    "import, full disk": (cases.limited_files(cases.by_name("import"), 0.1), {"refused"}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_fault_is_borne(bench, server, tmp_path, name):
    case, expected = CASES[name]
    assert case(bench, server, tmp_path / "case", random.Random(0)) in expected


@pytest.mark.parametrize("seed", range(3))
def test_a_flipped_bit_is_noticed_or_changes_nothing(bench, server, tmp_path, seed):
    artefact = Artefact(".pth", "net.pth", cases.by_name("import"))
    case = damage.flipped(artefact, {"home": bench.home.folder})
    assert case(bench, server, tmp_path / "case", random.Random(seed)) in ("refused", "the same result")


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10))
def test_a_fit_that_is_killed_while_checkpoints_are_written_goes_on_to_the_same_bits(bench, server, tmp_path, seed):
    case = cases.signalled(cases.by_name("pretrain, often"), signal.SIGKILL)
    assert case(bench, server, tmp_path / "case", random.Random(seed)) in ("recovered", "finished before")


def test_a_damaged_checkpoint_is_replaced_by_the_one_before_it(bench, server, tmp_path):
    folder, often = bench.home.copy(tmp_path / "case"), cases.by_name("pretrain, often")
    damage.stop(bench, server, often, folder, 3)
    last = folder / "out" / "checkpoint.pt"
    last.write_bytes(last.read_bytes()[:-1000])
    result = bench.home.run(server, often.args, folder)
    assert result.returncode == 0, result.stderr
    assert "checkpoint.pt: is damaged; resuming from the checkpoint before it" in result.stderr
    cases.compare(bench, often, folder)


def test_what_is_half_written_is_left_over_and_no_content(tmp_path):
    (tmp_path / "whole.txt").write_text("")
    with whole_file(tmp_path / "half.h5") as part:
        part.write_bytes(b"half")
        assert list(content(tmp_path)) == ["whole.txt"]
        assert leftovers(tmp_path) != []


def test_a_command_that_a_signal_ended_before_it_had_a_place_to_write_to_said_nothing(tmp_path):
    assert _said(tmp_path / "out") == ""
    (tmp_path / "out").write_bytes(b"caf\xe9")
    assert _said(tmp_path / "out") == "caf\\xe9"
