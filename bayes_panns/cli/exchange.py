"""The commands that exchange models with other projects."""

import logging
from pathlib import Path
from typing import Any

import click

from bayes_panns.cli import offered, options
from bayes_panns.cli.main import main
from bayes_panns.core.choices import CheckpointKind, ExportFormat, ScaleRule
from bayes_panns.core.files import require_folder

logger = logging.getLogger(__name__)


@main.command()
@click.argument("name", shell_complete=lambda ctx, param, typed: offered.beginning(offered.PUBLISHED, typed))
@click.option("-o", "--out", type=options.FOLDER, metavar="FILE", help="A file, or a folder [the current one].")
def fetch(name: str, out: Path | None) -> None:
    """Download a published checkpoint, or check one that is there.

    An interrupted download continues where it stopped, and its checksum is compared with the published one. No checksum
    is known of PANNs' MobileNetV2 and of EfficientAT's files but mn04's: these cannot be checked, and an interrupted
    download of one starts anew.

    \b
    NAME is one of
      panns-resnet22, panns-resnet38, panns-resnet54,
      panns-cnn6, panns-cnn10, panns-cnn14,
      panns-mobilenetv1, panns-mobilenetv2              point weights
      panns-cnn14-16k                                   the same, for 16 kHz
      panns-cnn14-decision-level-max                    the same, tags each third of a second
      vi-pann-flipout, vi-pann-deterministic            download with a browser; checked here
      efficientat-mn01, efficientat-mn02,
      efficientat-mn04, efficientat-mn05,
      efficientat-mn10, efficientat-mn20,
      efficientat-mn30, efficientat-mn40                point weights, mn04 in 4 MB
      efficientat-mn10_as_hop_5,
      efficientat-mn10_as_hop_15,
      efficientat-mn10_as_hop_20,
      efficientat-mn10_as_hop_25                        mn10, a frame every 5 to 25 ms
      efficientat-mn10_as_mels_40,
      efficientat-mn10_as_mels_64,
      efficientat-mn10_as_mels_256                      mn10, 40 to 256 mel bins
      audioset-labels                                   the label names of all of them

    \b
    Example:
      bayes-panns fetch efficientat-mn04
      bayes-panns fetch panns-resnet54
      bayes-panns fetch audioset-labels
    """
    from bayes_panns.interop import PUBLISHED
    from bayes_panns.interop import fetch as download

    path = download(name, out)
    checked = (
        "matches the known checksum" if PUBLISHED[name].checksum else "was not checked: no checksum of it is known"
    )
    logger.info(f"{path}: {checked}; its SHA-256 is in {path}.sha256")


