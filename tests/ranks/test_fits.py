import os
import socket
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("fits.py")

spec = spec_from_file_location("fits_in_processes", SCRIPT)
fits = module_from_spec(spec)
spec.loader.exec_module(fits)

EXACT = 1e-10
"""The largest difference of a tensor in double precision, relative to its largest element or 1."""


def environment(rank, world, port):
    added = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return os.environ | {name: str(value) for name, value in added.items()} | {"OMP_NUM_THREADS": "1"}


def free_port():
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def start(world, *command):
    port = free_port()
    return [
        subprocess.Popen(
            [sys.executable, *map(str, command)], env=environment(rank, world, port), stderr=subprocess.PIPE
        )
        for rank in range(world)
    ]


def finish(processes):
    said = [process.communicate(timeout=120)[1].decode() for process in processes]
    return [process.returncode for process in processes], said


WORLD = 3


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """The fits of three processes."""
    folder = tmp_path_factory.mktemp("several")
    codes, said = finish(start(WORLD, SCRIPT, folder))
    assert codes == [0] * WORLD, said
    return folder


def difference(one, other):
    pairs = ((one[name].double(), other[name].double()) for name in one)
    return max(((a - b).abs().max() / a.abs().max().clamp(min=1)).item() for a, b in pairs)


@pytest.mark.parametrize("name", fits.CASES)
def test_several_processes_fit_what_one_fits(name, several, tmp_path):
    one = fits.make(tmp_path / name, **fits.CASES[name])
    start = {key: value.clone() for key, value in fits.state(one).items()}
    assert one.run()
    found = [torch.load(several / f"{name}.{rank}.pt") for rank in range(WORLD)]
    assert all(torch.equal(found[0][key], each[key]) for each in found for key in each)
    random = found[0].pop("random")
    assert torch.equal(random, torch.get_rng_state())
    assert difference(fits.state(one), found[0]) < EXACT
    assert difference(start, found[0]) > 1e-3
    lines = fits.lines(several / name)
    assert len(lines) == 3
    for before, after in zip(fits.lines(tmp_path / name), lines, strict=True):
        assert after == pytest.approx(before, rel=1e-9)
