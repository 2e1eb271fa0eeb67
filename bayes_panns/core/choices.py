"""Every choice that a recipe, a command or a call offers, with its words: the one place that names and describes them.

A member equals its string, so ``"flipout" == EstimatorKind.FLIPOUT``; :attr:`Choice.summary` says what it means, for
help texts and error messages.
"""

from enum import StrEnum
from typing import Self


class Choice(StrEnum):
    """A choice of words, each with a summary.

    Example:
        >>> Task("one-of-k").summary
        'every clip has exactly one label'
        >>> Schedule.described()
        'constant (always the peak), cosine (half a cosine from the peak down to 0)'

    Attributes:
        summary: What the member means, in a few words.
    """

    summary: str

    def __new__(cls, value: str, summary: str = "") -> Self:
        """A member from its word and its summary."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.summary = summary
        return member

    @classmethod
    def words(cls) -> tuple[str, ...]:
        """The words, in order."""
        return tuple(str(member) for member in cls)

    @classmethod
    def described(cls) -> str:
        """Each word with its summary, in one line."""
        return ", ".join(f"{member} ({member.summary})" for member in cls)


class Task(Choice):
    """What the labels of a clip mean."""

    ONE_OF_K = "one-of-k", "every clip has exactly one label"
    MULTI_LABEL = "multi-label", "a clip has any number of labels, including none"
    UNLABELLED = "unlabelled", "there are no labels (K = 0)"


class Holds(Choice):
    """What a store has of each clip."""

    WAVEFORMS = "waveforms", "the sound"
    EMBEDDINGS = "embeddings", "a vector that a model has made of the sound"


class RecordingsBy(Choice):
    """How clips of one recording are recognised, which a fit must not be both fitted to and scored on."""

    AUTO = "auto", "the first of the others that the clips speak for"
    SOURCES = "sources", "a column source, or the file that a labelled stretch is of"
    FOLDERS = "folders", "sub-folders"
    NAMES = "names", "file names that differ only in a number, a letter or a time at their end"
    FILES = "files", "every file is a recording of its own"


class ClassShares(Choice):
    """How frequent the classes are taken to be among the sounds to tag."""

    AS_LABELLED = "as-labelled", "as frequent as among the labelled clips"
    EQUAL = "equal", "all equally frequent"


class SoundNote(Choice):
    """What a user should know of a sound file that could be read."""

    TRUNCATED = "truncated", "sound that the file promises is missing"
    CLIPPED = "clipped", "many samples are at full scale"
    SCALE = "scale", "float samples are far beyond full scale"
    CANCELLED = "cancelled", "the channels are opposite and cancel each other"
    SILENT = "silent", "there is no sound"
    TWO_TIMES = "two-times", "its name and its metadata say that it was recorded at different times"


class Target(Choice):
    """What decisions are to meet."""

    PRECISION = "precision", "the share of a label's calls that are right"
    RISK = "risk", "the share of all decided windows that are wrong"
    FALSE_ALARMS = "false-alarms", "wrong calls of a label an hour of sound"


class FittedTo(Choice):
    """Which held-out clips the threshold of a label comes from."""

    OWN = "own", "its own clips"
    POOLED = "pooled", "those of several labels together"
    NEVER = "never", "none: no threshold is shown to meet the target, so the label is not decided"


class Score(Choice):
    """A score by which windows are marked as unlike the held-out clips; higher is less certain."""

    CONFIDENCE = "confidence", "minus the probability of the most probable label"
    ENTROPY = "entropy", "the entropy of the mean of the draws"
    MUTUAL_INFORMATION = "mutual-information", "how far the draws disagree"
    EXPECTED_ENTROPY = "expected-entropy", "the mean entropy of the draws"
    TOTAL = "total", "the variance"
    ALEATORIC = "aleatoric", "its aleatoric part"
    EPISTEMIC = "epistemic", "its epistemic part"


class PosteriorKind(Choice):
    """The posterior family of a weight."""

    NORMAL = "normal", "a mean-field Normal"
    POINT = "point", "an ordinary weight without prior or uncertainty"
    MAP = "map", "a point under its prior"
    ROTATED = "rotated", "for the last layer: a mean-field Normal along the eigenvectors of features and outputs"
    LOW_RANK = "low-rank", "for the last layer: a Normal with a low-rank plus diagonal covariance"


class PriorKind(Choice):
    """The prior of a weight."""

    FAN_IN = "fan-in", "Normal(0, prior_scale / sqrt(fan-in))"
    NORMAL = "normal", "Normal(0, prior_scale)"
    LAPLACE = "laplace", "Laplace with standard deviation prior_scale / sqrt(fan-in)"
    START = "start", "Normal(0, prior_scale times the root mean square of the layer's weights where the fit starts)"
    UPSTREAM = "upstream", "the posterior that the fit starts from, its scales times prior_scale"


class EstimatorKind(Choice):
    """The gradient estimator: how a draw of a Normal weight reaches its layer."""

    WEIGHTS = "weights", "one draw for the batch"
    FLIPOUT = "flipout", "random signs per clip and channel"
    MIRRORED = "mirrored", "half the batch sees loc + noise, the other half loc - noise"
    LOCAL = "local", "local reparameterization, for linear layers only"


class Dropout(Choice):
    """When the network's dropouts are on."""

    OFF = "off", "never"
    FIT = "fit", "while fitting, as in PANNs"
    ALWAYS = "always", "while predicting too: Monte Carlo dropout"


