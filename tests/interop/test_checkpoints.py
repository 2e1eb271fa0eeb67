"""Published checkpoints, made from a formula, through the real commands."""

import json
import pickle
import random
import re

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from bayes_panns.cli import main
from bayes_panns.clips import ClipSet, Task, write
from bayes_panns.core.errors import CheckpointError
from bayes_panns.interop import PUBLISHED, import_checkpoint
from bayes_panns.interop.checkpoints import _read
from bayes_panns.nets import NETS, build
from bayes_panns.posterior import load

LABELS = ("dog", "rain", "siren")


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def state_dict(net="resnet14-narrow", labels=3):
    """A network with BatchNorm statistics and biases that are not the initial ones."""
    state = build(net, labels).state_dict()
    for name, value in state.items():
        if value.is_floating_point() and value.dim() == 1:
            value.uniform_(0.5, 1.5) if name.endswith(("weight", "running_var")) else value.normal_(0, 0.1)
    return state


def flipout(state):
    """As bayesian-torch would hold it, with variational convolutions."""
    held = {}
    for name, value in state.items():
        if value.dim() == 4:
            held[name.replace(".weight", ".mu_kernel")] = value
            held[name.replace(".weight", ".rho_kernel")] = torch.empty_like(value).uniform_(-4, -2)
        else:
            held[name] = value
    return held


@pytest.fixture
def saved(tmp_path):
    def save(content, name="net.pth", **options):
        torch.save(content, tmp_path / name, **options)
        return tmp_path / name

    return save


@pytest.fixture(scope="module")
def golden(reference, tmp_path_factory):
    """The reference's waveforms as files, AudioSet-like labels, and its checkpoints by kind, as published."""
    formula, values = reference
    folder = tmp_path_factory.mktemp("golden")
    for index, waveform in enumerate(formula.waveform(2, 64000)):
        soundfile.write(folder / f"{index}.wav", waveform, 32000, subtype="FLOAT")
    rows = [f'{index},/m/{index},"Label {index}, of 527"' for index in range(527)]
    (folder / "labels.csv").write_text("\n".join(["index,mid,display_name", *rows]) + "\n")

    def checkpoint(keys):
        return {
            name: torch.from_numpy(np.asarray(formula.tensor(name, shape)))
            for name, shape in json.loads(str(values[keys])).items()
        }

    return folder, values, checkpoint


def predicted(posterior, folder):
    result = run("predict", posterior, folder / "0.wav", folder / "1.wav", "--draws", 0, "--format", "json")
    tags = json.loads(result.stdout)
    assert tags["labels"][526] == "Label 526, of 527"
    return np.array([window["probability"] for window in tags["windows"]])


@pytest.mark.long
def test_the_published_panns_network_is_imported_predicts_and_is_exported_as_it_was(golden, tmp_path):
    folder, values, checkpoint = golden
    published = checkpoint("keys")
    torch.save({"model": published, "iteration": 700000}, tmp_path / "net.pth")
    labels = ("--labels", folder / "labels.csv")
    shown = run("import", "panns", tmp_path / "net.pth", "-o", tmp_path / "posterior", *labels)
    assert "resnet54, 527 labels, 32000 Hz; 0 weight tensors variational, 345 others" in shown.stderr
    np.testing.assert_allclose(predicted(tmp_path / "posterior", folder), values["probs"], rtol=0, atol=1e-4)
    run("export", tmp_path / "posterior", "-o", tmp_path / "again.pth")
    again = torch.load(tmp_path / "again.pth", weights_only=True)["model"]
    assert set(again) == set(published)
    for name, value in published.items():
        assert again[name].shape == value.shape
        assert again[name].dtype == value.dtype
        if not name.startswith(("spectrogram", "logmel")):
            assert torch.equal(again[name], value), name


