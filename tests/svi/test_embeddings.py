import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch

from bayes_panns.audio.front_end import LogMel
from bayes_panns.bayes import BayesianNet, MeanField, OneOfK, guide_from_strategy, logits_under, mean_weights
from bayes_panns.clips import ClipSet, Task, write
from bayes_panns.core import archives
from bayes_panns.core.errors import FitError, RecipeError
from bayes_panns.nets import backbone, build
from bayes_panns.recipes import read_strategy
from bayes_panns.svi import Embeddings, Features, Fit, FitSettings, embeddings

RATE = 8000
CLIPS = 24


def sounds(clips=CLIPS):
    generator = np.random.default_rng(0)
    time = np.arange(RATE // 2) / RATE
    pitch = np.array([400, 900, 2000])[np.arange(clips) % 3] * generator.uniform(0.9, 1.1, clips)
    return 0.3 * np.sin(2 * np.pi * pitch[:, None] * time) + 0.01 * generator.normal(size=(clips, len(time)))


def packed(path, waveform):
    target = np.eye(3, dtype=bool)[np.arange(len(waveform)) % 3]
    write(path, waveform, target, ("low", "mid", "high"), Task.ONE_OF_K, RATE, fold=np.arange(len(waveform)) // 8)
    return path


@pytest.fixture
def store(tmp_path):
    return packed(tmp_path / "tones.h5", sounds())


def network(*, guide="det-flip", seed=0, rate=RATE, freeze=None):
    torch.manual_seed(seed)
    net = build("resnet14-narrow", 3)
    model = BayesianNet.from_strategy(net, read_strategy(guide), OneOfK(), clips=CLIPS, front_end=LogMel(rate))
    model.freeze(*(backbone(net, net.head) if freeze is None else freeze))
    return model


@pytest.fixture
def count(monkeypatch):
    """How many clips went through a backbone since it was last asked."""
    seen, embed = [], BayesianNet.embed

    def counting(self, clips, *options):
        seen.append(len(clips))
        return embed(self, clips, *options)

    def asked():
        total = sum(seen)
        seen.clear()
        return total

    monkeypatch.setattr(BayesianNet, "embed", counting)
    return asked


@pytest.fixture
def embedded(caplog):
    def embed(clips, model=None):
        """The embeddings of a set, and the messages about them."""
        caplog.clear()
        clips = clips if isinstance(clips, ClipSet) else ClipSet(clips)
        made = Embeddings(clips, model or network(), Task.ONE_OF_K)
        return made.batch(torch.arange(len(clips)))[0], " | ".join(caplog.messages)

    return embed


def kept(store):
    (path,) = store.with_suffix(".embeddings").iterdir()
    return path


def test_logits_from_embeddings_are_those_of_the_whole_network(store):
    model = network()
    guide = guide_from_strategy(model, read_strategy("det-flip"))
    data = Embeddings(ClipSet(store), model, Task.ONE_OF_K)
    index = torch.tensor([3, 17, 4])
    values, target = data.batch(index)
    waveform = torch.from_numpy(ClipSet(store).waveform(index))
    assert values.shape == (3, 128)
    assert target.tolist() == [0, 2, 1]
    weights = mean_weights(guide)
    torch.testing.assert_close(
        logits_under(model, weights, values, embedded=True), logits_under(model, weights, waveform)
    )
    assert len(data) == CLIPS


def test_a_clip_is_computed_once_and_one_is_computed_again_to_see_that_the_file_is_still_right(embedded, store, count):
    first, said = embedded(store)
    assert count() == CLIPS
    assert "24 computed in" in said
    assert f"kept in {kept(store)}" in said
    written = kept(store).stat().st_mtime_ns
    second, said = embedded(store)
    assert count() == 1
    assert f"read from {kept(store)}" in said
    assert torch.equal(first, second)
    assert kept(store).stat().st_mtime_ns == written


def test_folds_orders_and_copies_find_what_is_there(embedded, store, tmp_path, count):
    fold, _ = embedded(ClipSet(store, folds=[1]))
    assert count() == 8
    backwards, said = embedded(ClipSet(store).select(indices=np.arange(CLIPS)[::-1]))
    assert count() == 16 + 1
    assert "16 computed" in said
    assert torch.equal(backwards.flip(0)[8:16], fold)
    # Packed anew, with a clip twice and one more.
    more = packed(store, np.concatenate([sounds(), sounds()[:1], sounds()[:1] / 2]))
    embedded(more)
    assert count() == 1 + 1
    # Stores may be several, each with its folder.
    other = packed(tmp_path / "other.h5", sounds()[:6])
    both, _ = embedded(ClipSet([more, other]))
    assert count() == 1 + 6
    torch.testing.assert_close(both[-6:], both[:6])


@pytest.mark.parametrize("what", ["weight", "statistic", "front end"])
def test_another_backbone_or_front_end_has_embeddings_of_its_own(embedded, store, what, count):
    embedded(store)
    count()
    model = network(rate=16000 if what == "front end" else RATE)
    with torch.no_grad():
        if what == "weight":
            model.net.get_submodule("resnet.layer1.0.conv1").weight[0, 0, 0, 0] += 1e-3
        if what == "statistic":
            model.net.get_submodule("bn0").running_mean[0] += 1e-3
    embedded(store, model)
    assert count() == CLIPS
    assert len(list(store.with_suffix(".embeddings").iterdir())) == 2


def test_another_head_is_the_same_backbone(embedded, store, count):
    embedded(store)
    count()
    model = network(guide="det")
    with torch.no_grad():
        model.net.get_submodule(model.head).weight.add_(1)
    embedded(store, model)
    assert count() == 1


@pytest.mark.parametrize(
    "damage", ["truncated", "a byte", "no file of ours", "another width", "other embeddings", "a bomb"]
)
def test_a_damaged_file_is_told_and_mended(embedded, store, damage, count, monkeypatch):
    right, _ = embedded(store)
    path = kept(store)
    content = bytearray(path.read_bytes())
    with np.load(path) as arrays:
        digest, embedding = arrays["digest"], arrays["embedding"]
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "a byte":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "no file of ours":
        path.write_text("hello")
    elif damage == "a bomb":
        monkeypatch.setattr(archives, "FREE", 1 << 10)
        np.savez_compressed(path, digest=digest, embedding=np.zeros((100_000, embedding.shape[1]), np.float32))
    else:
        wrong = embedding[:, :5] if damage == "another width" else 1.1 * embedding
        with path.open("wb") as file:
            np.savez(file, digest=digest, embedding=wrong)
    count()
    again, said = embedded(store)
    assert f"{path}: " in said
    assert "computed again" in said
    assert ("unpacks from" in said) == (damage == "a bomb"), "it is refused before it is unpacked"
    assert count() >= CLIPS
    assert torch.equal(again, right)
    assert "read from" in embedded(store)[1]


def test_a_folder_that_cannot_be_written_costs_only_the_file(embedded, store, tmp_path):
    (tmp_path / "tones.embeddings").write_text("in the way")
    values, said = embedded(store)
    assert values.isfinite().all()
    assert "24 computed in" in said
    assert "not kept: " in said
    assert {path.name for path in tmp_path.iterdir()} == {"tones.h5", "tones.embeddings"}


def test_an_interrupted_computation_leaves_what_it_has(embedded, store, monkeypatch, count):
    monkeypatch.setattr(embeddings, "_CHUNK", 8)
    counting = BayesianNet.embed

    def interrupted(self, clips, *options):
        if len(kept_so_far) == 2:
            raise KeyboardInterrupt
        kept_so_far.append(len(clips))
        return counting(self, clips, *options)

    kept_so_far = []
    with monkeypatch.context() as patch:
        patch.setattr(BayesianNet, "embed", interrupted)
        with pytest.raises(KeyboardInterrupt):
            embedded(store)
    assert count() == 16
    embedded(store)
    assert count() == 8 + 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guide": "flip"}, r"draws conv_block1.conv1.weight and \d+ more weights before the last layer.* det-flip"),
        ({"guide": "drop"}, "leaves dropout on before the last layer.* such as det-flip"),
        ({"freeze": ()}, r"would change bn0, conv_block1, .*dropout_clip; freeze them: freeze = \[\"backbone\"\]"),
        (
            {"freeze": ("bn0", "conv_block1", "resnet", "conv_block_after1", "fc1")},
            "the fit would change dropout_maps, dropout_clip; freeze them",
        ),
    ],
)
def test_a_backbone_that_is_not_fixed_is_refused(store, options, message):
    with pytest.raises(RecipeError, match=message):
        Embeddings(ClipSet(store), network(**options), Task.ONE_OF_K)
    assert not store.with_suffix(".embeddings").exists()