class Sampling(Choice):
    """Which clips make up a batch."""

    RANDOM = "random", "every clip once an epoch"
    BLOCKS = "blocks", "every clip once an epoch, in runs that lie together in the file"
    BALANCED = "balanced", "labels equally often"
    ALTERNATE = "alternate", "a balanced batch, then a random one"


class SplitRule(Choice):
    """Which clips a run holds out."""

    STRATIFIED = "stratified", "the nearest share over whole recordings, with each label in proportion"
    PREFIX = "prefix", "the first recordings of one random order: the rule of runs that do not record one"


class Optimizer(Choice):
    """How a fit maximises the ELBO."""

    ADAM = "adam", "Adam, in steps over batches of clips"
    NATURAL_GRADIENT = (
        "natural-gradient",
        "natural gradients: for mean-field Normals over batches, with Adam for the other parameters; for a rotated "
        "last layer on embeddings over all clips",
    )


class Precision(Choice):
    """The numbers that a network computes with."""

    FLOAT32 = "float32", "floats of 32 bits"
    BF16 = "bf16", "bfloat16 in the layers; draws, KL, likelihood, BatchNorm's statistics and optimisers in float32"


class Curvature(Choice):
    """What a natural-gradient fit takes for the second derivatives of a clip's NLL, weight by weight."""

    SQUARED_GRADIENTS = "squared-gradients", "the squared gradient of a batch's mean, times its clips; costs nothing"
    GAUSS_NEWTON = "gauss-newton", "the same at labels drawn from the model; costs a second backward pass"
    PRICE = "price", "noise times gradient, over the variance; costs the gradients of the scales"


class WidthStart(Choice):
    """Where the widths of mean-field Normals start."""

    GUIDE = "guide", "at the upstream posterior's widths, or else at init_scale of the guide recipe"
    FISHER = "fisher", "at those that the Fisher information of the clips gives, from one pass over them"


class EmbeddingKind(Choice):
    """What the last layer reads."""

    LAST = "last", "the network's own last hidden layer"
    POOLED = "pooled", "the pooled features before it, for networks that have both"


class Schedule(Choice):
    """How the learning rate changes over a fit."""

    CONSTANT = "constant", "always the peak"
    COSINE = "cosine", "half a cosine from the peak down to 0"


class Features(Choice):
    """What a step of a fit starts from."""

    MEMORY = "memory", "log-mels, computed once and kept in memory"
    DISK = "disk", "log-mels, computed once and kept on disk"
    NONE = "none", "waveforms; log-mels are computed in each step"
    EMBEDDINGS = "embeddings", "embeddings of a frozen backbone, computed once and kept beside the store"


class ShortClips(Choice):
    """How a network is shown a clip that is shorter than those it was fitted to."""

    PAD = "pad", "padded with silence to the length of the clips, as stores pad them"
    OWN_LENGTH = "own-length", "at its own length, as the authors of published checkpoints do"


class HeadStart(Choice):
    """Where a last layer starts."""

    RANDOM = "random", "random values, for new labels"
    PROBE = "probe", "logistic regression on the upstream's embeddings"
    UPSTREAM = "upstream", "the upstream's rotated last layer of the same labels, which becomes the prior"


class TagFormat(Choice):
    """How ``predict`` writes tags."""

    TABLE = "table", "the most probable labels of each window, for the terminal"
    JSON = "json", "every number"
    CSV = "csv", "a row for each window and label"
    AUDACITY = "audacity", "a label track of one file"
    PARQUET = "parquet", "a row for each window and label, for data frames"
    RAVEN = "raven", "a selection table of the events of each recording"
    PICTURE = "picture", "a timeline of each recording as PNG"


class AcquireStrategy(Choice):
    """How ``acquire`` chooses which clips to label next."""

    RANDOM = "random", "any clips"
    ENTROPY = "entropy", "the most uncertain labels, for whatever reason"
    BALD = "bald", "the draws disagree most: the label says most about the weights"
    BATCH_BALD = "batch-bald", "the same of the batch as a whole, so that no two clips ask the same question"
    TYPICAL = "typical", "the most typical clip of each group of similar sounds without a label; needs no draws"
    MIX = "mix", "the middle of each group of uncertain sounds"


class CheckpointKind(Choice):
    """Whose published checkpoints can be imported."""

    PANNS = "panns", "PANNs' CNNs, ResNets and MobileNets: point weights"
    VI_PANN = "vi-pann", "VI-PANN's ResNet54: Flipout or deterministic"
    EFFICIENTAT = "efficientat", "EfficientAT's MobileNets: point weights"


class ScaleRule(Choice):
    """How point weights get scales on import."""

    FAN_IN = "fan-in", "factor / sqrt(fan-in)"
    MOPED = "moped", "factor times the weight's absolute value"
    FISHER = "fisher", "from the Fisher information of clips, which need no labels"


class ExportFormat(Choice):
    """What a posterior is exported as."""

    PANNS = "panns", "the posterior mean as a PANNs checkpoint"
    EFFICIENTAT = "efficientat", "the posterior mean as an EfficientAT checkpoint"
    ARVIZ = "arviz", "draws of the last layer as netCDF, for ArviZ"


class Health(Choice):
    """How one thing is that ``doctor`` looks at."""

    OK = "ok", "as it should be"
    NOTE = "note", "works, and something is worth knowing"
    PROBLEM = "problem", "does not work"