@pytest.mark.long
def test_the_published_flipout_network_is_imported_with_its_mean_its_scales_and_its_kl(golden, tmp_path):
    folder, values, checkpoint = golden
    published = checkpoint("flipout_keys")
    torch.save({"model": published}, tmp_path / "net.pth")
    labels = ("--labels", folder / "labels.csv")
    shown = run("import", "vi-pann", tmp_path / "net.pth", "-o", tmp_path / "posterior", *labels)
    assert "56 weight tensors variational" in shown.stderr
    mean = 1 / (1 + np.exp(-values["mean_logits"].astype(float)))
    np.testing.assert_allclose(predicted(tmp_path / "posterior", folder), mean, rtol=0, atol=1e-4)
    tensors = load_file(tmp_path / "posterior" / "guide.safetensors")
    kl = 0.0
    for name in [name.removesuffix(".scale") for name in tensors if name.endswith(".scale")]:
        loc, scale = tensors[f"{name}.loc"], tensors[f"{name}.scale"]
        kl += float(((scale.square() + loc.square() - 1) / 2 - scale.log()).sum(dtype=torch.float64))
    assert kl == pytest.approx(float(values["kl"]), rel=1e-6)


def test_a_flipout_checkpoint_is_a_mean_field_posterior_under_its_own_prior(saved):
    held = flipout(state_dict())
    posterior = import_checkpoint(saved({"model": held}), "vi-pann", labels=LABELS)
    gaussians, points = posterior.gaussians(), posterior.points()
    assert set(gaussians) == {name.replace("mu_kernel", "weight") for name in held if name.endswith("mu_kernel")}
    assert {"fc1.weight", "fc1.bias", "fc_audioset.weight", "bn0.running_mean"} <= set(points)
    loc, scale = gaussians["conv_block1.conv2.weight"]
    assert torch.equal(loc, held["conv_block1.conv2.mu_kernel"])
    torch.testing.assert_close(scale, held["conv_block1.conv2.rho_kernel"].exp().log1p())
    prior = posterior.model.net.conv_block1.conv2._pyro_samples["weight"]
    assert torch.equal(prior.mean, torch.zeros_like(loc))
    assert torch.equal(prior.stddev, torch.ones_like(loc))


def test_linear_layers_that_were_made_variational_after_publication_are_too(saved):
    held = flipout(state_dict())
    for name in ("fc_audioset.weight", "fc_audioset.bias"):
        value = held.pop(name)
        layer, _, what = name.rpartition(".")
        held |= {f"{layer}.mu_{what}": value, f"{layer}.rho_{what}": torch.full_like(value, -3.0)}
    gaussians = import_checkpoint(saved(held), "vi-pann", labels=LABELS).gaussians()
    assert torch.equal(gaussians["fc_audioset.bias"][0], held["fc_audioset.mu_bias"])
    assert float(gaussians["fc_audioset.weight"][1].mean()) == pytest.approx(np.log1p(np.exp(-3)))


@pytest.mark.parametrize("kind", ["panns", "vi-pann"])
@pytest.mark.parametrize("wrapped", [True, False])
def test_point_weights_stay_points_bare_or_not(saved, kind, wrapped):
    state = state_dict()
    path = saved({"model": state, "iteration": 5} if wrapped else state)
    posterior = import_checkpoint(path, kind, labels=LABELS)
    assert not posterior.gaussians()
    assert (posterior.net, posterior.task, posterior.labels) == ("resnet14-narrow", Task.MULTI_LABEL, LABELS)
    assert posterior.points().keys() == state.keys()
    assert all(torch.equal(posterior.points()[name], value) for name, value in state.items())
    assert posterior.provenance.get("steps") == (5 if wrapped else None)
    with torch.no_grad():
        net = build("resnet14-narrow", 3).eval()
        net.load_state_dict(state)
        waveform = 0.1 * torch.randn(2, 16000)
        expected = net(posterior.front_end(waveform)).sigmoid()
    torch.testing.assert_close(next(posterior.draws(waveform, 0)), expected)


def test_each_net_is_recognised_by_its_keys(saved):
    """Only the shapes matter: a file of views of one number is small."""
    with torch.device("meta"):
        nets = [build(net, 3) for net in NETS]
    for net in nets:
        small = {name: torch.zeros(()).expand(value.shape) for name, value in net.state_dict().items()}
        for kind in net.checkpoints:
            with pytest.raises(CheckpointError, match="has 3 labels, but 1 are named"):
                import_checkpoint(saved(small), kind, labels=("one",))


