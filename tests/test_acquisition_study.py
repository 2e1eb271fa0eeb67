"""The study of acquisition in small: pools, games, tables; and going on where it stopped."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _checkout(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)


@pytest.fixture
def data():
    from benchmarks.acquisition.games import Data

    random = np.random.default_rng(0)
    label = np.arange(120) // 2 % 3
    embeddings = torch.from_numpy(3 * np.eye(3, 12)[label] + random.normal(size=(120, 12))).float()
    return Data("toy", embeddings, label, np.arange(120) // 2, np.arange(120) // 60, 3, tail=10)


def test_a_tail_leaves_out_whole_recordings_and_keeps_every_class(data):
    pool = data.pool(0, seed=1)
    counts = np.bincount(data.label[pool])
    assert (data.fold[pool] == 1).all()
    assert sorted(counts) == [2, 6, 20]
    assert np.bincount(data.recording[pool])[data.recording[pool]].min() == 2


def test_games_share_their_first_labels_and_are_played_once(data, tmp_path, monkeypatch):
    from benchmarks.acquisition import command
    from benchmarks.acquisition.tables import summary, tables

    def play(strategies):
        return command._play([data], strategies, [0], tmp_path, rounds=1, budget=4)

    games = play(["random", "typical"])
    assert len(games) == 4
    assert all(game["labels"] == [6, 10] for game in games)
    first = {tuple(game["game"][2:4]): set() for game in games}
    for game in games:
        first[tuple(game["game"][2:4])].add(game["nll"][0])
    assert all(len(values) == 1 for values in first.values())
    # The line under way when it was stopped is played again, and no other.
    path = tmp_path / "games.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]) + lines[-1][:20])
    played = []
    monkeypatch.setattr(command, "play", lambda *each, **_: played.append(each) or json.loads(lines[-1]))
    assert [game["nll"] for game in play(["random", "typical"])] == [game["nll"] for game in games]
    assert len(played) == 1
    record = summary(games, "A note.")
    row = record["data"]["toy"]["strategies"]["typical"]["nll"]
    differences = np.array([game["nll"][1] for game in games]).reshape(2, 2)
    # Fold, strategy: the order in which they were played.
    assert row["by_fold"] == pytest.approx(differences[:, 1] - differences[:, 0])
    assert "| typical | " in tables(record)


def test_going_on_is_compared_with_all_clips(data):
    from benchmarks.acquisition.continued import ROWS, _compared, _tables

    found = _compared(replace(data, tail=None), [0])
    assert list(found) == ["40 old, 20 new"]
    nll = {row: np.mean(values, axis=(0, 1))[1] for row, values in found["40 old, 20 new"].items()}
    assert abs(nll["continued"] - nll["all"]) < abs(nll["new"] - nll["all"])
    text = _tables({"toy": {"4 old, 2 new": {row: [[(0.5, 1.0)], [(0.6, 0.9)]] for row in ROWS}}})
    assert "| accuracy, continued | 0.550 (+0.000 to +0.000) |" in text
