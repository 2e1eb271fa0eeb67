"""The command for large packs: killed, resumed, and into several stores."""

import random
import signal
import sys
from functools import partial

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from bayes_panns.cli import main
from bayes_panns.clips import Store
from tests.harness.fork_server import ForkServer

RATE = 8000

PACK = ("pack", "folder", "wavs", "--sample-rate", RATE, "--seconds", "1", "--jobs", "2", "-o")


def recordings(folder, count):
    for label in "ab":
        (folder / "wavs" / label).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for index in range(count):
        path = folder / "wavs" / "ab"[index % 2] / f"{index:04d}.wav"
        soundfile.write(path, generator.uniform(-0.5, 0.5, 44100), 44100)


def test_several_stores_from_the_command_line(here):
    recordings(here, 7)
    result = CliRunner().invoke(main, [*map(str, PACK), "out/a.h5", "--clips-per-store", "3"])
    assert result.exit_code == 0, result.output
    assert "7 clips packed in 3 stores, 0 skipped, 0 excluded" in result.output
    assert [len(Store(path)) for path in sorted((here / "out").iterdir())] == [3, 3, 1]
    again = CliRunner().invoke(main, [*map(str, PACK), "out/a.h5", "--clips-per-store", "3", "--resume"])
    assert again.exit_code == 1
    assert "out/a.h5: is packed already, and there is no interrupted pack" in again.output


@pytest.mark.parametrize("option", [("--jobs", "2"), ("--resume",), ("--clips-per-store", "3")])
def test_what_is_for_sound_only_is_refused_for_embeddings(here, option):
    np.savez(here / "a.npz", embedding=np.ones((2, 3)))
    result = CliRunner().invoke(main, ["pack", "embeddings", "a.npz", "-o", "a.h5", *option])
    assert result.exit_code == 2
    assert f"{option[0]} is not for the catalog embeddings" in result.output


def packed(part, clips):
    """Whether so many clips are packed."""
    try:
        return (part / "journal.jsonl").read_bytes().count(b"\n") > clips
    except FileNotFoundError:
        return False


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_packs_that_are_killed_at_random_moments_go_on(here):
    recordings(here, 400)
    known = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
    with ForkServer() as server:
        whole = server.run([*PACK, "whole.h5"], cwd=here)
        assert whole.returncode == 0, whole.stderr
        wanted, gone_on = (here / "whole.h5").read_bytes(), 0
        for seed in range(10):
            generator = random.Random(seed)
            number = generator.choice(list(known))
            name, resume = f"{seed}.h5", []
            signals = [(partial(packed, here / f"{name}.part", generator.randint(0, 400)), number)]
            while not (here / name).exists():
                result = server.run([*PACK, name, *resume], cwd=here, signals=signals)
                assert result.returncode in (0, known[number]), result.stderr
                resume = ["--resume"] if (here / f"{name}.part").exists() else []
                gone_on, signals = gone_on + bool(resume), []
            assert (here / name).read_bytes() == wanted
            assert not (here / f"{name}.part").exists()
            (here / name).unlink()
    assert gone_on > 4