def test_the_published_files_are_as_large_as_these_tensors():
    """What is left is what a file of torch's holds beside them, some hundreds of bytes a tensor."""

    def size(net, twice=0):
        with torch.device("meta"):
            state = build(net, 527).state_dict()
        constants = 4 * (2 * 513 * 1024 + 513 * 64)
        tensors = sum(value.numel() * value.element_size() for value in state.values())
        kernels = [value.numel() for value in state.values() if value.dim() == 4]
        return constants + tensors + 4 * twice * sum(kernels), len(state) + 3, len(kernels)

    tensors, count, _ = size("resnet38")
    assert 50 < (PUBLISHED["panns-resnet38"].size - tensors) / count < 400
    # Both files of VI-PANN hold the same besides: the sampler.
    more = PUBLISHED["vi-pann-flipout"].size - PUBLISHED["vi-pann-deterministic"].size
    difference = size("resnet54", twice=1)[0] - size("resnet54")[0]
    assert 50 < (more - difference) / size("resnet54")[2] < 400


@pytest.mark.parametrize(("rate", "window"), [(32000, 1024), (16000, 512), (8000, 256)])
def test_the_front_end_is_recognised_by_the_shape_of_its_matrix(saved, rate, window):
    matrix = {"spectrogram_extractor.stft.conv_real.weight": torch.full((window // 2 + 1, 1, window), torch.nan)}
    assert import_checkpoint(saved(matrix | state_dict()), "panns", labels=LABELS).sample_rate == rate


def test_another_front_end_is_refused(saved):
    matrix = {"spectrogram_extractor.stft.conv_real.weight": torch.ones(1025, 1, 2048)}
    with pytest.raises(CheckpointError, match="window of 2048 samples is not supported; PANNs has 1024, 512, 256"):
        import_checkpoint(saved(matrix | state_dict()), "panns", labels=LABELS)


def test_fan_in_scales_are_the_factor_by_the_root_of_the_fan_in(saved):
    state = state_dict()
    posterior = import_checkpoint(saved(state), "panns", labels=LABELS, scale="fan-in", factor=0.3)
    loc, scale = posterior.gaussians()["conv_block1.conv2.weight"]
    assert torch.equal(loc, state["conv_block1.conv2.weight"])
    torch.testing.assert_close(scale, torch.full_like(loc, 0.3 / (16 * 9) ** 0.5))
    assert posterior.gaussians()["fc1.bias"][1].mean() == pytest.approx(0.3 / 128**0.5)
    assert len(posterior.gaussians()) == len(posterior.model.sites)
    assert posterior.provenance["scale"] == "fan-in"


def test_moped_scales_are_a_fraction_of_the_weights_with_a_floor(saved):
    state = state_dict()
    state["fc_audioset.weight"][0, :2] = torch.tensor([0.0, -0.5])
    posterior = import_checkpoint(saved(state), "panns", labels=LABELS, scale="moped", factor=0.2, guide="det-flip")
    assert set(posterior.gaussians()) == {"fc_audioset.weight", "fc_audioset.bias"}
    loc, scale = posterior.gaussians()["fc_audioset.weight"]
    assert float(scale[0, 1]) == pytest.approx(0.1)
    assert float(scale[0, 0]) == pytest.approx(0.01 * 0.2 / 128**0.5)
    large = loc.abs() > 0.01
    torch.testing.assert_close(scale[large], 0.2 * loc.abs()[large])


@pytest.fixture
def noise(tmp_path):
    """A store of unlabelled clips: noise of half a second."""
    waveform = 0.1 * np.random.default_rng(0).normal(size=(6, 16000))
    write(tmp_path / "noise.h5", waveform, np.zeros((6, 0), dtype=bool), (), Task.UNLABELLED, 32000)
    return tmp_path / "noise.h5"


def test_fisher_scales_are_those_of_a_laplace_approximation_from_any_clips(saved, noise):
    state = state_dict()
    path = saved({"model": state, "iteration": 5})
    options = {"labels": LABELS, "scale": "fisher", "stores": noise, "clips": 1000, "kl_weight": 0.5}
    posterior = import_checkpoint(path, "panns", guide="det-flip", **options)
    points = import_checkpoint(path, "panns", labels=LABELS)
    waveform = torch.from_numpy(ClipSet(noise).waveform(range(6)))
    p = next(points.draws(waveform, 0))
    information = (p * (1 - p)).T @ points.embed(waveform).square() / 6
    loc, scale = posterior.gaussians()["fc_audioset.weight"]
    assert torch.equal(loc, state["fc_audioset.weight"])
    torch.testing.assert_close(scale, (128 + 2000 * information).rsqrt(), rtol=1e-3, atol=0)
    assert all(torch.equal(posterior.points()[name], state[name]) for name in posterior.points())
    assert posterior.short_clips is points.short_clips
    provenance = dict(posterior.provenance)
    widths = provenance.pop("widths")
    assert provenance == points.provenance | {"scale": "fisher"}
    assert (widths["data"], widths["clips"], widths["kl_weight"]) == (["noise.h5"], 1000, 0.5)


def test_the_command_imports_with_fisher_scales(saved, noise, tmp_path):
    (tmp_path / "labels.csv").write_text("index,mid,display_name\n0,/m/a,dog\n1,/m/b,rain\n2,/m/c,siren\n")
    given = ("import", "panns", saved(state_dict()), "-o", tmp_path / "p", "--labels", tmp_path / "labels.csv")
    shown = run(*given, "--scale", "fisher", "--data", noise, "--clips", 50, "--kl-weight", 0.1, "--device", "cpu")
    assert "weights keep at least 0.9 of their prior's width" in shown.stderr
    assert re.search(r"p: resnet14-narrow, 3 labels, 32000 Hz; \d\d weight tensors variational", shown.stderr)
    posterior = load(tmp_path / "p")
    assert len(posterior.gaussians()) == len(posterior.model.sites)
    assert (posterior.provenance["widths"]["clips"], posterior.provenance["widths"]["kl_weight"]) == (50, 0.1)
    for more, message in (
        (("--scale", "fisher"), "name a store of any sounds with --data"),
        (("--scale", "fisher", "--data", noise, "--factor", 1), "--factor is for --scale fan-in and moped"),
        (("--scale", "moped", "--kl-weight", 1), "--kl-weight is for --scale fisher"),
        (("--data", noise), "--data is for --scale; give that too"),
    ):
        assert message in run(*given, *more, code=2).stderr
    write(tmp_path / "slow.h5", np.zeros((2, 800)), np.zeros((2, 0), dtype=bool), (), Task.UNLABELLED, 8000)
    shown = run(*given, "--scale", "fisher", "--data", tmp_path / "slow.h5", code=1)
    assert "slow.h5: sample rate 8000 Hz, but the posterior's is 32000 Hz; pack it again with" in shown.stderr


def test_fisher_scales_need_clips_and_point_weights(saved, noise):
    with pytest.raises(CheckpointError, match=r'scale "fisher" and clip stores \(--data\) go together'):
        import_checkpoint(saved(state_dict()), "panns", labels=LABELS, scale="fisher")
    with pytest.raises(CheckpointError, match="go together; give both or neither"):
        import_checkpoint(saved(state_dict()), "panns", labels=LABELS, scale="moped", stores=noise)
    with pytest.raises(CheckpointError, match="has its own scales; leave --scale out"):
        import_checkpoint(saved(flipout(state_dict())), "vi-pann", labels=LABELS, scale="fisher", stores=noise)


def test_a_bayesian_start_can_be_fine_tuned(saved, tmp_path):
    (tmp_path / "labels.csv").write_text("index,mid,display_name\n0,/m/a,dog\n1,/m/b,rain\n2,/m/c,siren\n")
    path = saved(state_dict())
    run("import", "panns", path, "-o", tmp_path / "p", "--labels", tmp_path / "labels.csv", "--scale", "moped")
    start = load(tmp_path / "p")
    fresh = import_checkpoint(path, "panns", labels=LABELS, scale="fan-in")
    assert not fresh.model.training, "BatchNorm uses the checkpoint's statistics"
    assert fresh.start_from(start).new == ()
    torch.testing.assert_close(fresh.gaussians()["fc1.weight"][1], start.gaussians()["fc1.weight"][1])


def test_other_entries_beside_the_weights_are_allowed(saved, tmp_path):
    """VI-PANN's files hold the sampler's NumPy arrays, in the serialisation of the time."""
    sampler = {"indexes_per_class": [np.arange(5), np.arange(3, dtype=np.int32)], "pointer": np.int64(3), "queue": [1]}
    content = {"iteration": 3, "sampler": sampler, "model": state_dict()}
    new, old = saved(content), saved(content, "old.pth", _use_new_zipfile_serialization=False)
    # NumPy 1 called it that.
    old.write_bytes(old.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    for path in (new, old):
        assert import_checkpoint(path, "panns", labels=LABELS).provenance["steps"] == 3


class Code:
    def __reduce__(self):
        return print, ("run",)


def without(state, name):
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            lambda: without(state_dict(), "fc1.bias"),
            r"the network resnet14-narrow, the most similar one: fc1.bias is missing",
        ),
        (lambda: state_dict() | {"conv9.weight": torch.zeros(2)}, "conv9.weight is not one of its parameters"),
        (
            lambda: state_dict() | {"fc1.weight": torch.zeros(64, 128)},
            "fc1.weight has shape 64 x 128, not 128 x 128",
        ),
        (
            lambda: flipout(state_dict()),
            r"Flipout checkpoint \(it has conv_block1.conv1.mu_kernel\); import it as",
        ),
        (lambda: state_dict(labels=5), "has 5 labels, but 3 are named"),
        (
            lambda: state_dict() | {"fc1.bias": torch.full((128,), torch.inf)},
            "fc1.bias has values that are not finite",
        ),
        (lambda: {"model": 3}, "contains no state_dict"),
        (lambda: [1, 2], "contains no state_dict"),
        (lambda: {"model": state_dict(), "bayes_panns": {"labels": "x"}}, "is damaged: bayes_panns.labels"),
        (
            lambda: {"model": state_dict(), "more": Code()},
            r"contains code \(\S*print\) and is not opened; save only its state_dict",
        ),
    ],
)
def test_a_file_that_is_no_such_checkpoint_is_one_line(saved, content, message, capsys):
    path = saved(content())
    with pytest.raises(CheckpointError, match=message) as error:
        import_checkpoint(path, "panns", labels=LABELS)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(path))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "pann"}, r"kind 'pann': choose one of panns \(.*\), vi-pann \("),
        ({"scale": "narrow"}, r"scale 'narrow': choose one of fan-in \(.*\), moped \("),
        ({"scale": "moped", "factor": 0.0}, "factor 0.0: must be positive and finite"),
        ({"scale": "moped", "factor": float("nan")}, "factor nan: must be positive and finite"),
    ],
)
def test_unknown_choices_are_errors(saved, options, message):
    with pytest.raises(CheckpointError, match=message):
        import_checkpoint(saved(state_dict()), **({"kind": "panns", "labels": LABELS} | options))