def job(store, folder, *, features="embeddings", seed=0, **settings):
    folder.mkdir(exist_ok=True)
    model = network(seed=seed)
    clips = ClipSet(store)
    if features == "embeddings":
        data = Embeddings(clips, model, Task.ONE_OF_K)
    else:
        data = Features(clips, model.front_end, Task.ONE_OF_K)
    chosen = FitSettings(**{"epochs": 2, "batch_size": 8, "spec_augment": False, "features": features, **settings})
    guide = guide_from_strategy(model, read_strategy("det-flip"))
    return Fit(model, guide, data, chosen, folder, validation=data)


def metrics(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in ("seconds", "digest")} for line in lines]


def state(fit):
    return {**fit.model.state_dict(), **fit.guide.state_dict()}


def test_the_fit_is_the_one_of_the_whole_network_with_its_backbone_frozen(store, tmp_path):
    fits = [job(store, tmp_path / features, features=features) for features in ("memory", "embeddings")]
    before = {name: value.clone() for name, value in fits[0].model.state_dict().items()}
    for fit in fits:
        assert fit.run()
    whole, head = (state(fit) for fit in fits)
    for name, value in whole.items():
        torch.testing.assert_close(head[name], value, rtol=1e-4, atol=1e-5, msg=name)
    for name, value in before.items():
        assert torch.equal(head[name], value), name
    for one, other in zip(*(metrics(tmp_path / features) for features in ("memory", "embeddings")), strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    assert metrics(tmp_path / "memory")[0]["val/nll"] != metrics(tmp_path / "memory")[1]["val/nll"]


def test_a_resumed_fit_is_the_fit_that_never_stopped(store, tmp_path):
    whole = job(store, tmp_path / "whole")
    whole.run()
    first = job(store, tmp_path / "parts")
    step = first._step

    def interrupt(index):
        if first.step == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return step(index)

    first._step = interrupt
    assert not first.run()
    torch.randn(17)
    second = job(store, tmp_path / "parts")
    second.load_checkpoint()
    assert second.step == 5
    assert second.run()
    assert all(torch.equal(value, state(second)[name]) for name, value in state(whole).items())
    assert metrics(tmp_path / "parts")[-1]["val/nll"] == metrics(tmp_path / "whole")[-1]["val/nll"]
    # What stays as it was is not written again and again.
    backbone = sum(value.nbytes for value in whole.model.state_dict().values())
    assert (tmp_path / "whole" / "checkpoint.pt").stat().st_size < backbone / 10


def test_a_checkpoint_of_another_backbone_is_told(store, tmp_path):
    job(store, tmp_path / "run").run()
    with pytest.raises(FitError, match="belongs to a fit on the embeddings of another backbone"):
        job(store, tmp_path / "run", seed=1).load_checkpoint()


def test_settings_and_data_must_be_of_one_kind(store, tmp_path):
    model = network()
    settings = FitSettings(features="memory", spec_augment=False)
    with pytest.raises(ValueError, match="the data are something else"):
        Fit(model, MeanField(model), Embeddings(ClipSet(store), model, Task.ONE_OF_K), settings, tmp_path)


def test_a_store_may_move_with_its_embeddings(embedded, store, tmp_path, count):
    embedded(store)
    (tmp_path / "away").mkdir()
    shutil.move(store, tmp_path / "away")
    shutil.move(store.with_suffix(".embeddings"), tmp_path / "away")
    count()
    embedded(tmp_path / "away" / store.name)
    assert count() == 1


def test_views_are_embeddings_of_masked_spectrograms_beside_the_clips_own(embedded, store):
    model, clips = network(), ClipSet(store)
    own, _ = embedded(store, model)
    made = Embeddings(clips, model, Task.ONE_OF_K, views=3, seed=5)
    assert made.views.shape == (CLIPS, 4, 128)
    assert torch.equal(made.views[:, 0], own)
    distance = (made.views[:, 1:] - made.views[:, :1]).norm(dim=2) / made.views[:, :1].norm(dim=2)
    assert 0 < distance.mean() < 1
    assert not torch.equal(made.views[:, 1], made.views[:, 2])
    assert torch.equal(made.views, Embeddings(clips, model, Task.ONE_OF_K, views=3, seed=5).views)
    assert not torch.equal(made.views, Embeddings(clips, model, Task.ONE_OF_K, views=3, seed=6).views)


def test_a_batch_takes_each_view_of_a_clip_as_often(store):
    made = Embeddings(ClipSet(store), network(), Task.ONE_OF_K, views=2)
    # Stripes may hide all of so short a clip, twice.
    made.views.normal_()
    index = torch.tensor([7, 2]).repeat_interleave(3000)
    values, target = made.batch(index)
    assert target.tolist() == [1] * 3000 + [2] * 3000
    for clip, taken in zip((7, 2), values.split(3000), strict=True):
        hits = torch.stack([(taken == view).all(dim=1) for view in made.views[clip]])
        assert hits.any(dim=0).all()
        assert hits.float().mean(dim=1).tolist() == pytest.approx([1 / 3] * 3, abs=0.04)


def test_views_are_for_embeddings_only():
    with pytest.raises(ValueError, match=r'Views are of embeddings; set fit.features = "embeddings"'):
        FitSettings(views=2)


def test_two_processes_that_embed_at_once_keep_the_clips_of_both(store, monkeypatch, count):
    clips, add = ClipSet(store), Embeddings._add

    def meanwhile(self, *arguments):
        add(self, *arguments)
        monkeypatch.setattr(Embeddings, "_add", add)
        # Another process has read the file before this one writes it.
        Embeddings(clips.select(indices=np.arange(8, 12)), network(), Task.ONE_OF_K)

    monkeypatch.setattr(Embeddings, "_add", meanwhile)
    Embeddings(clips.select(indices=np.arange(4)), network(), Task.ONE_OF_K)
    count()
    Embeddings(clips.select(indices=np.array([0, 1, 2, 3, 8, 9, 10, 11])), network(), Task.ONE_OF_K)
    assert count() == 1, "the one that is computed again to see that the file is still right"