@main.command("import")
@click.argument("kind", type=click.Choice(CheckpointKind.words()))
@click.argument("checkpoint", type=options.FOLDER)
@click.option("-o", "--out", required=True, type=options.FOLDER, metavar="POSTERIOR", help="The folder to write.")
@click.option(
    "--labels",
    type=options.FOLDER,
    metavar="CSV",
    help="AudioSet's class_labels_indices.csv [the one beside the file].",
)
@click.option("--net", type=options.NETWORK, help="The network [as it was exported, or as its keys say].")
@click.option(
    "--scale",
    type=click.Choice(ScaleRule.words()),
    help="Make point weights variational, with scales of FACTOR / sqrt(fan-in), of FACTOR times the weight, or from "
    "the Fisher information of clips.",
)
@click.option("--factor", type=options.Finite(min=0, min_open=True), help="For --scale fan-in and moped [0.1].")
@click.option(
    "--guide", type=options.GUIDE, metavar="G", help="For --scale: the guide recipe that says which weights [flip]."
)
@options.stores("For --scale fisher: a store, with or without labels; repeatable.")
@options.of_widths("For --scale fisher: ")
@options.device
def import_(
    kind: str,
    checkpoint: Path,
    out: Path,
    labels: Path | None,
    net: str | None,
    scale: str | None,
    factor: float | None,
    guide: str | None,
    stores: tuple[Path, ...],
    clips: int | None,
    kl_weight: float | None,
    device: str,
) -> None:
    """Make a posterior from a published checkpoint.

    PANNs' CNNs, ResNets and MobileNets and EfficientAT's MobileNets become point weights or, with --scale, the start of
    a Bayesian fit; with --scale fisher, a posterior without a fit, as the command widths makes it. VI-PANN's Flipout
    checkpoint becomes a mean-field posterior. The network is found by its shapes. Of several with the same shapes, such
    as EfficientAT's mn10 variants, it is the one whose published file has this name; for a file of another name give
    --net. fetch downloads the files; see docs/published-checkpoints.md.

    \b
    Example:
      bayes-panns import panns ResNet54_mAP=0.429.pth -o panns --labels class_labels_indices.csv
      bayes-panns import panns ResNet54_mAP=0.429.pth -o start --labels class_labels_indices.csv --scale moped
      bayes-panns import vi-pann flipout.pth -o vi-pann --labels class_labels_indices.csv
      bayes-panns import efficientat mn04_as_mAP_432.pt -o mn04 --labels class_labels_indices.csv
      bayes-panns import efficientat mn04_as_mAP_432.pt -o mn04-fisher --scale fisher --data stores/esc10.h5
    """
    given: dict[str, Any] = {
        "factor": factor,
        "guide": guide,
        "data": stores or None,
        "clips": clips,
        "kl_weight": kl_weight,
    }
    extras = {name: value for name, value in given.items() if value is not None}
    if scale is None and extras:
        raise click.UsageError(f"{_option(next(iter(extras)))} is for --scale; give that too")
    fisher = scale == ScaleRule.FISHER
    others = [name for name in extras if name != "guide" and (name == "factor") == fisher]
    if others:
        which = "fan-in and moped" if fisher else "fisher"
        raise click.UsageError(f"{_option(others[0])} is for --scale {which}; leave it out")
    if fisher and not stores:
        raise click.UsageError("--scale fisher takes widths from clips; name a store of any sounds with --data")
    from bayes_panns.clips import read_labels
    from bayes_panns.interop import import_checkpoint
    from bayes_panns.jobs import unless_fitting
    from bayes_panns.posterior import save

    require_folder(out)
    names = None if labels is None else read_labels(labels)
    extras["stores"] = extras.pop("data", ())
    with unless_fitting(out):
        posterior = import_checkpoint(checkpoint, kind, labels=names, net=net, scale=scale, device=device, **extras)
        save(posterior, out)
    logger.info(
        f"{out}: {posterior.net}, {len(posterior.labels)} labels, {posterior.sample_rate} Hz; "
        f"{len(posterior.gaussians())} weight tensors variational, {len(posterior.points())} others"
    )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


@main.command()
@click.argument("posterior", type=options.FOLDER)
@click.option("-o", "--out", required=True, type=options.FOLDER, metavar="FILE", help="The file to write.")
@click.option(
    "--format",
    "form",
    type=click.Choice(ExportFormat.words()),
    help="The posterior mean as a checkpoint [of the network's authors], or draws of the last layer as netCDF.",
)
@options.stores("For arviz: a store to predict; repeatable.")
@options.folds("For arviz: predict these folds only.")
@click.option("--draws", type=click.IntRange(min=1), help="For arviz: how many [100].")
@options.guide_function
def export(
    posterior: Path,
    out: Path,
    form: str | None,
    stores: tuple[Path, ...],
    folds: list[int] | None,
    draws: int | None,
    guide_function: str | None,
) -> None:
    """Write a posterior for other tools.

    A checkpoint, which PANNs' or EfficientAT's own code loads, is the posterior's mean. For ArviZ it is draws of the
    last layer's weights and, with --data, the probabilities that the same draws predict.

    \b
    Example:
      bayes-panns export runs/esc10 -o esc10.pth
      bayes-panns export runs/esc10 -o esc10.nc --format arviz --data stores/esc10.h5 --folds 5
    """
    if form != ExportFormat.ARVIZ and (stores or folds is not None or draws is not None):
        raise click.UsageError("--data, --folds and --draws are for --format arviz")
    if folds is not None and not stores:
        raise click.UsageError("--folds is for --data; give that too")
    options.require_output(out)
    from bayes_panns.clips import ClipSet
    from bayes_panns.interop import export_arviz, export_checkpoint
    from bayes_panns.posterior import load

    loaded = load(posterior, guide_function=guide_function)
    if form != ExportFormat.ARVIZ:
        export_checkpoint(loaded, out, form)
        if loaded.calibration is not None:
            temperature = loaded.calibration.temperature
            logger.warning(f"a checkpoint cannot hold the temperature; divide its logits by {temperature:.3f}")
        if loaded.power is not None:
            logger.warning("a checkpoint holds the posterior mean, and not the draws and the power that calibrate them")
    else:
        clips = ClipSet(list(stores), folds=folds) if stores else None
        export_arviz(loaded, out, clips, draws=draws or 100)
    logger.info(f"{out}: written")