def test_a_named_net_is_the_one_that_it_is_compared_with(saved):
    with pytest.raises(CheckpointError, match=r"the network resnet38: conv_block1.conv1.weight has shape 16"):
        import_checkpoint(saved(state_dict()), "panns", labels=LABELS, net="resnet38")


def test_a_scale_without_a_mean_or_of_what_has_none_is_refused(saved):
    held = flipout(state_dict())
    with pytest.raises(CheckpointError, match=r"fc1.weight has a rho but no mu of the same shape"):
        import_checkpoint(saved(held | {"fc1.rho_weight": torch.zeros(3)}), "vi-pann", labels=LABELS)
    odd = without(held, "bn0.weight") | {"bn0.mu_weight": torch.ones(64), "bn0.rho_weight": torch.ones(64)}
    with pytest.raises(CheckpointError, match=r"a scale for bn0.weight, which must be a point weight"):
        import_checkpoint(saved(odd), "vi-pann", labels=LABELS)
    with pytest.raises(CheckpointError, match="has its own scales; leave --scale out"):
        import_checkpoint(saved(held), "vi-pann", labels=LABELS, scale="moped")


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[:2000],
        lambda whole: whole[:-2000],
        lambda whole: b"",
        lambda whole: b"<html>not found</html>",
        lambda whole: pickle.dumps(3)[:-1],
    ],
)
@pytest.mark.parametrize("new", [True, False])
def test_a_damaged_file_is_one_line(saved, tmp_path, damage, new):
    path = saved(state_dict(), _use_new_zipfile_serialization=new)
    path.write_bytes(damage(path.read_bytes()))
    result = run("import", "panns", path, "-o", tmp_path / "p", code=1)
    assert result.stderr.count("\n") == 1
    assert f"{path}: " in result.stderr
    assert not (tmp_path / "p").exists()


def test_a_flipped_bit_is_refused_or_changes_nothing(saved):
    """PyTorch itself reads most of these files without a word."""
    path = saved({"model": {"a.weight": torch.randn(40, 3), "a.bias": torch.arange(40.0)}, "iteration": 7})
    whole, chosen, before, silent = path.read_bytes(), random.Random(0), _read(path), 0
    for _ in range(50):
        changed = bytearray(whole)
        changed[chosen.randrange(len(whole))] ^= 1 << chosen.randrange(8)
        path.write_bytes(changed)
        try:
            state, content = _read(path)
        except CheckpointError:
            silent += reads_otherwise(path, before[0])
            continue
        assert content["iteration"] == before[1]["iteration"]
        assert all(torch.equal(state[name], value) for name, value in before[0].items())
    assert silent > 5


def reads_otherwise(path, state):
    """Whether PyTorch reads other numbers from a file, without an error."""
    try:
        found = torch.load(path, weights_only=True)["model"]
        return not all(torch.equal(found[name], value) for name, value in state.items())
    except Exception:
        return False


def test_old_files_have_no_checksums_and_it_is_said(saved, caplog):
    import_checkpoint(saved(state_dict(), _use_new_zipfile_serialization=False), "panns", labels=LABELS)
    assert "format before 1.6, which has no checksums" in caplog.text


def test_views_of_a_few_bytes_are_not_summed(saved):
    claims = {"a.weight": torch.zeros(()).expand(10**12), "b.weight": torch.zeros(()).half().expand(10**12)}
    with pytest.raises(CheckpointError, match="its tensors claim to be far larger than the file"):
        import_checkpoint(saved(claims), "panns", labels=LABELS)


def test_missing_labels_and_missing_files_are_errors(saved, tmp_path):
    result = run("import", "panns", saved(state_dict()), "-o", tmp_path / "p", code=1)
    assert "does not name its 3 labels; give a CSV of their names with --labels" in result.stderr
    assert "no such file" in run("import", "panns", tmp_path / "x.pth", "-o", tmp_path / "p", code=1).stderr
    result = run("import", "panns", saved(state_dict()), "-o", tmp_path / "p", "--factor", 0.2, code=2)
    assert "--factor is for --scale" in result.stderr


def test_audiosets_label_names_are_read_from_the_file_beside_the_checkpoint(tmp_path):
    state = build("mn01", 527).state_dict()
    torch.save(state, tmp_path / "mn01_as_mAP_298.pt")
    with pytest.raises(CheckpointError, match="does not name its 527 labels"):
        import_checkpoint(tmp_path / "mn01_as_mAP_298.pt", "efficientat")
    rows = "\n".join(f"{index},/m/{index},name {index}" for index in range(527))
    (tmp_path / "class_labels_indices.csv").write_text(f"index,mid,display_name\n{rows}\n")
    assert import_checkpoint(tmp_path / "mn01_as_mAP_298.pt", "efficientat").labels[:2] == ("name 0", "name 1")
